"""Practical 4, generative adversarial networks: losses, training, sampling, figures of merit."""

from dlapps.gans.benchmark import Benchmark, compare, make_benchmark
from dlapps.gans.losses import (
    LOSSES,
    RECORDED,
    discriminator_loss,
    gan_step,
    generator_loss,
    gradient_length,
    gradient_penalty,
)
from dlapps.gans.measures import UNITS
from dlapps.gans.reports import (
    as_records,
    budget_table,
    ending_records,
    failures_in_words,
    measure_table,
    training_panels,
)
from dlapps.gans.sampling import fixed_inputs, generate, interpolate, label_grid, spread
from dlapps.gans.trainer import History, Settings, failures, train
from dlapps.gans.variants import Outcome, Variant, run_all, train_variant
from dlapps.gans.writing_style import explained_variance, handwriting
