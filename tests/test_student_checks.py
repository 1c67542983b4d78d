"""The checks of a student's functions: they let the solutions pass and name typical mistakes."""

import math
from importlib import import_module

import nbformat
import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import LinearSVC
from torch.nn import functional as F

from dlapps import runtime, steps
from dlapps.gans import RECORDED, gradient_length, gradient_penalty
from dlapps.student import check, checks
from dlapps.student.comparison import NotYet
from dlapps.visualization.attacks import AttackResult
from tools import student

PLACES = {place.rpartition(".")[2]: place for place in checks()}
ROOT = runtime.project_root()


def solution(name):
    module, _, name = PLACES[name].rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("name", PLACES)
def test_solution_passes_and_stays(name, capsys):
    own, state = solution(name), torch.get_rng_state()
    numpy_state = np.random.get_state()[2]  # noqa: NPY002 - of the generator that libraries share
    check(own)
    assert f"✓ {name}" in capsys.readouterr().out
    assert solution(name) is own
    assert torch.equal(torch.get_rng_state(), state), "a check draws from a generator of its own"
    assert np.random.get_state()[2] == numpy_state  # noqa: NPY002


def test_every_blank_of_the_notebooks_has_a_check():
    notebooks = [nbformat.read(path, 4) for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert {place for notebook in notebooks for place in student.blanks(notebook)} == set(checks())


@pytest.mark.parametrize("name", PLACES)
def test_blank_and_missing_return_are_told(name):
    def blank(*arguments, **options):
        raise NotImplementedError("Write your code here.")

    def silent(*arguments, **options):
        pass

    def broken(*arguments, **options):
        return arguments[0] / "two"

    if isinstance(solution(name), type):
        blank, silent, broken = (
            type(name, (torch.autograd.Function,), {"forward": staticmethod(f)})
            for f in (blank, silent, broken)
        )
    for function, words in (
        (blank, "still a blank"),
        (silent, "returns None|: None"),
        (broken, r"raises TypeError in line \d+ of its cell, `return arguments\[0\]"),
    ):
        function.__name__ = name
        with pytest.raises(NotYet, match=words) as caught:
            check(function)
        assert " ".join(caught.value._render_traceback_()) == str(caught.value)


def test_unknown_function_is_told():
    with pytest.raises(NotYet, match="expected one of the functions to fill in"):
        check(math.sqrt)


# Practical 1


def svm(*steps, C=1.0):
    return make_pipeline(*steps, LinearSVC(C=C, dual=False, max_iter=10_000))


def top_k_of(chosen):
    """Return a top_k that takes the best k of what `chosen` makes of the scores."""

    def top_k(network, images, k=5):
        values, classes = chosen(network(images)).topk(k)
        names = [[network.categories[c] for c in row] for row in classes.tolist()]
        return names, values.cpu().numpy()

    return top_k


def numbers_of_classes(network, images, k=5):
    values, classes = network(images).softmax(1).topk(k)
    return classes.tolist(), values.cpu().numpy()


def as_tensors(network, images, k=5):
    names, values = top_k_of(lambda s: s.softmax(1))(network, images, k)
    return names, torch.from_numpy(values)


def filters(first, second):
    return lambda w, μ, σ: torch.stack([first(w, μ, σ), second(w, μ, σ)], 1)


TRANSFER = [
    ("count_parameters", lambda n, m, kernel=1: kernel**2 * n * m, "biases are missing"),
    ("count_parameters", lambda n, m, kernel=1: (kernel * n + 1) * m, "k × k pixels"),
    ("count_parameters", lambda n, m, kernel=1: kernel**2 * n * m + n, "for each output"),
    ("count_parameters", lambda n, m, kernel=1: (n + 1) * m, "kernel's size is missing"),
    ("softmax", lambda s: s.exp(), "not divided by the sum"),
    ("softmax", lambda s: s.softmax(0), "over the images"),
    ("softmax", lambda s: s.exp() / s.exp().sum(), "whole batch"),
    ("softmax", lambda s: s.softmax(-1).softmax(-1), "applied twice"),
    ("softmax", lambda s: s.exp() / s.exp().sum(-1, keepdim=True), "overflows: infinite"),
    ("softmax", lambda s: s.exp() / s.exp().sum(1, keepdim=True), "raises IndexError"),
    ("top_k", top_k_of(lambda s: s), "softmax is missing"),
    ("top_k", top_k_of(lambda s: s.softmax(1).softmax(1)), "applied twice"),
    ("top_k", top_k_of(lambda s: s.softmax(0)), "over the images"),
    ("top_k", top_k_of(lambda s: s.sigmoid()), "sigmoid"),
    ("top_k", numbers_of_classes, "network.categories"),
    ("top_k", as_tensors, "probabilities: a Tensor, expected a NumPy array"),
    ("top_k", lambda network, images, k=5: network(images).softmax(1).topk(k)[1], "a Tensor"),
    (
        "grey_filters",
        filters(lambda w, μ, σ: w.sum(1), lambda w, μ, σ: -(w * μ).sum(1)),
        "σ is missing: divide",
    ),
    (
        "grey_filters",
        filters(lambda w, μ, σ: (w / σ).sum(1), lambda w, μ, σ: (w * μ / σ).sum(1)),
        "minus sign",
    ),
    ("grey_filters", lambda w, μ, σ: (w / σ).sum(1, keepdim=True), "shape"),
    (
        "fit_linear_svm",
        lambda x, y, C=1.0, seed=0, normalisation="l2": svm(C=C).fit(x, y),
        "rows are not normalised",
    ),
    (
        "fit_linear_svm",
        lambda x, y, C=1.0, seed=0, normalisation="l2": svm(StandardScaler(), C=C).fit(x, y),
        "each by a norm of its own",
    ),
    (
        "fit_linear_svm",
        lambda x, y, C=1.0, seed=0, normalisation="l2": svm(C=C).fit(Normalizer().transform(x), y),
        "Only the rows to fit",
    ),
    (
        "fit_linear_svm",
        lambda x, y, C=1.0, seed=0, normalisation="l2": svm(Normalizer()).fit(x, y),
        "C is ignored",
    ),
    (
        "fit_linear_svm",
        lambda x, y, C=1.0, seed=0, normalisation="l2": svm(Normalizer(), C=C).fit(x, y),
        "as with 'l2', expected 'signed root'",
    ),
    (
        "fit_linear_svm",
        lambda x, y, C=1.0, seed=0, normalisation="l2": Normalizer().transform(x),
        "decision_function",
    ),
]


# Practical 2


def slopes(network, x, y, of=lambda scores: scores):
    """Return the gradient at images of what `of` makes of their scores, of the labels y."""
    x = x.detach().clone().requires_grad_()
    chosen = of(network(x)).gather(1, y[:, None])
    return torch.autograd.grad(chosen.sum(), x)[0]


def fgsm_of(change, clip=lambda x: x.clamp(0, 1)):
    """Return an FGSM that adds ε times what `change` makes of the gradient of the loss."""

    def fgsm(network, x, y, *, targeted=False, epsilon=8 / 255):
        g = -slopes(network, x, y, lambda scores: scores.log_softmax(1))
        x = clip(x + epsilon * change(g, targeted))
        predicted, one = network(x).argmax(1), torch.ones_like(y)
        return AttackResult(x, predicted == y if targeted else predicted != y, one, one)

    return fgsm


def length(d, *axes):
    return d.square().sum(axes, keepdim=True).sqrt().clamp_min(1e-30)


def down(g, targeted):
    return -g.sign() if targeted else g.sign()


VISUALIZATION = [
    ("gradient", lambda net, x, y: slopes(net, x, y).amax(1), "absolute value is missing"),
    ("gradient", lambda net, x, y: slopes(net, x, y).amax(1).abs(), "absolute value comes first"),
    ("gradient", lambda net, x, y: slopes(net, x, y).abs().amax(2), "shape"),
    ("gradient", lambda net, x, y: slopes(net, x, y).abs().mean(1), "mean over the channels"),
    ("gradient", lambda net, x, y: slopes(net, x, y).abs().amax(1) / len(x), "batch size"),
    (
        "gradient",
        lambda net, x, y: slopes(net, x, y, lambda s: s.softmax(1)).abs().amax(1),
        "leave out the softmax",
    ),
    (
        "gradient",
        lambda net, x, y: slopes(net, x, net(x).argmax(1)).abs().amax(1),
        "predicted class",
    ),
    ("is_adversarial", lambda p, y, targeted=False: p != y, "`targeted` is ignored"),
    ("is_adversarial", lambda p, y, targeted=True: p == y if targeted else p != y, "without"),
    ("is_adversarial", lambda p, y, targeted=False: bool((p != y).all()), "False, expected a tens"),
    ("is_adversarial", lambda p, y, targeted=False: (p != y).long(), "whole numbers, expected Tr"),
    ("fooling_step", lambda x, g, η: (x + η * g).clamp(0, 1), "not normalised"),
    ("fooling_step", lambda x, g, η: x + η * g / length(g, 1, 2, 3), "not clipped"),
    ("fooling_step", lambda x, g, η: (x + η * g / g.norm()).clamp(0, 1), "whole batch"),
    ("fooling_step", lambda x, g, η: (x + η * g / length(g, 1)).clamp(0, 1), "each pixel"),
    ("fooling_step", lambda x, g, η: (x - η * g / length(g, 1, 2, 3)).clamp(0, 1), "goes down"),
    ("fooling_step", lambda x, g, η: (x + η * g.sign()).clamp(0, 1), "sign of the direction"),
    (
        "fooling_step",
        lambda x, g, η: (x + η * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(0, 1),
        "gives NaN",
    ),
    ("fgsm", fgsm_of(lambda g, targeted: g.sign()), "`targeted` is ignored"),
    ("fgsm", fgsm_of(lambda g, targeted: -g.sign()), "wrong way"),
    ("fgsm", fgsm_of(down, clip=lambda x: x), "not clipped"),
    ("fgsm", fgsm_of(lambda g, targeted: -g if targeted else g), "sign of the gradient is missing"),
    ("fgsm", lambda net, x, y, *, targeted=False, epsilon=0.1: x, "AttackResult"),
    ("ascent_step", lambda z, g, η, λ: z + η * (g - 2 * λ * z), "not normalised"),
    (
        "ascent_step",
        lambda z, g, η, λ: z + η * (g - λ * z) / length(g - λ * z, 1, 2, 3),
        "The 2 of the penalty",
    ),
    (
        "ascent_step",
        lambda z, g, η, λ: z + η * (g + 2 * λ * z) / length(g + 2 * λ * z, 1, 2, 3),
        "wrong sign",
    ),
    ("ascent_step", lambda z, g, η, λ: z + η * g / length(g, 1, 2, 3), "penalty is missing"),
    (
        "ascent_step",
        lambda z, g, η, λ: z + η * (g - 2 * λ * z) / (g - 2 * λ * z).norm(),
        "whole batch",
    ),
]


# Practical 3


def reversal(backward, forward=lambda f, λ: f.view_as(f)):
    """Return a gradient reversal with other formulas."""

    class GradientReversal(torch.autograd.Function):
        @staticmethod
        def forward(ctx, f, λ):
            ctx.λ = λ
            return forward(f, λ)

        @staticmethod
        def backward(ctx, g):
            return backward(g, ctx.λ)

    return GradientReversal


def reversed_features(f, λ):
    return (1 + λ) * f.detach() - λ * f


def of_each(network, f_s, f_t, λ):
    return network.domain_logits(f_s, λ), network.domain_logits(f_t, λ)


def adversarial(combine, scores=of_each, losses=lambda s, t: (F.softplus(s), F.softplus(-t))):
    """Return an adversarial loss with another way to combine, or to get, the domain scores."""

    def adversarial_loss(network, f_s, f_t, λ, joint=False):
        s, t = scores(network, f_s, f_t, λ)
        if joint:
            s, t = network.domain_logits(torch.cat([f_s, f_t]), λ).split([len(f_s), len(f_t)])
        hits = (s < 0).float().mean() + (t > 0).float().mean()
        return combine(*losses(s, t), λ), hits / 2

    return adversarial_loss


def plain(e_s, e_t, λ):
    return e_s.mean() + e_t.mean()


def dann(update, λ_of=lambda λ: λ, combine=lambda L_y, L_d, λ: L_y + L_d):
    """Return a step of DANN with another update, factor or sum."""

    def dann_step(network, optimizer, x_s, y_s, x_t, λ, joint=False):
        f_s, f_t = network.features(x_s), network.features(x_t)
        L_y = F.cross_entropy(network.label_classifier(f_s), y_s)
        L_d, hits = adversarial(plain)(network, f_s, f_t, λ_of(λ), joint)
        update(optimizer, combine(L_y, L_d, λ))
        return {"label_loss": L_y, "domain_loss": L_d, "domain_accuracy": hits}

    return dann_step


def without_zero_grad(optimizer, loss):
    loss.backward()
    optimizer.step()


def without_step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()


def labels_by(p, sure):
    """Return pseudo-labels by other numbers than probabilities, or another rule."""

    def pseudo_labels(network, images, threshold):
        scores = network.eval()(images / 255).cpu()
        values, labels = p(scores).max(1)
        return torch.where(sure(values, threshold), labels, -1)

    return pseudo_labels


def softmax_of(scores):
    return scores.softmax(1)


def consistency(losses, mean=lambda e, sure: (e * sure).mean()):
    def consistency_loss(scores, teacher, confidence):
        p, labels = teacher.softmax(1).max(1)
        sure = p >= confidence
        return mean(losses(scores, labels, teacher), sure), sure.float().mean()

    return consistency_loss


def cross_entropy(scores, labels, teacher):
    return F.cross_entropy(scores, labels, reduction="none")


ADAPTATION = [
    ("GradientReversal", reversal(lambda g, λ: (λ * g, None)), "minus sign is missing"),
    ("GradientReversal", reversal(lambda g, λ: (-g, None)), "factor is missing"),
    ("GradientReversal", reversal(lambda g, λ: (-(λ**2) * g, None)), "squared"),
    ("GradientReversal", reversal(lambda g, λ: (g, None)), "passes unchanged"),
    ("GradientReversal", reversal(lambda g, λ: -λ * g), "incorrect number of gradients"),
    (
        "GradientReversal",
        reversal(lambda g, λ: (-λ * g, None), forward=lambda f, λ: λ * f),
        "factor is the gradient's alone",
    ),
    (
        "GradientReversal",
        reversal(lambda g, λ: (None, -λ * g)),
        "a gradient different than None at position 2",
    ),
    ("reversal_schedule", lambda p: 2 / (1 + math.exp(-10 * p)), "the -1 is missing"),
    ("reversal_schedule", lambda p: 2 / (1 + math.exp(10 * p)) - 1, "minus sign"),
    ("reversal_schedule", lambda p: 1 / (1 + math.exp(-10 * p)), "sigmoid"),
    ("reversal_schedule", lambda p: 2 / (1 + math.exp(-p)) - 1, "10 in exp"),
    ("reversal_schedule", lambda p: torch.tensor(2 / (1 + math.exp(-10 * p)) - 1), "a number"),
    ("adversarial_loss", adversarial(lambda s, t, λ: (s.mean() + t.mean()) / 2), "It is half"),
    ("adversarial_loss", adversarial(lambda s, t, λ: s.sum() + t.sum()), "sum over the rows"),
    ("adversarial_loss", adversarial(lambda s, t, λ: torch.cat([s, t]).mean()), "mean over all"),
    ("adversarial_loss", adversarial(lambda s, t, λ: λ * (s.mean() + t.mean())), "multiplied"),
    ("adversarial_loss", adversarial(lambda s, t, λ: -(s.mean() + t.mean())), "sign is wrong"),
    ("adversarial_loss", adversarial(lambda s, t, λ: s.mean()), "target is missing"),
    (
        "adversarial_loss",
        adversarial(plain, losses=lambda s, t: (-(1 - s.sigmoid()).log(), -t.sigmoid().log())),
        "±1,000: infinite",
    ),
    (
        "adversarial_loss",
        adversarial(plain, lambda n, s, t, λ: (n.domain_logits(s, 1), n.domain_logits(t, 1))),
        "factor has to be passed on",
    ),
    (
        "adversarial_loss",
        adversarial(plain, lambda n, s, t, λ: (n.domain_logits(s, -1), n.domain_logits(t, -1))),
        "gradient reversal",
    ),
    (
        "adversarial_loss",
        adversarial(
            plain, lambda n, s, t, λ: (n.domain_logits(s.detach(), λ), n.domain_logits(t, λ))
        ),
        "no gradient reaches the source",
    ),
    (
        "adversarial_loss",
        adversarial(plain, lambda n, s, t, λ: (n.domain_logits(t, λ), n.domain_logits(s, λ))),
        "joint=False: not right yet. The domains are swapped",
    ),
    (
        "adversarial_loss",
        lambda n, s, t, λ, joint=False: adversarial(plain)(n, s, t, λ),
        "joint=True: not right yet. `joint` is ignored",
    ),
    ("dann_step", dann(without_zero_grad), "zero_grad"),
    ("dann_step", dann(without_step), "has not moved"),
    ("dann_step", dann(steps.update, lambda λ: -λ), "minus sign of the reversal"),
    ("dann_step", dann(steps.update, lambda λ: 1), "λ is missing"),
    ("dann_step", dann(steps.update, combine=lambda y, d, λ: y + λ * d), "reversal alone"),
    (
        "dann_step",
        dann(steps.update, combine=lambda y, d, λ: y),
        "domain loss does not reach|moved",
    ),
    ("dann_step", dann(steps.update, combine=lambda y, d, λ: -y - d), "sign is wrong"),
    (
        "dann_step",
        lambda *a: tuple(dann(steps.update)(*a).values()),
        "a tuple of 3, expected a dict",
    ),
    ("pseudo_labels", labels_by(softmax_of, lambda p, t: p > t), ">=, not >"),
    ("pseudo_labels", labels_by(lambda s: s, lambda p, t: p >= t), "softmax is missing"),
    ("pseudo_labels", labels_by(lambda s: s.softmax(0), lambda p, t: p >= t), "over the images"),
    ("pseudo_labels", labels_by(softmax_of, lambda p, t: p < t), "swapped"),
    ("pseudo_labels", labels_by(softmax_of, lambda p, t: p >= 0), "threshold is ignored"),
    ("pseudo_labels", lambda n, x, t: n(x / 255).argmax(1), "training mode"),
    ("consistency_loss", consistency(cross_entropy, lambda e, s: e[s].mean()), "all N rows"),
    ("consistency_loss", consistency(cross_entropy, lambda e, s: (e * s).sum()), "It is a sum"),
    (
        "consistency_loss",
        consistency(cross_entropy, lambda e, s: e.mean()),
        "confidence is ignored",
    ),
    (
        "consistency_loss",
        consistency(lambda s, y, t: F.cross_entropy(s.softmax(1), y, reduction="none")),
        "softmax is applied twice",
    ),
    (
        "consistency_loss",
        consistency(lambda s, y, t: F.cross_entropy(s, t.softmax(1), reduction="none")),
        "argmax",
    ),
    ("consistency_loss", lambda s, t, c: F.cross_entropy(s, t.argmax(1)), "a Tensor, expected the"),
]


# Practical 4


def bce(logits, target, **options):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target), **options)


def d_loss(form):
    """Return a loss of D that is right with "hinge"."""

    def discriminator_loss(r, f, loss="non-saturating"):
        if loss == "hinge":
            return F.relu(1 - r).mean() + F.relu(1 + f).mean()
        return form(r, f)

    return discriminator_loss


def g_loss(form=lambda f: bce(f, 1.0), saturating=lambda f: -bce(f, 0.0)):
    """Return a loss of G that is right with "hinge"."""

    def generator_loss(f, loss="non-saturating"):
        if loss == "hinge":
            return -f.mean()
        return saturating(f) if loss == "saturating" else form(f)

    return generator_loss


def gan(
    detach=torch.Tensor.detach,
    update=steps.update,
    loss_d=lambda D_x, D_fake: bce(D_x, 1.0) + bce(D_fake, 0.0),
    loss_g=lambda D_fake: bce(D_fake, 1.0),
    penalty=gradient_penalty,
    of=lambda G: G,
    g_first=False,
    labels=lambda y: (y, y),
):
    """Return a step of a GAN with something else in a place."""

    def gan_step(networks, optimizers, batches, noises, settings):
        (G, D), (optimizer_G, optimizer_D) = networks, optimizers
        for (x, y), z in zip(batches, noises, strict=False):
            y_G, y = labels(y)
            fake = G(z, y_G)
            if g_first:
                update(optimizer_G, loss_g(D(fake, y)), of(G))
            D_x, D_fake = D(x, y), D(detach(fake), y)
            L_D = loss_d(D_x, D_fake) + settings.r1 * penalty(D, x, y)
            update(optimizer_D, L_D)
        for z in noises[len(batches) - 1 :]:
            fake = G(z, y_G)
            L_G = loss_g(D(fake, y))
            if not g_first:
                update(optimizer_G, L_G, of(G))
        lengths = [gradient_length(network) for network in (D, G)]
        spread = fake.detach().std(0, correction=0).mean()
        found = [L_D, L_G, D_x.sigmoid().mean(), D_fake.sigmoid().mean(), *lengths, spread]
        return dict(zip(RECORDED, found, strict=True))

    return gan_step


def way(shares, path=torch.lerp):
    """Return an interpolation at other shares of the way, straight whatever is asked."""

    def interpolate(start, end, steps=10, spherical=False):
        return path(start, end, shares(steps)[:, None])

    return interpolate


def grid(noise, labels):
    """Return a grid of noise and labels in another order."""

    def label_grid(generator, columns=10, seed=0):
        draw = torch.Generator().manual_seed(seed)
        z = noise(columns, generator.classes, generator.latent, draw)
        return z, labels(generator.classes, columns)

    return label_grid


def columns_of_noise(columns, classes, latent, draw):
    return torch.randn(columns, latent, generator=draw).repeat(classes, 1)


def rows_of_labels(classes, columns):
    return torch.arange(classes).repeat_interleave(columns)


GANS = [
    ("discriminator_loss", d_loss(lambda r, f: bce(r, 0.0) + bce(f, 1.0)), "swapped"),
    ("discriminator_loss", d_loss(lambda r, f: bce(f, 1.0) + bce(r, 0.0)), "swapped"),
    ("discriminator_loss", d_loss(lambda r, f: (bce(r, 1.0) + bce(f, 0.0)) / 2), "half"),
    ("discriminator_loss", d_loss(lambda r, f: -bce(r, 1.0) - bce(f, 0.0)), "sign is wrong"),
    ("discriminator_loss", d_loss(lambda r, f: bce(r, 1.0)), "generated images are missing"),
    (
        "discriminator_loss",
        d_loss(lambda r, f: bce(r, 1.0, reduction="sum") + bce(f, 0.0, reduction="sum")),
        "It is a sum",
    ),
    (
        "discriminator_loss",
        d_loss(lambda r, f: bce(r.sigmoid(), 1.0) + bce(f.sigmoid(), 0.0)),
        "sigmoid is applied twice",
    ),
    (
        "discriminator_loss",
        d_loss(lambda r, f: -r.sigmoid().log().mean() - (1 - f.sigmoid()).log().mean()),
        "overflows .* infinite",
    ),
    (
        "discriminator_loss",
        lambda r, f, loss="non-saturating": bce(r, 1.0) + bce(f, 0.0),
        "`loss` is ignored",
    ),
    ("generator_loss", g_loss(lambda f: -bce(f, 1.0)), "sign is wrong"),
    ("generator_loss", g_loss(lambda f: bce(f, 0.0)), "It is D's loss"),
    ("generator_loss", g_loss(lambda f: -bce(f, 0.0)), "that of 'saturating'"),
    ("generator_loss", g_loss(lambda f: bce(f, 1.0, reduction="sum")), "It is a sum"),
    ("generator_loss", g_loss(saturating=lambda f: bce(f, 1.0)), "that of 'non-saturating'"),
    ("gan_step", gan(detach=lambda fake: fake), "Detach the generated images"),
    ("gan_step", gan(update=lambda o, loss, of=None: without_zero_grad(o, loss)), "zero_grad"),
    ("gan_step", gan(update=lambda o, loss, of=None: without_step(o, loss)), "took 0 steps"),
    (
        "gan_step",
        gan(loss_d=lambda x, fake: bce(x, 0.0) + bce(fake, 1.0)),
        "Real and generated are swapped",
    ),
    ("gan_step", gan(loss_d=lambda x, fake: -bce(x, 1.0) - bce(fake, 0.0)), "climbs its loss"),
    ("gan_step", gan(loss_g=lambda fake: -bce(fake, 1.0)), "G's weight .* climbs its loss"),
    ("gan_step", gan(penalty=lambda D, x, y: 0), "penalty"),
    ("gan_step", gan(of=lambda G: None), "leaves gradients in D"),
    ("gan_step", gan(g_first=True), "update D first"),
    ("gan_step", gan(labels=lambda y: (y, None)), r"D takes the labels"),
    ("gan_step", gan(labels=lambda y: (None, y)), r"G takes the labels"),
    ("gan_step", gan(), "settings.loss is ignored"),
    ("interpolate", way(lambda n: torch.linspace(0, 1, n + 2)[1:-1]), "Both end points"),
    ("interpolate", way(lambda n: torch.arange(n) / n), "stops before `end`"),
    ("interpolate", way(lambda n: torch.linspace(1, 0, n)), "from `end` to `start`"),
    ("interpolate", way(lambda n: torch.linspace(0, 1, n + 1)), r"shape \(6, 6\), expected \(5"),
    ("interpolate", way(lambda n: torch.linspace(0, 1, n)), "`spherical` is ignored"),
    ("label_grid", grid(columns_of_noise, lambda n, c: torch.arange(n).repeat(c)), "a row has one"),
    (
        "label_grid",
        grid(
            lambda c, n, d, draw: torch.randn(c, d, generator=draw).repeat_interleave(n, 0),
            rows_of_labels,
        ),
        "differs between the rows",
    ),
    (
        "label_grid",
        grid(lambda c, n, d, draw: torch.randn(c * n, d, generator=draw), rows_of_labels),
        "differs between the rows",
    ),
    (
        "label_grid",
        grid(lambda c, n, d, draw: torch.randn(c, d).repeat(n, 1), rows_of_labels),
        "from a generator with the seed",
    ),
    (
        "label_grid",
        grid(columns_of_noise, lambda n, c: rows_of_labels(n, c).float()),
        "floats, expected whole numbers",
    ),
]

MISTAKES = TRANSFER + VISUALIZATION + ADAPTATION + GANS


@pytest.mark.parametrize(
    ("name", "mistaken", "words"), MISTAKES, ids=[f"{m[0]}-{m[2]}" for m in MISTAKES]
)
def test_mistake_is_named(name, mistaken, words):
    before = solution(name)
    mistaken.__name__ = name
    with pytest.raises(NotYet, match=words) as caught:
        check(mistaken)
    print(caught.value)
    assert solution(name) is before, "what is wrong is not used"


def test_each_function_has_mistakes():
    assert {name for name, *_ in MISTAKES} == set(PLACES)
    assert len(MISTAKES) > 100
