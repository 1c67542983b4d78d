"""Checks of practical 4: each is given a student's function f of the same name."""

import copy
from types import SimpleNamespace

import numpy as np
import torch
from scipy.spatial import geometric_slerp
from scipy.special import expit, log_expit
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from dlapps.student.comparison import NotYet, compare, compare_all, compare_form, parts
from dlapps.student.inputs import linear, normal, numbers, tensor, uniform

FAR = tensor([-200.0, 200.0])
OVERFLOW = "the loss for logits of ±200, where log(sigmoid) overflows and softplus does not"
RATE = 0.5
LABELS = tensor([0, 1, 2, 2, 1, 0])


def discriminator_loss(f):
    real, fake = normal(6), normal(4, seed=1)
    r, g = numbers(real), numbers(fake)

    def loss(r, g, of=np.mean):
        return of(-log_expit(r)) + of(-log_expit(-g))

    def hinge(r, g, of=np.mean):
        return of(np.maximum(0, 1 - r)) + of(np.maximum(0, 1 + g))

    right, twice = loss(r, g), (expit(r), expit(g))
    mistakes = {
        "Real and generated logits are swapped.": loss(g, r),
        "Real and generated are swapped: D(x) shall be 1, D(G(z)) 0.": loss(-r, -g),
        "It is half: the two means are added.": right / 2,
        "It is a sum over the images: E is the mean.": loss(r, g, np.sum),
        "It is the mean over all images: add the two means.": loss(r, g, np.sum) / 10,
        "The sign is wrong: it is what D minimises.": -right,
        "The generated images are missing.": -log_expit(r).mean(),
        "The real images are missing.": -log_expit(-g).mean(),
        "log(1 - D(G(z))) has become log D(G(z)).": loss(r, -g),
        "The sigmoid is applied twice.": loss(*twice),
    }
    compare(f(real, fake), tensor(right).float(), "the loss", mistakes)
    compare(f(-FAR, -FAR), tensor(200.0), OVERFLOW)
    mistakes = {
        '`loss` is ignored: with "hinge" it is another formula.': right,
        "Real and generated are swapped.": hinge(g, r),
        "max(0, …) is missing.": (1 - r).mean() + (1 + g).mean(),
        "It is a sum over the images: E is the mean.": hinge(r, g, np.sum),
        "The hinge takes the logits, without a sigmoid.": hinge(*twice),
    }
    wanted = tensor(hinge(r, g)).float()
    compare(f(real, fake, "hinge"), wanted, 'the loss with "hinge"', mistakes)


def generator_loss(f):
    fake = normal(5)
    g = numbers(fake)
    forms = {
        "non-saturating": (-log_expit(g).mean(), "-log D(G(z))"),
        "saturating": (log_expit(-g).mean(), "log(1 - D(G(z)))"),
        "hinge": (-g.mean(), "-D(G(z)) of the logits"),
    }
    for loss, (right, formula) in forms.items():
        others = {
            f"It is that of {name!r}: with {loss!r} it is the mean of {formula}.": value
            for name, (value, _) in forms.items()
            if name != loss
        }
        mistakes = {
            "The sign is wrong: it shall fall as D is fooled.": -right,
            "It is a sum over the images: E is the mean.": 5 * right,
            "It is D's loss: G wants its images to be taken for real.": -log_expit(-g).mean(),
            "The sigmoid is applied twice.": -log_expit(expit(g)).mean(),
        }
        found = f(fake) if loss == "non-saturating" else f(fake, loss)
        compare(found, tensor(right).float(), f"the loss with {loss!r}", mistakes | others)
    compare(f(FAR), tensor(100.0), OVERFLOW)


def with_labels(x, y):
    return x if y is None else x + 0.5 * y[:, None]


class G(nn.Module):
    """A generator of images of four pixels, which complains of more gradients than updates."""

    latent, classes = 3, None

    def __init__(self, updates=None):
        super().__init__()
        self.layer, self.updates, self.gradients = linear(3, 4, seed=1), updates, 0

    def forward(self, z, y=None):
        images = self.layer(with_labels(z, y)).sigmoid().view(-1, 1, 2, 2)
        if images.requires_grad:
            images.register_hook(self.count)
        return images

    def count(self, gradient):
        self.gradients += 1
        if self.updates and self.gradients > self.updates:
            raise NotYet(
                "the gradient of D's loss flows into G. Detach the generated images in D's update: "
                "D(fake.detach(), y)."
            )


class D(nn.Module):
    """A discriminator of images of four pixels."""

    def __init__(self):
        super().__init__()
        self.first, self.last = linear(4, 5, seed=3), linear(5, 1, seed=5)

    def forward(self, x, y=None):
        return self.last(self.first(with_labels(x.flatten(1), y)).tanh()).squeeze(1)


class Counting(torch.optim.SGD):
    """Counts its steps."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        return super().step(closure)


def slope(network, loss):
    """Return the gradient of a loss in all weights of a network, as one vector."""
    gradients = torch.autograd.grad(loss, [*network.parameters()], retain_graph=True)
    return parameters_to_vector(gradients)


def descend(network, loss):
    """Return a copy of a network one step down a loss."""
    other = copy.deepcopy(network)
    moved = parameters_to_vector(network.parameters()) - RATE * slope(network, loss)
    vector_to_parameters(moved.detach(), other.parameters())
    return other


def entropy(logits, target):
    """Return the mean cross-entropy of logits to a target for all of them."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def loss_of_d(network, x, y, fake, r1=0.0, real=1.0):
    """Return D's loss, with the penalty on its gradient at x."""
    x = x.clone().requires_grad_()
    logits = network(x, y)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    loss = entropy(logits, real) + entropy(network(fake.detach(), y), 1 - real)
    return loss + r1 * gradient.square().sum((1, 2, 3)).mean() / 2


def weight(network):
    return next(network.parameters())


def gan_step(f):
    for updates_d, updates_g, r1 in ((1, 1, 0.0), (2, 1, 0.0), (1, 2, 0.0), (1, 1, 4.0)):
        case = f" ({updates_d} of D, {updates_g} of G, settings.r1 = {r1:g})"
        batches = [(uniform(6, 1, 2, 2, seed=k), LABELS) for k in range(updates_d)]
        noises = [normal(6, 3, seed=k) for k in range(updates_d + updates_g - 1)]
        networks = G(updates_g), D()
        optimizers = [Counting(network.parameters(), RATE) for network in networks]
        for network in networks:
            for parameter in network.parameters():
                parameter.grad = torch.ones_like(parameter)  # as if a step had gone before
        settings = SimpleNamespace(loss="non-saturating", r1=r1)
        found = f(networks, optimizers, batches, noises, settings)
        taken = optimizers[1].count, optimizers[0].count
        if taken != (updates_d, updates_g):
            raise NotYet(
                f"D took {taken[0]} steps and G {taken[1]}, expected {updates_d} and {updates_g}: "
                "an optimizer.step() of D for each batch, then those of G."
            )
        compare_step(found, networks, batches, noises, r1, case)

    networks, settings = (G(), D()), SimpleNamespace(loss="hinge", r1=0.0)
    optimizers = [Counting(network.parameters(), RATE) for network in networks]
    found = f(networks, optimizers, batches, noises, settings)
    (x, y), fake = batches[0], G()(noises[0], LABELS)
    right = F.relu(1 - D()(x, y)).mean() + F.relu(1 + D()(fake, y)).mean()
    mistakes = {"settings.loss is ignored.": loss_of_d(D(), x, y, fake)}
    compare(found["discriminator_loss"], right, "D's loss with settings.loss = 'hinge'", mistakes)


def compare_step(found, networks, batches, noises, r1, case):
    """Compare both networks after a step, and what it returned, with algorithm 1 written out."""
    g = before_g = G()
    d = D()
    for (x, y), z in zip(batches, noises, strict=False):
        old_d, fake = d, g(z, y)
        L_D = loss_of_d(d, x, y, fake, r1)
        d = descend(old_d, L_D)
    losses = {
        "It has not moved.": 0 * L_D,
        "It climbs its loss: the sign is wrong.": -L_D,
        "Real and generated are swapped.": loss_of_d(old_d, x, y, fake, r1, real=0.0),
        "settings.r1 times gradient_penalty is missing.": loss_of_d(old_d, x, y, fake),
        "D takes the labels, too: D(x, y).": loss_of_d(old_d, x, None, fake, r1),
        "G takes the labels, too: G(z, y).": loss_of_d(old_d, x, y, before_g(z), r1),
    }
    mistakes = {sentence: weight(descend(old_d, loss)) for sentence, loss in losses.items()}
    mistakes["Old gradients are in it: zero_grad() is missing."] = weight(d) - RATE
    compare(weight(networks[1]), weight(d), f"D's first weight after a step{case}", mistakes)

    for z in noises[len(batches) - 1 :]:
        old_g, fake = g, g(z, y)
        L_G = entropy(d(fake, y), 1.0)
        g = descend(old_g, L_G)
    losses = {
        "It has not moved.": 0 * L_G,
        "It climbs its loss: the sign is wrong.": -L_G,
        "D judges it before its update: update D first.": entropy(old_d(fake, y), 1.0),
        "D takes the labels, too: D(x, y).": entropy(d(fake), 1.0),
    }
    mistakes = {sentence: weight(descend(old_g, loss)) for sentence, loss in losses.items()}
    mistakes["Old gradients are in it: zero_grad() is missing."] = weight(g) - RATE
    compare(weight(networks[0]), weight(g), f"G's weight after a step{case}", mistakes)

    slope_d = slope(old_d, L_D)
    wanted = {
        "discriminator_loss": L_D,
        "generator_loss": L_G,
        "d_real": old_d(x, y).sigmoid().mean(),
        "d_fake": old_d(before_g(noises[len(batches) - 1], y), y).sigmoid().mean(),
        "discriminator_gradient": slope_d.norm(),
        "generator_gradient": slope(old_g, L_G).norm(),
        "spread": fake.std(0, correction=0).mean(),
    }
    left = {"G's update leaves gradients in D: of=G prevents it.": (slope_d + slope(d, L_G)).norm()}
    compare_all(found, wanted, case, discriminator_gradient=left)


def interpolate(f):
    a, b = (x / np.linalg.norm(x) for x in np.random.default_rng(0).normal(size=(2, 6)))
    start, end = (torch.tensor(x, dtype=torch.float32) for x in (a, b))  # noise is on the CPU

    def line(shares):
        return a + shares[:, None] * (b - a)

    def asked(rows):
        return torch.tensor(rows, dtype=torch.float32)

    right = line(np.linspace(0, 1, 5))
    mistakes = {
        "It runs from `end` to `start`.": right[::-1],
        "Both end points are missing.": line(np.linspace(0, 1, 7)[1:-1]),
        "It stops before `end`: the last row is `end` itself.": line(np.arange(5) / 5),
        "It begins after `start`: the first row is `start` itself.": line(np.arange(1, 6) / 5),
    }
    compare(f(start, end, 5), asked(right), "the way", mistakes)
    arc = geometric_slerp(a, b, np.linspace(0, 1, 5))
    projected = right / np.linalg.norm(right, axis=1, keepdims=True)
    mistakes = {
        "`spherical` is ignored: it is the straight line.": right,
        "It is the straight line, projected: its distances are not equal.": projected,
        "It runs from `end` to `start`.": arc[::-1],
    }
    found = f(start, end, 5, spherical=True)
    compare(found, asked(arc), "the way with spherical=True", mistakes)
    mistakes = {"The length of `start` and `end` is lost.": arc}
    found = f(3 * start, 3 * end, 5, spherical=True)
    compare(found, asked(3 * arc), "the way between vectors of length 3", mistakes)


def label_grid(f):
    generator = SimpleNamespace(latent=3, classes=4)
    z, labels = parts(f(generator, columns=5, seed=1), 2, "the noise and the labels")
    mistakes = {
        "They run through the classes in each row: a row has one label.": torch.arange(4).repeat(5),
        "They are the columns' numbers.": torch.arange(5).repeat(4),
    }
    compare(labels, torch.arange(4).repeat_interleave(5), "the labels", mistakes)
    compare_form(z, torch.zeros(20, 3), "the noise")
    cells = z.view(4, 5, 3)  # rows, columns
    if (cells == cells[:, :1]).all():
        raise NotYet("the noise is the same in all columns: each column has a vector of its own.")
    if not (cells == cells[:1]).all():
        raise NotYet("the noise differs between the rows: each column has one vector for all rows.")
    if not torch.equal(f(generator, columns=5, seed=1)[0], z):
        raise NotYet("the noise differs from call to call: draw it from a generator with the seed.")
    if torch.equal(f(generator, columns=5, seed=2)[0], z):
        raise NotYet("the noise is the same for every seed.")


CHECKS = {
    "dlapps.gans.losses.discriminator_loss": discriminator_loss,
    "dlapps.gans.losses.generator_loss": generator_loss,
    "dlapps.gans.losses.gan_step": gan_step,
    "dlapps.gans.sampling.interpolate": interpolate,
    "dlapps.gans.sampling.label_grid": label_grid,
}
