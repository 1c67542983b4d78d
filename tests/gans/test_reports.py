"""What notebooks show and record of variants, made from outcomes written by hand."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import stdtr

from dlapps import gans
from dlapps.gans import reports

MERITS = {"frechet": 2.0, "shares": [0.5, 0.5], "coverage": 0.25}


def outcome(name, measures=MERITS, failures=None, seed=0):
    records = {key: [0.5] * 200 for key in gans.RECORDED}
    records |= {"d_real": [0.0] * 100 + [0.75] * 100, "d_fake": [1.0] * 100 + [0.25] * 100}
    history = gans.History(records, {}, failures or {}, 0.1)
    settings = {"batch_size": 8, "discriminator_steps": 5, "seed": seed}
    return gans.Outcome(gans.Variant(name, settings=settings), measures, history, {})


def runs(name, *measures, failures=None):
    """Return `Runs` with a seed for each of `measures`, and failures {seed: ...}."""
    failures = failures or {}
    outcomes = [outcome(name, m, failures.get(s), s) for s, m in enumerate(measures)]
    return gans.Runs(gans.Variant(name, settings={"epochs": 1, "batch_size": 8}), outcomes)


def merits(*frechet):
    return [{"frechet": value} for value in frechet]


def test_mean_and_sample_deviation_are_said():
    assert reports.say([1.0, 2.0, 3.0]) == "2.000 ± 1.000"
    assert reports.say([1234.56], 1) == "1,234.6"
    assert reports.say([1.0, None, 3.0], 0) == "2 ± 1"
    assert reports.say([None]) == reports.say([]) == "n/a"


def test_the_table_has_real_images_first_and_says_what_failed():
    failed = {"collapse": 20, "discriminator won": 1040}
    variants = {
        "one": runs("one", MERITS, MERITS | {"coverage": 0.35}),
        "two": runs("two", None, failures={0: failed}),
        "three": None,
    }
    table = gans.measure_table(variants, {"frechet": 1.0, "coverage": 0.9, "shares": [1]})
    assert list(table.columns) == ["variant", "frechet", "coverage", "lead", "notes"]
    assert list(table["variant"]) == ["real images", "one", "two", "three"]
    assert list(table["frechet"]) == ["1.0", "2.0 ± 0.0", "n/a", ""]
    assert list(table["coverage"]) == ["0.900", "0.300 ± 0.071", "n/a", ""]
    assert list(table["notes"]) == [
        "",
        "",
        "collapse from 20; discriminator won from 1,040",
        "needs the full profile on a GPU",
    ]
    assert list(table["lead"]) == ["", "0.500 ± 0.000", "0.500", ""]  # of the last 100 iterations
    assert len(gans.measure_table(variants)) == 3


def test_failures_are_counted_over_the_seeds():
    failed = {0: {"collapse": 20}, 2: {"collapse": 1500}}
    words = gans.failures_in_words(runs("one", MERITS, MERITS, MERITS, failures=failed))
    assert words == "collapse in 2 of 3 runs from 20, 1,500"


def test_seeds_and_settings_are_named():
    one = runs("one", MERITS, MERITS, MERITS)
    assert gans.settings_in_words(one) == "DCGAN, one (1 epoch in batches of 8)"
    short = gans.Variant("cDCGAN, short", "cDCGAN", settings={"epochs": 2})
    assert (
        gans.settings_in_words(gans.Runs(short, [])) == "cDCGAN, short (2 epochs in batches of 128)"
    )
    assert gans.seeds_in_words(one) == "seed 0; faint: seeds 1, 2"
    assert gans.seeds_in_words(runs("one", MERITS)) == "seed 0"


def test_numbers_are_recorded_with_unit_variant_and_seeds():
    two = runs("two", None, None, failures={1: {"collapse": 7}})
    records = gans.as_records({"one": runs("one", MERITS, None), "two": two})
    numbers = {
        "frechet of one": [2.0, None],
        "coverage of one": [0.25, None],
        "collapse of two": [None, 7],
    }
    assert records["numbers"] == numbers and records["seed"] == [0, 1]
    words = [f"DCGAN, {name} (1 epoch in batches of 8)" for name in ("one", "one", "two")]
    assert records["model"] == dict(zip(numbers, words, strict=True))
    assert records["unit"]["collapse of two"] == "iteration at which it began"
    assert records["unit"]["frechet of one"] == gans.UNITS["frechet"]


def test_endings_are_means_of_the_last_iterations():
    records = gans.ending_records(runs("one", MERITS, MERITS), "dcgan")
    assert records["numbers"]["dcgan d_real"] == [0.75, 0.75]
    assert records["numbers"]["dcgan generator_loss"] == [0.5, 0.5]
    assert records["unit"].keys() == records["numbers"].keys()
    assert records["unit"]["dcgan discriminator_loss"] == "nats" and records["seed"] == [0, 1]


def test_budgets_count_parameters_and_images():
    one = gans.Runs(outcome("one").variant, [outcome("one")])
    (row,) = gans.budget_table({"one": one}).to_dict("records")
    generator, discriminator = gans.Variant("one").networks()
    assert row["parameters of G"] == sum(p.numel() for p in generator.parameters())
    assert row["parameters of D"] == sum(p.numel() for p in discriminator.parameters())
    assert (row["iterations"], row["images seen"]) == (200, 200 * 8 * 5)


def test_over_the_seeds_there_are_means_and_deviations():
    variants = {
        "a": runs("a", *merits(1.0, 3.0)),
        "b": runs("b", *merits(5.0)),
        "c": runs("c", None),
    }
    means, deviations = gans.over_seeds(variants, ["frechet"])
    assert means["frechet"][:2] == [2.0, 5.0] and math.isnan(means["frechet"][2])
    assert deviations["frechet"] == pytest.approx([2**0.5, 0, 0])


def test_the_p_value_is_that_of_welchs_formula():
    a, b = [100.0, 150.0, 120.0], [300.0, 250.0, 420.0]
    x, y = np.log(a), np.log(b)
    squares = x.var(ddof=1) / 3, y.var(ddof=1) / 3
    t = (x.mean() - y.mean()) / math.sqrt(sum(squares))
    freedom = sum(squares) ** 2 / sum(square**2 / 2 for square in squares)
    wanted = 2 * stdtr(freedom, -abs(t))
    assert gans.p_value(runs("a", *merits(*a)), runs("b", *merits(*b))) == pytest.approx(wanted)
    assert gans.p_value(runs("a", *merits(1.0)), runs("b", *merits(*b))) is None


def test_verdicts_need_a_small_p_or_of_single_runs_a_large_factor():
    base = runs("base", *merits(100.0, 110.0, 105.0))
    variants = {
        "half": runs("half", *merits(50.0, 52.0, 55.0)),
        "double": runs("double", *merits(200.0, 210.0, 220.0)),
        "wide": runs("wide", *merits(50.0, 200.0, 300.0)),
        "lost": runs("lost", None, None, None),
    }
    assert gans.verdicts(variants, base) == {
        "nearer": ["half"],
        "farther": ["double"],
        "undecided": ["wide"],
    }
    single = {name: runs(name, *merits(value)) for name, value in (("x", 450.0), ("y", 30.0))}
    found = gans.verdicts(single, runs("base", *merits(100.0)))
    assert found == {"nearer": [], "farther": ["x"], "undecided": ["y"]}


class OfLabels(torch.nn.Module):
    """A generator whose images are as bright as their label says, or as their noise."""

    latent, classes = 3, 4

    def __init__(self, use_noise):
        super().__init__()
        self.weight, self.use_noise = torch.nn.Parameter(torch.zeros(1)), use_noise

    def forward(self, z, labels):
        values = z[:, 0].sigmoid() if self.use_noise else labels / 5
        return values[:, None, None, None].expand(-1, 1, 2, 2) + self.weight


def test_images_differ_within_a_label_by_the_noise_alone():
    outcomes = [
        SimpleNamespace(generator=partial(OfLabels, use_noise)) for use_noise in (False, True)
    ]
    found = gans.label_spreads(gans.Runs(gans.Variant("x"), outcomes), columns=50)
    ignores_z, ignores_y = zip(*found.values(), strict=True)
    assert list(found) == ["all images", "images of one label"]
    assert ignores_z == pytest.approx((np.std(np.arange(4) / 5), 0), abs=1e-6)
    assert ignores_y[0] == pytest.approx(ignores_y[1]) and ignores_y[0] > 0.1


def test_breakdowns_are_late_stretches_without_a_lead():
    lead = np.full(3000, 0.5)
    lead[100:400] = -1  # early: both networks are new
    lead[1500:1600] = -1
    lead[2000:2010] = -1  # too short to weigh in a mean of 50: 10 · -1 + 40 · 0.5 > 0
    lead[2800:] = -1
    records = {"d_real": lead.tolist(), "d_fake": np.zeros(3000).tolist()}
    found = gans.breakdowns(records)
    assert len(found) == 2
    # The first mean that is not positive has 17 of 50 iterations at -1.
    assert found == [1517, 2817]
    assert gans.breakdowns({name: values[:40] for name, values in records.items()}) == []


def test_panels_hold_all_records_but_the_spread():
    records = {name: [number] for number, name in enumerate(gans.RECORDED)}
    panels = reports.training_panels([gans.History(records, {}, {}, 0.1)] * 2)
    values = [line for lines in panels.values() for line in lines.values()]
    assert values == [[[number], [number]] for number in range(6)]
