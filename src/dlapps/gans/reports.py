"""What a notebook shows and records of trained variants: tables, panels of curves, numbers."""

from collections.abc import Mapping

import pandas as pd
from torch import nn

from dlapps.gans.measures import UNITS
from dlapps.gans.trainer import Settings
from dlapps.gans.variants import Outcome


def measure_table(outcomes: Mapping[str, Outcome], real: dict | None = None) -> pd.DataFrame:
    """Return one row per variant: figures of merit, D's lead and what failed.

    real: the figures of merit of real images, the best that can be reached, for the first row.
    """
    rows = [{"variant": "real images", **real}] if real else []
    for name, outcome in outcomes.items():
        own = {"lead": outcome.lead, "failed": failures_in_words(outcome)}
        rows.append({"variant": name, **(outcome.measures or {}), **own})
    table = pd.DataFrame(rows)
    measured = [
        key
        for key in UNITS
        if any((o.measures or {}).get(key) is not None for o in outcomes.values())
    ]
    return table[["variant", *measured, "lead", "failed"]].fillna({"failed": ""})


def failures_in_words(outcome: Outcome) -> str:
    """Return what went wrong in a training, and from which iteration on, as a text."""
    return ", ".join(f"{kind} from {t:,}" for kind, t in outcome.history.failures.items())


def budget_table(outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    """Return one row per variant: the parameters of both networks, and what they were trained for.

    Images seen: real ones that D was shown, as often as it was shown them.
    """
    rows = []
    for name, outcome in outcomes.items():
        settings = Settings(**outcome.variant.settings)
        iterations = len(outcome.history.records["d_real"])
        seen = iterations * settings.batch_size * settings.discriminator_steps
        generator, discriminator = map(_parameters, outcome.variant.networks())
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


def as_records(outcomes: Mapping[str, Outcome]) -> dict:
    """Return `numbers`, `unit` and `model` of all figures of merit and failures.

    For `Artifacts.record`: {"<measure> of <variant>": ...} each, and for what failed the iteration
    at which it began.
    """
    numbers, unit, model = {}, {}, {}
    for name, outcome in outcomes.items():
        for measure, value in (outcome.measures or {}).items():
            if measure in UNITS:
                numbers[f"{measure} of {name}"], unit[f"{measure} of {name}"] = (
                    value,
                    UNITS[measure],
                )
        for kind, t in outcome.history.failures.items():
            key = f"{kind} of {name}"
            numbers[key], unit[key] = t, "iteration at which it began"
        model |= {key: name for key in numbers if key not in model}
    return {"numbers": numbers, "unit": unit, "model": model}


def ending_records(outcome: Outcome, prefix: str) -> dict:
    """Return `numbers` and `unit` of both losses and probabilities at the end of a training.

    For `Artifacts.record`: {"<prefix> <record>": the mean of the last iterations} each.
    """
    units = {"discriminator_loss": "nats", "generator_loss": "nats"}
    units |= {"d_real": "probability", "d_fake": "probability"}
    return {
        "numbers": {f"{prefix} {name}": outcome.ending(name) for name in units},
        "unit": {f"{prefix} {name}": unit for name, unit in units.items()},
    }


def training_panels(records: Mapping[str, list]) -> dict:
    """Return {(title, y label): {curve: values}} of a training's records, for a sheet of curves."""
    return {
        ("Losses", "nats"): {
            "D": records["discriminator_loss"],
            "G": records["generator_loss"],
        },
        ("“Real”, says D", "probability"): {
            "of real": records["d_real"],
            "of generated": records["d_fake"],
        },
        ("Gradients", "length"): {
            "D": records["discriminator_gradient"],
            "G": records["generator_gradient"],
        },
    }
