"""Small digits and networks that tests of domain adaptation share."""

import torch

from dlapps import adaptation, runtime
from dlapps.datasets import ImageSet
from dlapps.models import dann


def network(seed=0, **options):
    runtime.seed_everything(seed)
    return dann.DANN(**options).to(runtime.device())


def digits(count=32, channels=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(
        0, 256, (count, channels, 28, 28), dtype=torch.uint8, generator=generator
    )
    return ImageSet(images, torch.arange(count) % 10, tuple("0123456789"), "toy digits")


def train(net, checkpoint=None, epochs=3, **settings):
    return adaptation.train(
        net,
        digits(),
        digits(channels=3, seed=2).images,
        adaptation.Settings(epochs=epochs, batch_size=8, **settings),
        tests=(digits(20, seed=3), digits(20, channels=3, seed=4)),
        checkpoint=checkpoint,
    )


def same_weights(one, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


class Pixels(torch.nn.Module):
    """Sees two pixels of an image: one shows the class, the other the class and the domain."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.extractor = torch.nn.Linear(2, 2, bias=False)
        self.label_classifier = torch.nn.Linear(2, 2)
        self.domain_head = torch.nn.Linear(2, 1)

    def features(self, images):
        return self.extractor(4 * images[:, 0, 0, :2] - 2)

    def forward(self, images):
        return self.label_classifier(self.features(images))

    def domain_logits(self, features, factor):
        return self.domain_head(dann.GradientReversal.apply(features, factor)).squeeze(1)


def two_pixels(count, shifted, seed):
    """Return images whose pixel 0 is 0.5 -+ 0.12 by class, in noise of 0.06, in both domains.

    Pixel 1 is 0.5 -+ 0.3 by class in the source, and 0.95 in the target: a network that relies on
    it gives all of the target class 1. Pixel 0 alone is right with a probability of
    Phi(0.12 / 0.06) = 0.977.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    sign = 2.0 * labels - 1
    first = 0.5 + 0.12 * sign + 0.06 * torch.randn(count, generator=generator)
    second = torch.full((count,), 0.95) if shifted else 0.5 + 0.3 * sign
    images = torch.zeros(count, 1, 28, 28)
    images[:, 0, 0, :2] = torch.stack([first, second], 1).clamp(0, 1)
    return ImageSet((255 * images).round().byte(), labels, ("0", "1"), "two pixels")
