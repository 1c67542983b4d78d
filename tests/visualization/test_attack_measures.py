"""What attacks achieve: measured by hand, and as a table."""

import math

import pytest
import torch
from attack_networks import GREY, HalfSpaces, plane, random_images, small_network

from dlapps.visualization import attack_measures, attacks, white_box


def test_measure_by_hand():
    network = HalfSpaces(torch.ones(1, 3, 2, 2).double(), 6.5)  # class 1 above a sum of 6.5
    grey = torch.full((4, 3, 2, 2), 0.5).double()  # a sum of 6
    changed = grey.clone()
    changed[0, 0] += 0.5  # a sum of 8: reached, as saved too
    changed[1] += 0.51 / 12  # a sum of 6.51: reached
    changed[2, 0, 0, 0] += 0.3  # a sum of 6.3: not reached
    changed[3, :2] += 0.1  # a sum of 6.8: reached, as saved too
    values = attack_measures.measure(network, grey, changed, [1, 1, 1, 1], targeted=True)
    assert values["success"] == 0.75
    # 0.5425 is 138.3 levels of 255; twelve times 138 / 255 is 6.494.
    assert values["success_8bit"] == 0.5
    lengths = [1.0, (12 * 0.0425**2) ** 0.5, (8 * 0.1**2) ** 0.5]
    assert values["l2"] == pytest.approx(sorted(lengths)[1])
    assert values["linf"] == pytest.approx(0.1)
    untargeted = attack_measures.measure(network, grey, changed, [0, 0, 0, 0])
    assert untargeted == values  # of two classes "not 0" is 1


def test_measure_of_failures_has_no_length():
    network, images = small_network(), random_images(2)
    with torch.no_grad():
        predicted = network(images).argmax(1)
    values = attack_measures.measure(network, images, images, predicted)
    assert values == {"success": 0, "success_8bit": 0, "l2": None, "linf": None}
    with pytest.raises(ValueError, match="changed has shape"):
        attack_measures.measure(network, images, images[:1], predicted)
    with pytest.raises(ValueError, match="labels"):
        attack_measures.measure(network, images, images, [0, 9])


def fixed(success, gradients, queries, lengths):
    """Return an attack whose result is known: images moved by so much in one value."""

    def attack(network, images, labels, *, targeted=False):
        changed = images.clone()
        changed[:, 0, 0, 0] += torch.tensor(lengths).double()
        counts = torch.tensor(gradients), torch.tensor(queries)
        return attacks.AttackResult(changed, torch.tensor(success), *counts)

    return attack


def test_a_table_has_a_row_per_attack_and_goal():
    network, images = plane(0.01), GREY.expand(2, -1, -1, -1)
    goals = {"any other": torch.tensor([0, 0]), "random": torch.tensor([1, 1])}
    run = {
        "one": (white_box.ddn, "any other", "random"),
        "two": (fixed([False, False], [3, 5], [7, 7], [0.0, 0.0]), "random"),
    }
    table, results = attack_measures.compare(network, images, goals, run)
    assert list(table.index) == list(results)
    assert list(table.index) == [("one", "any other"), ("one", "random"), ("two", "random")]
    assert table["success"].tolist() == [1, 1, 0]
    assert table.loc[("one", "random"), "gradients"] == 100
    failed = table.loc[("two", "random")]
    assert failed["gradients"] == 3 and failed["queries"] == 7  # the lower of two is the median
    assert failed["median L2"] is None or math.isnan(failed["median L2"])
    assert (table["seconds per image"] >= 0).all()


def results(lengths, success, gradients):
    """Return an attack's result on three grey images, each moved by a length in one value."""
    attack = fixed(success, gradients, [0, 0, 0], lengths)
    return attack(None, GREY.expand(3, -1, -1, -1), None)


def test_length_by_cost_counts_what_failed_as_far_away():
    found = [
        results([0.1, 0.2, 0.3], [True, False, True], [2, 9, 4]),
        results([0.1, 0.2, 0.3], [False, False, True], [2, 2, 2]),
    ]
    costs, lengths = attack_measures.length_by_cost(GREY.expand(3, -1, -1, -1), found)
    assert costs == [4, 2]
    assert lengths[0] == pytest.approx(0.3) and math.isnan(lengths[1])


def test_paired_lengths_by_hand():
    counts, images = [1, 1, 1], GREY.expand(3, -1, -1, -1)
    found = {
        ("ours", "any"): results([0.1, 0.2, 0.3], [True, True, True], counts),
        ("theirs", "any"): results([0.2, 0.1, 0.3], [True, True, False], counts),
        ("theirs", "other"): results([0.2, 0.1, 0.3], [True, True, False], counts),
    }
    table = attack_measures.paired_lengths(images, found, "ours")
    assert list(table.index) == [("any", "theirs")]
    row = table.loc["any", "theirs"]
    assert row["shorter"] == 2 and row["longer"] == 1  # a failure is infinitely long
    assert row["p"] == pytest.approx(1.0)  # of three tosses two or more, either way: all of them
    assert row["ratio"][0] == pytest.approx(1.25)  # the median of 2 and 1/2
    assert row["ratio"][1] == pytest.approx(0.5) and row["ratio"][2] == pytest.approx(2.0)
    found["ties", "any"] = found["ours", "any"]
    same = attack_measures.paired_lengths(images, found, "ours")
    assert same.loc[("any", "ties"), "p"] == 1


def test_only_what_succeeds_at_once_counts_as_first_query():
    counts = torch.zeros(4).long(), torch.tensor([1, 1, 5, 1])
    found = attacks.AttackResult(GREY, torch.tensor([True, False, True, True]), *counts)
    assert attack_measures.first_query_share(found) == 0.5
