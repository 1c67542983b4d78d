"""Variants: trained, measured, kept; a failure is a result; many at once give the same."""

import math
import os
from types import SimpleNamespace
from unittest import mock

import joblib
import pytest
import torch

from dlapps import gans, runtime, training
from dlapps.gans import judging, measures, variants
from dlapps.gans.variants import Variant
from dlapps.models import gan
from dlapps.models.judge import Judge

SMALL = {"generator": {"latent": 8, "width": 4}, "discriminator": {"width": 4}}
SETTINGS = {"epochs": 1, "batch_size": 20}


def benchmark(count=200):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 10
    runtime.seed_everything(0)
    judge = Judge(width=16).eval()
    return gans.Benchmark(images, labels, images.flip(0), labels.flip(0), judge)


def test_a_benchmark_has_a_judge_of_its_training_images(tmp_path):
    base = benchmark()
    train = SimpleNamespace(images=base.images, labels=base.labels, classes=range(10))
    test = SimpleNamespace(images=base.test, labels=base.test_labels)
    options = {"epochs": 1, "seed": 3, "checkpoint": tmp_path / "judge.pt"}
    one, other = (gans.make_benchmark(train, test, **options) for _ in range(2))
    weights = one.judge.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in other.judge.state_dict().items())
    assert one.test is base.test and 0 <= one.accuracy <= 1
    real = one.measures_of_real_images()
    assert real["coverage"] > 0.9  # the test images are the training images in another order
    assert set(real) == {*gans.UNITS, "shares"} - {"gan train"}


def small(name, **changed):
    settings = SETTINGS | changed.pop("settings", {})
    return Variant(name, settings=settings, **(SMALL | changed))


def same(one, other):
    return all(
        torch.equal(a, b) for a, b in zip(one.weights.values(), other.weights.values(), strict=True)
    )


@pytest.mark.parametrize("model", variants.MODELS)
def test_every_model_is_trained_and_measured(model, tmp_path):
    result = variants.run(small(model, model=model), benchmark(), tmp_path, snapshots=(0, 5))
    assert list(result.history.snapshots) == [0, 5, 10]
    assert {len(values) for values in result.history.records.values()} == {10}
    assert result.history.failures == {}
    expected = {"frechet", "precision", "recall", "density", "coverage", "shares", "variation"}
    if model != "DCGAN":
        expected |= {"agreement", "permuted agreement", "class coverage"}
    assert set(result.measures) == expected


def test_measures_are_those_of_the_kept_generator(tmp_path):
    base, variant = benchmark(), small("one")
    result = variants.run(variant, base, tmp_path)
    generator = result.generator()
    z = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    generator.to(runtime.device())
    features, _ = judging.features_and_classes(base.judge, gans.generate(generator, z))
    real, _ = judging.features_and_classes(base.judge, base.test)
    found = measures.frechet_distance(real, features)
    assert result.measures["frechet"] == pytest.approx(found, rel=1e-4)
    found = measures.neighbourhoods(real, features)
    assert {name: result.measures[name] for name in found} == pytest.approx(found)


def test_noise_can_be_scaled_before_it_is_measured():
    base, (generator, _) = benchmark(), small("one", model="cDCGAN").networks()
    generator.to(runtime.device())
    seen = []
    generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].std().item()))
    plain, half = (gans.measure(generator, base, scale=scale) for scale in (1.0, 0.5))
    assert seen == pytest.approx([seen[0], seen[0] / 2]) and seen[0] == pytest.approx(1, rel=0.1)
    assert plain["frechet"] != half["frechet"] and plain == gans.measure(generator, base)


def test_what_is_finished_is_not_run_again_and_what_differs_is(tmp_path, monkeypatch):
    base = benchmark()
    first = variants.run(small("one"), base, tmp_path)
    other = variants.run(small("one ×", settings={"seed": 1}), base, tmp_path)
    assert not same(first, other)

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(training, "run", never)
    again = variants.run(small("one"), base, tmp_path)
    assert same(first, again) and again.measures == first.measures
    with pytest.raises(AssertionError, match="trained again"):
        variants.run(small("one", settings={"loss": "hinge"}), base, tmp_path)


def test_a_variant_that_diverges_is_a_result(tmp_path):
    result = variants.run(
        small("diverges", settings={"learning_rate": 1e30}), benchmark(), tmp_path
    )
    assert result.measures is None
    assert list(result.history.failures) == ["not finite"]


def test_64_pixels_are_trained_on_resized_images_and_judged_at_32(tmp_path):
    sizes = {
        "generator": SMALL["generator"] | {"size": 64},
        "discriminator": SMALL["discriminator"] | {"size": 64},
    }
    result = variants.run(small("64 pixels", **sizes), benchmark(), tmp_path)
    assert result.history.snapshots[10].shape[2:] == (64, 64)
    assert result.measures["frechet"] > 0


def test_jobs_at_once_give_what_jobs_one_by_one_give(tmp_path):
    jobs = [small("one"), small("two", settings={"beta1": 0.9})]
    base = benchmark()
    alone = {v.name: variants.run(v.vary(v.name, seed=0), base, tmp_path / "alone") for v in jobs}
    together = variants.run_all(jobs, base, tmp_path / "together", n_jobs=2)
    assert list(together) == ["one", "two"]
    for name in together:
        assert same(alone[name], together[name].first)
        assert alone[name].measures == together[name].first.measures
    with pytest.raises(ValueError, match="each only once"):
        variants.run_all([small("one"), small("one")], base, tmp_path)


def test_every_variant_is_trained_with_every_seed(tmp_path):
    base, variant = benchmark(), small("one")
    runs = variants.run_all([variant], base, tmp_path, seeds=[3, 1], n_jobs=1)["one"]
    assert runs.variant == variant and runs.seeds == [3, 1] and runs.first is runs.outcomes[0]
    for seed, outcome in zip((3, 1), runs.outcomes, strict=True):
        own = variants.run(small("one", settings={"seed": seed}), base, tmp_path / "own")
        assert same(outcome, own) and outcome.measures == own.measures
    assert not same(*runs.outcomes)
    assert runs.values("frechet") == [o.measures["frechet"] for o in runs.outcomes]
    assert runs.mean("frechet") == pytest.approx(sum(runs.values("frechet")) / 2)
    assert runs.ending("d_real") == pytest.approx(
        sum(o.ending("d_real") for o in runs.outcomes) / 2
    )
    for seeds in ([], [1, 1]):
        with pytest.raises(ValueError, match="seeds is"):
            variants.run_all([variant], base, tmp_path, seeds=seeds)


def test_a_run_that_diverged_has_no_figures_of_merit():
    finite = SimpleNamespace(measures={"frechet": 2.0})
    diverged = SimpleNamespace(measures=None)
    runs = variants.Runs(small("one"), [finite, diverged])
    assert runs.values("frechet") == [2.0, None] and runs.mean("frechet") == 2.0
    assert math.isnan(variants.Runs(small("one"), [diverged]).mean("frechet"))


def test_variants_of_a_later_call_are_finished_then(tmp_path, monkeypatch):
    one, two = small("one"), small("two", settings={"beta1": 0.9})
    base = benchmark()
    assert list(variants.run_all([one], base, tmp_path, ahead=[two], n_jobs=2)) == ["one"]
    never = mock.Mock(side_effect=AssertionError("trained again"))
    monkeypatch.setattr(training, "run", never)
    assert list(variants.run_all([two], base, tmp_path, ahead=[one])) == ["two"]
    with pytest.raises(AssertionError, match="trained again"):  # one at a time: nothing is idle
        variants.run_all([small("three")], base, tmp_path, n_jobs=1)


def test_what_was_trained_alone_is_only_measured(tmp_path, monkeypatch):
    base, threads = benchmark(), torch.get_num_threads()
    generator, history = variants.train_variant(
        small("one"), base.images, base.labels, tmp_path, snapshots=(0,)
    )
    assert torch.get_num_threads() == threads
    monkeypatch.setattr("dlapps.training._Run.train", mock.Mock(side_effect=AssertionError))
    outcome = variants.run(small("one"), base, tmp_path, snapshots=(0,))
    assert outcome.history.records == history.records
    state = generator.state_dict()
    assert all(torch.equal(state[name], values) for name, values in outcome.weights.items())


def test_a_variant_of_a_variant_keeps_what_is_not_changed():
    base = Variant("a", generator={"width": 4}, settings={"epochs": 2, "r1": 0.1})
    varied = base.vary("b", generator={"latent": 8}, discriminator={"width": 2}, epochs=3)
    assert varied.generator == {"width": 4, "latent": 8}
    assert varied.discriminator == {"width": 2}
    assert varied.settings == {"epochs": 3, "r1": 0.1}
    assert varied.dcgan_weights and not base.vary("c", dcgan_weights=False).dcgan_weights
    assert base.generator == {"width": 4}
    assert len({base.vary(name).file_name for name in ("rate × 10", "rate ÷ 10")}) == 2


def test_jobs_go_to_the_workers_of_a_dask_cluster(tmp_path):
    distributed = pytest.importorskip("distributed")
    jobs = [small("one"), small("two", settings={"beta1": 0.9})]
    base = benchmark()
    with (
        mock.patch.dict(os.environ),  # Dask leaves there what it sets for its workers
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as found,
        distributed.Client(found),
        joblib.parallel_config(backend="dask"),
    ):
        results = variants.run_all(jobs, base, tmp_path / "dask", n_jobs=2)
    here = variants.run_all(jobs, base, tmp_path / "here", n_jobs=2)
    assert all(same(results[name].first, here[name].first) for name in ("one", "two"))


def test_bad_variants_are_named():
    with pytest.raises(ValueError, match="model is 'WGAN'"):
        Variant("x", model="WGAN")
    with pytest.raises(ValueError, match="beta1 is 2"):
        Variant("x", settings={"beta1": 2})


def test_initial_weights_are_dcgans_or_pytorchs():
    own, pytorchs = small("a").networks()[0], small("b", dcgan_weights=False).networks()[0]
    convolution = own.body[1][0].weight
    assert convolution.std().item() == pytest.approx(0.02, rel=0.1)
    assert pytorchs.body[1][0].weight.std() > 0.03
    assert isinstance(own, gan.DCGANGenerator)
