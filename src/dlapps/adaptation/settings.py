"""How a network is adapted."""

import math
from dataclasses import dataclass

import torch

from dlapps.checks import check_counts, check_positive

OPTIMIZERS = {"adam": (torch.optim.Adam, {}), "sgd": (torch.optim.SGD, {"momentum": 0.9})}
AUGMENTATIONS = None, "shape", "shape and colour"


@dataclass(frozen=True)
class Settings:
    """How a network is trained: the learning rate falls to 0 along half a cosine.

    reversal: the factor of gradient reversal: "scheduled" (from 0 to 1), a number, or None for no
    domain classifier. With 0 it learns without any influence on the features; with a negative
    factor the gradient keeps its sign, and the features help it.
    joint: whether batch norm normalises one batch of both domains, and by averages over both in
    tests; otherwise each domain by its own batch and, in tests, by its own averages.
    augment: None, "shape" or "shape and colour", see `augment`.
    consistency: the weight of the `consistency_loss`, 0 for none, from the share
    `consistency_from` of the training on; `confidence` is the probability from which on a label of
    the teacher is accepted, `decay` that of its running average.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    reversal: str | float | None = "scheduled"
    joint: bool = False
    augment: str | None = None
    consistency: float = 0.0
    consistency_from: float = 0.0
    confidence: float = 0.9
    decay: float = 0.99
    seed: int = 0

    @property
    def needs_target(self) -> bool:
        """Whether the training looks at images of the target."""
        return self.reversal is not None or self.consistency > 0

    def __post_init__(self):
        check_counts(epochs=self.epochs, batch_size=self.batch_size)
        check_positive(learning_rate=self.learning_rate)
        if self.batch_size < 2:
            raise ValueError("batch_size is 1, expected at least 2: batch norm compares images")
        for name, known in [("optimizer", tuple(OPTIMIZERS)), ("augment", AUGMENTATIONS)]:
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {known}")
        if isinstance(self.reversal, str) and self.reversal != "scheduled":
            raise ValueError(
                f"reversal is {self.reversal!r}, expected 'scheduled', a factor or None"
            )
        if isinstance(self.reversal, int | float) and not math.isfinite(self.reversal):
            raise ValueError(f"reversal is {self.reversal}, expected a finite factor")
        if not (self.consistency >= 0 and math.isfinite(self.consistency)):
            raise ValueError(f"consistency is {self.consistency}, expected a weight of at least 0")
        for name in ("consistency_from", "confidence", "decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number in [0, 1)")
