"""Practical 1, transfer learning: parameters, predictions, features and SVMs, fine-tuning."""

from dlapps.transfer.combinations import (
    compare_combinations,
    coordinates,
    describe,
    fit_chosen,
    gram,
    growing,
)
from dlapps.transfer.extraction import compare_extractions
from dlapps.transfer.first_layer import (
    PARTS,
    GreyNetwork,
    contrasting_images,
    filter_shares,
    grey_filters,
    largest_parts,
)
from dlapps.transfer.parameters import count_parameters, parameter_table
from dlapps.transfer.predictions import (
    class_similarity,
    example_cases,
    follow_first_choice,
    look_alikes,
    softmax,
    top_k,
    top_k_accuracy,
    training_mode_passes,
    true_class_scores,
)
from dlapps.transfer.studies import (
    classifier_study,
    fit_layers,
    folds,
    pca_curve,
    principal_components,
    random_splits,
    split_accuracies,
)
from dlapps.transfer.svm import (
    NORMALISATIONS,
    Evaluation,
    accuracy_change,
    compare_evaluations,
    concatenate,
    discordant,
    evaluate,
    evaluate_scores,
    fit_linear_svm,
)
