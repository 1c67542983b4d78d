"""Practical 3, domain adaptation: a digit network for images without labels."""

from dlapps.adaptation.batch_norm import adapt_batch_norm, frozen_averages
from dlapps.adaptation.dann import (
    adversarial_loss,
    dann_step,
    features_of_both,
    reversal_schedule,
)
from dlapps.adaptation.experiments import (
    Experiment,
    Runs,
    disagreements,
    last_epoch,
    last_round,
    learning_curves,
    mean_table,
    over_seeds,
    round_curves,
    round_table,
    table,
)
from dlapps.adaptation.selection import (
    choice_table,
    choices,
    information,
    label_free_scores,
    mean_entropy,
    reverse_validation,
)
from dlapps.adaptation.self_training import pseudo_labels, self_train
from dlapps.adaptation.separability import (
    chance,
    features,
    features_of_tests,
    plane,
    separability,
    told_apart,
)
from dlapps.adaptation.settings import Settings
from dlapps.adaptation.teacher import (
    augment,
    consistency_loss,
    pseudo_label_loss,
    self_training_step,
)
from dlapps.adaptation.trainer import accuracy, predict, train
from dlapps.texts import mean_and_deviation
