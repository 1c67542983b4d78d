"""The domain-adversarial network of digits, and the gradient reversal it is trained through."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlapps.checks import check_image_form


class GradientReversal(torch.autograd.Function):
    """The identity, whose gradient is multiplied by -λ (Ganin et al., JMLR 2016, eq. 13-14).

        R_λ(f) = f,    dR_λ/df = -λ I:

    what follows minimises its loss, what lies before maximises it. λ is a number or a 0-dimensional
    tensor.
    """

    @staticmethod
    def forward(ctx, f: Tensor, λ: float | Tensor) -> Tensor:
        ctx.λ = λ
        return f.view_as(f)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.λ * gradient, None


# Convolutions as (filters, kernel size, padding), each with batch norm, ReLU and 2x2 max-pooling.
PAPER = (32, 5, 0), (48, 5, 0)
DEEPER = (32, 5, 0), (64, 3, 1), (128, 3, 1)


class DANN(nn.Module):
    """Feature extractor, label classifier and domain classifier (Ganin et al., JMLR 2016, fig. 4a).

    With `convolutions` PAPER the paper's network for MNIST, to which batch norm and dropout are
    added; DEEPER has 1.7 times its multiplications. It takes images (N, 1 or 3, 28, 28) in [0, 1];
    grey is repeated over the three channels, pixels are moved to [-1, 1] inside. `dropout` is the
    share that is dropped of the last feature maps and of the first hidden units.
    """

    def __init__(
        self,
        classes: int = 10,
        convolutions: Sequence[tuple[int, int, int]] = PAPER,
        dropout: float = 0.5,
    ):
        super().__init__()
        layers, channels, side = [], 3, 28
        for filters, kernel, padding in convolutions:
            # Pooling comes first: batch norm and ReLU then have a quarter of the values to work on.
            layers += [
                nn.Conv2d(channels, filters, kernel, padding=padding),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
            ]
            channels, side = filters, (side + 2 * padding - kernel + 1) // 2
        self.width = channels * side * side
        self.feature_extractor = nn.Sequential(*layers, nn.Dropout2d(dropout), nn.Flatten())
        self.label_classifier = nn.Sequential(
            nn.Linear(self.width, 100),
            nn.BatchNorm1d(100),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(100, 100),
            nn.BatchNorm1d(100),
            nn.ReLU(),
            nn.Linear(100, classes),
        )
        self.domain_classifier = nn.Sequential(
            nn.Linear(self.width, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 1)
        )

    def features(self, images: Tensor) -> Tensor:
        """Return the features (N, width) of images (N, 1 or 3, 28, 28) in [0, 1]."""
        check_image_form(images, channels=images.shape[1] if images.shape[1:2] == (1,) else 3)
        if images.shape[2:] != (28, 28):
            raise ValueError(f"images has shape {tuple(images.shape)}, expected (N, C, 28, 28)")
        return self.feature_extractor(2 * images.expand(-1, 3, -1, -1) - 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores (N, classes) of images (N, 1 or 3, 28, 28) in [0, 1]."""
        return self.label_classifier(self.features(images))

    def domain_logits(self, features: Tensor, λ: float | Tensor) -> Tensor:
        """Return the scores (N,) of "target" for features (N, width), behind gradient reversal."""
        return self.domain_classifier(GradientReversal.apply(features, λ)).squeeze(1)
