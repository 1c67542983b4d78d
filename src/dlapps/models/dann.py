"""The domain-adversarial network of digits, and the gradient reversal it is trained through."""

import torch
from torch import nn

from dlapps.models.checks import check_images


class GradientReversal(torch.autograd.Function):
    """The identity, whose gradient is multiplied by -factor (Ganin et al., JMLR 2016, eq. 13-14).

    R(x) = x and dR/dx = -factor I: what follows minimises its loss, what lies before maximises it.
    """

    @staticmethod
    def forward(ctx, features, factor):
        ctx.factor = factor
        return features.view_as(features)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.factor * gradient, None


class DANN(nn.Module):
    """Feature extractor, label classifier and domain classifier (Ganin et al., JMLR 2016, fig. 1).

    Takes images (N, 1 or 3, 28, 28) in [0, 1]; grey is repeated over the three channels, pixels
    are moved to [-1, 1] inside.
    """

    def __init__(self, classes=10):
        super().__init__()
        self.feature_extractor = nn.Sequential(
            nn.Conv2d(3, 64, 5),
            nn.BatchNorm2d(64),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(64, 50, 5),
            nn.BatchNorm2d(50),
            nn.Dropout2d(),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.label_classifier = nn.Sequential(
            nn.Linear(800, 100),
            nn.BatchNorm1d(100),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(100, 100),
            nn.BatchNorm1d(100),
            nn.ReLU(),
            nn.Linear(100, classes),
        )
        self.domain_classifier = nn.Sequential(
            nn.Linear(800, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 1)
        )

    def features(self, images):
        """Return the features (N, 800) of images (N, 1 or 3, 28, 28) in [0, 1]."""
        check_images(images, channels=images.shape[1] if images.shape[1:2] == (1,) else 3)
        if images.shape[2:] != (28, 28):
            raise ValueError(f"images has shape {tuple(images.shape)}, expected (N, C, 28, 28)")
        return self.feature_extractor(2 * images.expand(-1, 3, -1, -1) - 1)

    def forward(self, images):
        """Return the class scores (N, classes) of images (N, 1 or 3, 28, 28) in [0, 1]."""
        return self.label_classifier(self.features(images))

    def domain_logits(self, features, factor):
        """Return the scores (N,) of "target" for features (N, 800), behind gradient reversal."""
        return self.domain_classifier(GradientReversal.apply(features, factor)).squeeze(1)
