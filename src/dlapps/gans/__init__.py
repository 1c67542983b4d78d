"""Practical 4, generative adversarial networks: losses, training, sampling, figures of merit."""

from dlapps.gans.benchmark import Benchmark, compare, make_benchmark, measure
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
from dlapps.gans.patches import cut_patches
from dlapps.gans.reports import (
    as_records,
    breakdowns,
    budget_table,
    ending_records,
    failures_in_words,
    label_spreads,
    measure_table,
    over_seeds,
    p_value,
    say,
    seeds_in_words,
    settings_in_words,
    training_panels,
    verdicts,
)
from dlapps.gans.sampling import fixed_inputs, generate, interpolate, label_grid, spread
from dlapps.gans.trainer import History, Settings, failures, train
from dlapps.gans.variants import Outcome, Runs, Variant, run_all, train_variant
from dlapps.gans.writing_style import explained_variance, handwriting
