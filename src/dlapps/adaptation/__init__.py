"""Practical 3, domain adaptation: a digit network for images without labels."""

from dlapps.adaptation.batch_norm import adapt_batch_norm, frozen_averages
from dlapps.adaptation.dann import (
    adversarial_loss,
    dann_step,
    features_of_both,
    reversal_schedule,
)
from dlapps.adaptation.self_training import pseudo_labels, self_train
from dlapps.adaptation.settings import Settings
from dlapps.adaptation.teacher import (
    augment,
    consistency_loss,
    pseudo_label_loss,
    self_training_step,
)
from dlapps.adaptation.trainer import RECORDED, accuracy, predict, train

__all__ = [
    "RECORDED",
    "Settings",
    "accuracy",
    "adapt_batch_norm",
    "adversarial_loss",
    "augment",
    "consistency_loss",
    "dann_step",
    "features_of_both",
    "frozen_averages",
    "predict",
    "pseudo_label_loss",
    "pseudo_labels",
    "reversal_schedule",
    "self_train",
    "self_training_step",
    "train",
]
