"""What notebooks show and record of variants, made from outcomes written by hand."""

import pytest

from dlapps import gans
from dlapps.gans import reports

MERITS = {"frechet": 2.0, "shares": [0.5, 0.5], "coverage": 0.25}


def outcome(name, measures=MERITS, failures=None):
    records = {key: [0.5] * 200 for key in gans.RECORDED}
    records |= {"d_real": [0.0] * 100 + [0.75] * 100, "d_fake": [1.0] * 100 + [0.25] * 100}
    history = gans.History(records, {}, failures or {}, 0.1)
    settings = {"batch_size": 8, "discriminator_steps": 5}
    return gans.Outcome(gans.Variant(name, settings=settings), measures, history, {})


def test_the_table_has_real_images_first_and_says_what_failed():
    failed = {"collapse": 20, "discriminator won": 1040}
    outcomes = {"one": outcome("one"), "two": outcome("two", None, failed)}
    table = gans.measure_table(outcomes, {"frechet": 1.0, "coverage": 0.9, "shares": [1]})
    assert list(table.columns) == ["variant", "frechet", "coverage", "lead", "failed"]
    assert list(table["variant"]) == ["real images", "one", "two"]
    assert list(table["failed"]) == ["", "", "collapse from 20, discriminator won from 1,040"]
    assert table["frechet"].isna().tolist() == [False, False, True]
    assert table["lead"][1] == 0.5  # of the last 100 iterations alone
    assert len(gans.measure_table(outcomes)) == 2


def test_numbers_are_recorded_with_unit_and_variant():
    records = gans.as_records({"one": outcome("one"), "two": outcome("two", None, {"collapse": 7})})
    numbers = {"frechet of one": 2.0, "coverage of one": 0.25, "collapse of two": 7}
    assert records["numbers"] == numbers
    assert records["model"] == dict(zip(numbers, ("one", "one", "two"), strict=True))
    assert records["unit"]["collapse of two"] == "iteration at which it began"
    assert records["unit"]["frechet of one"] == gans.UNITS["frechet"]


def test_endings_are_means_of_the_last_iterations():
    records = gans.ending_records(outcome("one"), "dcgan")
    assert records["numbers"]["dcgan d_real"] == 0.75
    assert records["numbers"]["dcgan generator_loss"] == 0.5
    assert records["unit"].keys() == records["numbers"].keys()
    assert records["unit"]["dcgan discriminator_loss"] == "nats"


def test_budgets_count_parameters_and_images():
    (row,) = gans.budget_table({"one": outcome("one")}).to_dict("records")
    generator, discriminator = gans.Variant("one").networks()
    assert row["parameters of G"] == sum(p.numel() for p in generator.parameters())
    assert row["parameters of D"] == sum(p.numel() for p in discriminator.parameters())
    assert (row["iterations"], row["images seen"]) == (200, 200 * 8 * 5)


def test_panels_hold_all_records_but_the_spread():
    panels = reports.training_panels({name: [number] for number, name in enumerate(gans.RECORDED)})
    values = [line for lines in panels.values() for (line,) in lines.values()]
    assert values == pytest.approx(range(6))
