"""Practical 4, generative adversarial networks: losses, training, sampling, figures of merit."""

from dlapps.gans.losses import (
    LOSSES,
    RECORDED,
    discriminator_loss,
    gan_step,
    generator_loss,
    gradient_length,
    gradient_penalty,
)
from dlapps.gans.sampling import fixed_inputs, generate, interpolate, label_grid, spread
from dlapps.gans.trainer import History, Settings, failures, train
from dlapps.gans.writing_style import explained_variance, handwriting

__all__ = [
    "LOSSES",
    "RECORDED",
    "History",
    "Settings",
    "discriminator_loss",
    "explained_variance",
    "failures",
    "fixed_inputs",
    "gan_step",
    "generate",
    "generator_loss",
    "gradient_length",
    "gradient_penalty",
    "handwriting",
    "interpolate",
    "label_grid",
    "spread",
    "train",
]
