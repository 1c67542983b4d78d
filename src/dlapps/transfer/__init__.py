"""Practical 1, transfer learning: parameters, predictions, features and SVMs, fine-tuning."""

from dlapps.transfer.first_layer import GreyNetwork, filter_shares, grey_filters
from dlapps.transfer.parameters import count_parameters, parameter_table
from dlapps.transfer.predictions import top_k, training_mode_passes
from dlapps.transfer.studies import (
    classifier_study,
    folds,
    pca_curve,
    random_splits,
    split_accuracies,
)
from dlapps.transfer.svm import NORMALISATIONS, Evaluation, concatenate, evaluate, fit_linear_svm

__all__ = [
    "NORMALISATIONS",
    "Evaluation",
    "GreyNetwork",
    "classifier_study",
    "concatenate",
    "count_parameters",
    "evaluate",
    "filter_shares",
    "fit_linear_svm",
    "folds",
    "grey_filters",
    "parameter_table",
    "pca_curve",
    "random_splits",
    "split_accuracies",
    "top_k",
    "training_mode_passes",
]
