"""The domain-adversarial network of digits, and the gradient reversal it is trained through."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


# Convolutions as (filters, kernel size, padding, side of the max-pooling after it: 1 for none).
PAPER = (32, 5, 0, 2), (48, 5, 0, 2)
DEEPER = (32, 5, 0, 2), (64, 3, 1, 2), (128, 3, 1, 2)
MEDIUM = (32, 5, 0, 2), *((filters, 3, 1, side) for filters in (64, 128) for side in (1, 2))
LARGE = tuple((filters, 3, 1, side) for filters in (64, 128, 256) for side in (1, 2))


class DANN(nn.Module):
    """Feature extractor, label classifier and domain classifier (Ganin et al., JMLR 2016, fig. 4a).

    With `convolutions` PAPER the paper's network for MNIST, to which batch norm (unless
    `batch_norm` is False) and dropout are added; DEEPER has 1.7 times its multiplications, MEDIUM
    4.4 times, LARGE 29 times. It takes images (N, 1 or 3, 28, 28) in [0, 1]; grey is repeated over
    the three channels. Pixels are moved to [-1, 1] inside or, with `instance_norm`, each channel of
    each image to mean 0 and standard deviation 1 (Ulyanov et al.: "Instance Normalization", 2016;
    on these data Shu et al., ICLR 2018).
    dropout: the share that is dropped of the last feature maps and of the first hidden units, and
    of the maps after each other pooling if `dropout_inside`. slope: the ReLU's below 0, in the
    feature extractor.
    """

    def __init__(
        self,
        classes: int = 10,
        convolutions: Sequence[tuple[int, int, int, int]] = PAPER,
        dropout: float = 0.25,
        dropout_inside: bool = False,
        slope: float = 0.0,
        instance_norm: bool = False,
        batch_norm: bool = True,
    ):
        super().__init__()
        self.instance_norm = instance_norm
        norm = nn.BatchNorm1d if batch_norm else nn.Identity
        layers, channels, side = [], 3, 28
        for number, (filters, kernel, padding, pooled) in enumerate(convolutions, start=1):
            # Pooling comes first: batch norm and ReLU then have a quarter of the values to work on.
            layers += [
                nn.Conv2d(channels, filters, kernel, padding=padding),
                nn.MaxPool2d(pooled) if pooled > 1 else nn.Identity(),
                nn.BatchNorm2d(filters) if batch_norm else nn.Identity(),
                nn.LeakyReLU(slope) if slope else nn.ReLU(),
            ]
            if number == len(convolutions) or (dropout_inside and pooled > 1):
                layers.append(nn.Dropout2d(dropout))
            channels, side = filters, (side + 2 * padding - kernel + 1) // pooled
        self.width = channels * side * side
        self.feature_extractor = nn.Sequential(*layers, nn.Flatten())
        self.label_classifier = nn.Sequential(
            nn.Linear(self.width, 100),
            norm(100),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(100, 100),
            norm(100),
            nn.ReLU(),
            nn.Linear(100, classes),
        )
        self.domain_classifier = nn.Sequential(
            nn.Linear(self.width, 100), norm(100), nn.ReLU(), nn.Linear(100, 1)
        )

    def features(self, images: Tensor) -> Tensor:
        """Return the features (N, width) of images (N, 1 or 3, 28, 28) in [0, 1]."""
        check_image_form(images, channels=images.shape[1] if images.shape[1:2] == (1,) else 3)
        if images.shape[2:] != (28, 28):
            raise ValueError(f"images has shape {tuple(images.shape)}, expected (N, C, 28, 28)")
        x = 2 * images.expand(-1, 3, -1, -1) - 1
        return self.feature_extractor(F.instance_norm(x) if self.instance_norm else x)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores (N, classes) of images (N, 1 or 3, 28, 28) in [0, 1]."""
        return self.label_classifier(self.features(images))

    def domain_logits(self, features: Tensor, λ: float | Tensor) -> Tensor:
        """Return the scores (N,) of "target" for features (N, width), behind gradient reversal."""
        return self.domain_classifier(GradientReversal.apply(features, λ)).squeeze(1)
