"""What a notebook shows and records of variants over their seeds: tables, curves, numbers."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind
from torch import nn

from dlapps.gans.measures import UNITS
from dlapps.gans.sampling import generate, label_grid, spread
from dlapps.gans.trainer import History, Settings
from dlapps.gans.variants import Runs
from dlapps.texts import mean_and_deviation


def say(values: Sequence[float | None], decimals: int = 3) -> str:
    """Say figures of merit, see `texts.mean_and_deviation`."""
    return mean_and_deviation(values, decimals)


def measure_table(variants: Mapping[str, Runs | None], real: dict | None = None) -> pd.DataFrame:
    """Return one row per variant: figures of merit and D's lead over the seeds, and what failed.

    None stands for a variant that is trained on a GPU only, and was not. real: the figures of merit
    of real images, the best that can be reached, for the first row.
    """
    trained = {name: runs for name, runs in variants.items() if runs}
    keys = [key for key in UNITS if any(_numbers(runs, key) for runs in trained.values())]
    rows = []
    if real:
        rows += [{"variant": "real images"} | {k: say([real.get(k)], _decimals(k)) for k in keys}]
    for name, runs in variants.items():
        if runs is None:
            rows.append({"variant": name, "notes": "needs the full profile on a GPU"})
            continue
        own = {key: say(runs.values(key), _decimals(key)) for key in [*keys, "lead"]}
        rows.append({"variant": name, **own, "notes": failures_in_words(runs)})
    return pd.DataFrame(rows).fillna("")


def _numbers(runs, key):
    return [value for value in runs.values(key) if value is not None]


def _decimals(key):
    return 1 if key == "frechet" else 3


def failures_in_words(runs: Runs) -> str:
    """Return what went wrong in the trainings, in how many, and from which iterations on."""
    words = []
    for kind in _kinds_of_failures(runs):
        begun = [o.history.failures[kind] for o in runs.outcomes if kind in o.history.failures]
        of = f" in {len(begun)} of {len(runs.outcomes)} runs" if len(runs.outcomes) > 1 else ""
        words.append(f"{kind}{of} from {', '.join(f'{t:,}' for t in begun)}")
    return "; ".join(words)


def _kinds_of_failures(runs):
    return dict.fromkeys(kind for outcome in runs.outcomes for kind in outcome.history.failures)


def seeds_in_words(runs: Runs) -> str:
    """Return the seed whose images a figure shows, and whose curves are faint beside its own."""
    first, *others = runs.seeds
    faint = f"; faint: seeds {', '.join(map(str, others))}" if others else ""
    return f"seed {first}{faint}"


def settings_in_words(runs: Runs) -> str:
    """Return a variant's model and name, with the epochs and batches of its training."""
    variant, settings = runs.variant, Settings(**runs.variant.settings)
    name = variant.name if variant.model in variant.name else f"{variant.model}, {variant.name}"
    epochs = f"{settings.epochs} epoch{'s' if settings.epochs > 1 else ''}"
    return f"{name} ({epochs} in batches of {settings.batch_size})"


def budget_table(variants: Mapping[str, Runs]) -> pd.DataFrame:
    """Return one row per variant: the parameters of both networks, and what they were trained for.

    Images seen: real ones that D was shown, as often as it was shown them. Of the first seed.
    """
    rows = []
    for name, runs in variants.items():
        settings = Settings(**runs.variant.settings)
        iterations = len(runs.first.history.records["d_real"])
        seen = iterations * settings.batch_size * settings.discriminator_steps
        generator, discriminator = map(_parameters, runs.variant.networks())
        rows.append(
            {
                "variant": name,
                "parameters of G": generator,
                "parameters of D": discriminator,
                "iterations": iterations,
                "images seen": seen,
            }
        )
    return pd.DataFrame(rows)


def _parameters(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def as_records(variants: Mapping[str, Runs]) -> dict:
    """Return `numbers`, `unit`, `model` and `seed` of all figures of merit and failures.

    For `Artifacts.record`: {"<measure> of <variant>": a number per seed} each, and for what failed
    with any seed the iteration at which it began (None with the others). The variants have the same
    seeds.
    """
    numbers, unit, model, seeds = {}, {}, {}, None
    for name, runs in variants.items():
        seeds = runs.seeds
        own = {f"{key} of {name}": (runs.values(key), UNITS[key]) for key in UNITS}
        for kind in _kinds_of_failures(runs):
            begun = [outcome.history.failures.get(kind) for outcome in runs.outcomes]
            own[f"{kind} of {name}"] = begun, "iteration at which it began"
        own = {key: (values, of) for key, (values, of) in own.items() if set(values) != {None}}
        numbers |= {key: values for key, (values, _) in own.items()}
        unit |= {key: of for key, (_, of) in own.items()}
        model |= dict.fromkeys(own, settings_in_words(runs))
    return {"numbers": numbers, "unit": unit, "model": model, "seed": seeds}


def ending_records(runs: Runs, prefix: str) -> dict:
    """Return `numbers`, `unit` and `seed` of both losses and probabilities at the end.

    For `Artifacts.record`: {"<prefix> <record>": the mean of the last iterations per seed} each.
    """
    units = {"discriminator_loss": "nats", "generator_loss": "nats"}
    units |= {"d_real": "probability", "d_fake": "probability"}
    ending = {name: [outcome.ending(name) for outcome in runs.outcomes] for name in units}
    return {
        "numbers": {f"{prefix} {name}": values for name, values in ending.items()},
        "unit": {f"{prefix} {name}": unit for name, unit in units.items()},
        "seed": runs.seeds,
    }


def p_value(one: Runs, other: Runs, measure: str = "frechet") -> float | None:
    """Return how likely the seeds' means would differ as much, or more, by chance alone.

    Welch's t-test (1947) of the logarithms of a positive figure of merit: for the Fréchet distance,
    of which one run is a multiple of another rather than so much more. None where either has fewer
    than two numbers.
    """
    samples = [_numbers(runs, measure) for runs in (one, other)]
    if min(map(len, samples)) < 2:
        return None
    return float(ttest_ind(*map(np.log, samples), equal_var=False).pvalue)


def verdicts(
    variants: Mapping[str, Runs], base: Runs, level: float = 0.01, factor: float = 4
) -> dict[str, list[str]]:
    """Return {"nearer", "farther", "undecided": names of variants}, by their Fréchet distance.

    Beside that of `base`. Decided is what has a `p_value` below `level`; single runs, which differ
    from their own repetition by about a factor of two, have to be apart by a `factor`. What
    diverged is left out.
    """
    found = {"nearer": [], "farther": [], "undecided": []}
    for name, runs in variants.items():
        if not _numbers(runs, "frechet"):
            continue
        ratio, p = runs.mean("frechet") / base.mean("frechet"), p_value(runs, base)
        decided = max(ratio, 1 / ratio) > factor if p is None else p < level
        found[("nearer" if ratio < 1 else "farther") if decided else "undecided"].append(name)
    return found


def label_spreads(runs: Runs, columns: int = 100, noise_seed: int = 0) -> dict[str, list[float]]:
    """Return {"all images", "images of one label": their `spread` per seed} of labelled variants.

    Of the images of `label_grid`: as many noise vectors as `columns`, each with every label.
    """
    found = {"all images": [], "images of one label": []}
    for outcome in runs.outcomes:
        generator = outcome.generator()
        z, labels = label_grid(generator, columns, noise_seed)
        images = generate(generator, z, labels)
        for name, groups in zip(found, (None, labels), strict=True):
            found[name].append(spread(images, groups))
    return found


def over_seeds(variants: Mapping[str, Runs], measures: Sequence[str]) -> tuple[dict, dict]:
    """Return {measure: means} and {measure: sample standard deviations} of the variants, as lists.

    A mean is NaN if no run was measured, a deviation 0 of a single one.
    """
    means, deviations = {}, {}
    for measure in measures:
        values = [_numbers(runs, measure) for runs in variants.values()]
        means[measure] = [statistics.fmean(v) if v else np.nan for v in values]
        deviations[measure] = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
    return means, deviations


def training_panels(histories: Sequence[History]) -> dict:
    """Return {(title, y label): {curve: values per history}} of trainings, for their sheet."""

    def values(name):
        return [history.records[name] for history in histories]

    return {
        ("Losses", "nats"): {
            "D": values("discriminator_loss"),
            "G": values("generator_loss"),
        },
        ("“Real”, says D", "probability"): {
            "of real": values("d_real"),
            "of generated": values("d_fake"),
        },
        ("Gradients", "length"): {
            "D": values("discriminator_gradient"),
            "G": values("generator_gradient"),
        },
    }


def breakdowns(
    records: Mapping[str, list[float]], window: int = 50, start: int = 1000
) -> list[int]:
    """Return the iterations at which D broke down late in a training.

    One for each stretch in which D, on the mean of `window` iterations, gives generated images at
    least as high a probability as real ones; what begins before `start` iterations does not count,
    as both networks are new then.
    """
    lead = np.asarray(records["d_real"]) - np.asarray(records["d_fake"])
    if len(lead) < window:
        return []
    means = np.convolve(lead, np.full(window, 1 / window), mode="valid")
    lost = np.concatenate([[False], means <= 0])
    begun = np.flatnonzero(lost[1:] & ~lost[:-1]) + window
    return [int(t) for t in begun if t >= start]
