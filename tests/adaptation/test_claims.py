"""What notebook 3 says in words without an assertion holds for the recorded numbers.

Its exercises overturn these sentences on purpose, so that the notebook itself must not stop there.
"""

import json
from pathlib import Path

import pytest

FIGURES = Path(__file__).resolve().parents[2] / "figures"
NAME = "3_domain_adaptation.json"
RECIPE, NO_REVERSAL, JOINT = "the_recipe", "no_reversal_0", "one_batch_of_both_domains"
TRAININGS = (
    RECIPE, NO_REVERSAL, JOINT, "one_batch_no_reversal", "no_dropout", "sgd_rate_0_01",
    "one_batch_sgd_no_dropout",
)  # fmt: skip


def recorded(profile):
    """Return the numbers of a profile: {key: its entry}."""
    path = FIGURES / "full" / NAME if profile == "full" else FIGURES / "expected/quick" / NAME
    numbers = json.loads(path.read_text("utf-8"))
    return numbers if profile == "full" else numbers["numbers"]


def means(profile):
    return {key: entry.get("mean", entry["value"]) for key, entry in recorded(profile).items()}


def by(training, over="the_target"):
    return f"target_accuracy_{training}_by_{over}"


@pytest.fixture(params=["quick", "full"])
def m(request):
    return means(request.param)


@pytest.fixture
def full():
    return means("full")


def test_the_four_lines_keep_their_order(m):
    order = [m[f"target_accuracy_{k}"] for k in ("source_only", "dann_no_reversal", "dann")]
    order.append(m["target_accuracy_trained_on_target"])
    assert order == sorted(order)
    on_source = [m[f"source_accuracy_{k}"] for k in ("source_only", "dann_no_reversal", "dann")]
    assert min(on_source) > m["source_accuracy_trained_on_target"]


def test_the_target_statistics_are_worth_several_points_in_each_short_training(m):
    for training in TRAININGS:
        own, mixed, other = (
            m[by(training, over)] for over in ("the_target", "both_domains", "the_source")
        )
        assert own > mixed > other, training


def test_reversal_keeps_the_domain_classifier_near_chance(m):
    assert 0.5 < m["domain_accuracy_dann"] < 0.65
    assert m["domain_accuracy_dann_no_reversal"] > m["domain_accuracy_dann"] + 0.1
    assert m["domain_loss_dann_no_reversal"] < m["domain_loss_dann"] - 0.1


def test_the_domains_stay_separable_after_dann(m):
    assert m["domains_told_apart_dann"] > m["domain_accuracy_dann"] + 0.2


def test_pseudo_labels_need_a_start_or_a_threshold(m):
    far, near = "pseudo_label_source_only_0", "pseudo_label_dann_0_9"
    assert m[f"{far}_right"] < 0.5 < 0.95 < m[f"{far}_99_right"]
    assert m[f"{far}_target_accuracy"] < m["target_accuracy_source_only"]
    assert m[f"{far}_99_target_accuracy"] > m[f"{far}_9_target_accuracy"]
    assert m[f"{far}_99_target_accuracy"] > m["target_accuracy_source_only"]
    assert m[f"{near}_right"] > 0.95


def test_tricks_are_worth_what_the_notebook_says(m):
    of = {key.removeprefix("target_accuracy_of_"): value for key, value in m.items()}
    assert of["views_in_other_colours_alone"] > of["views_alone"] + 0.2
    assert of["dann_with_views"] < of["dann"] < of["teacher_from_dann"]
    assert of["teacher_from_source_only"] < of["teacher_from_dann"]
    assert abs(of["teacher_without_views_from_dann"] - of["teacher_from_dann"]) < 0.01
    bound = of["deeper_network_trained_on_the_target_with_views"]
    assert of["deeper_network_teacher_from_dann"] < bound


def test_the_factor_in_the_full_profile(full):
    factors = ["minus_1", "0", "0_1", "0_3", "1"]
    rising = [full[f"target_accuracy_factor_{factor}"] for factor in factors]
    assert rising == sorted(rising) and rising[0] < rising[1] - 0.1
    schedule, best = (recorded("full")[f"target_accuracy_factor_{k}"] for k in ("scheduled", "1"))
    assert abs(schedule["mean"] - best["mean"]) < max(schedule["std"], best["std"])


def test_the_details_in_the_full_profile(full):
    numbers = recorded("full")
    lost = {k: full[by(RECIPE)] - full[by(k)] for k in TRAININGS}
    lost[JOINT] = full[by(RECIPE)] - full[by(JOINT, "both_domains")]
    spread = max(numbers[by(NO_REVERSAL)]["std"], numbers[by(JOINT, "both_domains")]["std"])
    assert abs(lost[NO_REVERSAL] - lost[JOINT]) < spread
    assert min(lost[NO_REVERSAL], lost[JOINT]) > lost["sgd_rate_0_01"] > lost["no_dropout"]
    helped = full[by(JOINT, "both_domains")] - full[by("one_batch_no_reversal", "both_domains")]
    assert helped < 0.05
