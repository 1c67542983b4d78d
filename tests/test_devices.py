"""What must hold on a GPU, on a machine without one: devices do not mix, and nothing waits.

Networks run on PyTorch's fake tensors, which have a device and a shape but no numbers. What
computes runs on the pretend device of `pretend_cuda`, where it must find what it finds on the CPU.
"""

import copy
import io
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import test_training
import torch
from pretend_cuda import pretend_cuda
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeCopyMode,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
)
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from dlapps import adaptation, gans, training, transfer
from dlapps.datasets import ImageSet
from dlapps.gans import judging
from dlapps.models import features, pretrained
from dlapps.models.dann import DANN
from dlapps.models.gan import (
    ConditionalDCGANDiscriminator,
    ConditionalDCGANGenerator,
    ConditionalGANDiscriminator,
    ConditionalGANGenerator,
    DCGANDiscriminator,
    DCGANGenerator,
)
from dlapps.models.judge import Judge
from dlapps.training import Synchronisations
from dlapps.transfer import fine_tuning
from dlapps.visualization import (
    attack_measures,
    black_box,
    class_images,
    magnitude_constrained,
    minimal_norm,
    road,
    saliency,
    white_box,
)


@pytest.fixture
def cuda():
    """The pretend device, during the whole test."""
    with pretend_cuda() as device:
        yield device


def on_both(function, network, *tensors):
    """Return what `function(network, *tensors)` is on the CPU and on the pretend device.

    The second comes with the device, whose counts are those of the call alone.
    """
    expected = function(copy.deepcopy(network), *tensors)
    with pretend_cuda() as device:
        moved = copy.deepcopy(network).cuda(), *(tensor.cuda() for tensor in tensors)
        device.clear()
        found = function(*moved)
    return expected, found, device


@contextmanager
def held_by_a_graph():
    """Assert that nothing in the block makes the host wait for the device."""
    with Synchronisations() as heard:
        yield
    assert not heard.found, "waits"


def check_same(found, expected, device):
    """Assert that tensors are on a device, "cpu" or "cuda", and equal those computed on the CPU."""
    assert found.device.type == device
    torch.testing.assert_close(found.cpu(), expected)


# The pretend device


def test_tensors_on_the_device_say_so_and_keep_their_values(cuda):
    made = torch.arange(3, device="cuda"), torch.tensor([0, 1, 2], device="cuda:0")
    moved = torch.arange(3).to("cuda"), torch.arange(3).cuda(), torch.arange(3).to(made[0])
    like = torch.zeros_like(made[0]), made[0].new_zeros(3), made[0] * 0
    for tensor in (*made, *moved, *like):
        assert (tensor.device, tensor.is_cuda) == (torch.device("cuda", 0), True)
    for tensor in (*made, *moved):
        assert tensor.cpu().tolist() == [0, 1, 2]
        assert not tensor.cpu().is_cuda


def test_devices_do_not_mix(cuda):
    here, there = torch.ones(3, 3), torch.ones(3, 3, device="cuda")
    mixtures = [
        lambda: here + there,
        lambda: there @ here,
        lambda: torch.cat([there, here]),
        lambda: F.conv2d(there[None, None], here[None, None]),
        lambda: nn.Linear(3, 2)(there),
        lambda: there.add_(here),
        lambda: torch.zeros(()).add_(there.sum()),
        lambda: here[there[0].long()],
        lambda: there.index_select(0, torch.tensor([0])),
    ]
    for mix in mixtures:
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            mix()


def test_numbers_and_indices_of_the_cpu_are_welcome_as_on_a_gpu(cuda):
    there = torch.arange(3.0, device="cuda")
    check_same(there * torch.tensor(2.0), torch.tensor([0.0, 2.0, 4.0]), "cuda")
    check_same(there[torch.tensor([2, 0])], torch.tensor([2.0, 0.0]), "cuda")


def test_numpy_gets_nothing_from_the_device(cuda):
    tensor = torch.ones(3, device="cuda")
    for read in (tensor.numpy, lambda: np.asarray(tensor), lambda: np.array([tensor])):
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            read()
    assert np.asarray(tensor.cpu()).sum() == 3


def test_the_devices_generator_is_none_of_the_cpus(cuda):
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator"):
        torch.randperm(4, generator=torch.Generator(), device="cuda")


WAITS = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool((x > 0).all()),
    "format": lambda x: f"{x[0]:.1f}",
    "tolist": lambda x: x.tolist(),
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: torch.unique(x),
    "unique along a dimension": lambda x: torch.unique(x[None], dim=0),
    "mask": lambda x: x[x > 0],
    "assignment through a mask": lambda x: x.index_put_([x > 0], torch.ones_like(x[:2])),
    "masked_select": lambda x: x.masked_select(x > 0),
    "equal": lambda x: torch.equal(x, x),
    "bincount": lambda x: torch.bincount(x.long()),
}
PASSES = {
    "sum": lambda x: x.sum(),
    "indices": lambda x: x[x.long()],
    "slice": lambda x: x[1:],
    "fill through a mask": lambda x: x.masked_fill(x > 0, 1.0).index_put_([x > 0], x.new_ones(())),
    "where": lambda x: torch.where(x > 0, x, 0),
    "other type": lambda x: x.double(),
    "same device": lambda x: x.to(x.device),
    "copy": lambda x: torch.empty_like(x).copy_(x),
    "random numbers": lambda x: F.dropout(x) + torch.rand_like(x),
}


@pytest.mark.parametrize("name", WAITS)
def test_synchronisations_are_counted(cuda, name):
    x = torch.tensor([0.0, 1.0, 2.0], device="cuda")
    WAITS[name](x)
    assert cuda.synchronisations.total() == 1
    cuda.clear()
    assert not cuda.synchronisations


@pytest.mark.parametrize("name", PASSES)
def test_what_does_not_wait_is_not_counted(cuda, name):
    PASSES[name](torch.tensor([0.0, 1.0, 2.0], device="cuda"))
    assert not cuda.synchronisations


def test_copies_between_devices_are_counted(cuda):
    x = torch.ones(3).cuda()
    torch.tensor(1.0, device="cuda")
    x.copy_(torch.zeros(3).pin_memory(), non_blocking=True)
    assert (cuda.to_device, cuda.to_host) == (3, 0)
    x.cpu()
    assert torch.ones(3).copy_(x).tolist() == [0, 0, 0]
    assert (cuda.to_device, cuda.to_host) == (3, 2)
    x.to("cuda").add_(x.double().float())  # what is there already is not copied
    assert (cuda.to_device, cuda.to_host) == (3, 2)


def test_what_is_on_the_device_already_is_not_copied_but_shared(cuda):
    x = torch.zeros(3, device="cuda")
    x.to("cuda").add_(1)
    assert x.tolist() == [1, 1, 1]


def test_random_numbers_follow_the_devices_own_state(cuda):
    torch.manual_seed(3)
    state, on_cpu = torch.cuda.get_rng_state(), torch.get_rng_state()
    drawn = torch.rand(4, device="cuda"), F.dropout(torch.ones(9, device="cuda"))
    assert torch.equal(torch.get_rng_state(), on_cpu)
    torch.cuda.set_rng_state(state)
    again = torch.rand(4, device="cuda"), F.dropout(torch.ones(9, device="cuda"))
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert not torch.equal(drawn[0], torch.rand(4, device="cuda"))
    torch.manual_seed(3)
    assert torch.equal(drawn[0], torch.rand(4, device="cuda"))


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),  # a bias would have a gradient of nothing but rounding
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.2),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(4, 4, 3),
        nn.Flatten(),
        nn.Linear(4 * 25, 5),
    )


def small_batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 3, 8, 8, generator=generator), torch.arange(6) % 5


def take_steps(network, optimizer, x, y, count=3):
    for _ in range(count):
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.detach()


def test_training_steps_equal_those_on_the_cpu(cuda):
    network, (x, y) = small_network(), small_batch()
    moved = copy.deepcopy(network).cuda().to("cuda", memory_format=torch.channels_last)
    plain = torch.optim.Adam(network.parameters(), 1e-2)
    rate = torch.tensor(1e-2, device="cuda")
    fused = torch.optim.Adam(moved.parameters(), lr=rate, fused=True, capturable=True)
    expected = take_steps(network, plain, x, y)
    x, y = x.cuda(), y.cuda()
    with held_by_a_graph():
        found = take_steps(moved, fused, x, y)
    check_same(found, expected, "cuda")
    for mine, theirs in zip(moved.parameters(), network.parameters(), strict=True):
        check_same(mine.grad, theirs.grad, "cuda")
    for mine, theirs in zip(
        moved.state_dict().values(), network.state_dict().values(), strict=True
    ):
        check_same(mine, theirs, "cuda")


def test_gradients_of_gradients_and_own_functions_equal_those_on_the_cpu():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, gradient):
            return 3 * ctx.saved_tensors[0] ** 2 * gradient

    def penalty(network, x):
        x = x.clone().requires_grad_()
        (slopes,) = torch.autograd.grad(Cube.apply(network(x)).sum(), x, create_graph=True)
        slopes.square().sum().backward()
        return network[0].weight.grad

    expected, found, _ = on_both(penalty, small_network(), small_batch()[0])
    check_same(found, expected, "cuda")


def test_operations_of_the_trainings_equal_those_on_the_cpu():
    def work(network, x):
        angle = torch.full((len(x),), 0.3, device=x.device)
        rows = [angle.cos(), -angle.sin(), 0 * angle], [angle.sin(), angle.cos(), 0 * angle]
        matrices = torch.stack([torch.stack(row, 1) for row in rows], 1)
        grid = F.affine_grid(matrices, x.shape, align_corners=False)
        view = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        average = torch.zeros_like(view).lerp_(view, torch.tensor(0.25, device=x.device))
        last = torch.tensor([len(x) - 1], device=x.device)
        return average.index_copy_(0, last, x.index_select(0, last))

    expected, found, _ = on_both(work, nn.Identity(), small_batch()[0])
    check_same(found, expected, "cuda")


def test_state_is_saved_from_the_device_and_loaded_to_either(cuda):
    network = small_network().cuda()
    optimizer = torch.optim.Adam(network.parameters(), fused=True, capturable=True)
    take_steps(network, optimizer, *(x.cuda() for x in small_batch()))
    file = io.BytesIO()
    torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict()}, file)
    for place in ("cpu", "cuda"):
        file.seek(0)
        kept = torch.load(file, map_location=place, weights_only=True)
        weights = kept["network"]["0.weight"]
        assert type(weights) is torch.Tensor or place == "cuda"
        check_same(weights, network[0].weight.detach().cpu(), place)
    other = small_network()
    other.load_state_dict(kept["network"])  # from the device to a network on the CPU
    check_same(other[0].weight.detach(), network[0].weight.detach().cpu(), "cpu")
    network.load_state_dict(other.state_dict())
    optimizer.load_state_dict(kept["optimizer"])
    take_steps(network, optimizer, *(x.cuda() for x in small_batch()))
    assert optimizer.state[network[0].weight]["step"].item() == 6


def test_copies_of_a_network_share_nothing_with_it(cuda):
    network = small_network().cuda()
    other = copy.deepcopy(network)
    assert isinstance(other[0].weight, nn.Parameter) and other[0].weight.is_cuda
    with torch.no_grad():
        other[0].weight.zero_()
    assert network[0].weight.any() and not other[0].weight.any()


def test_inference_mode_runs_on_the_device(cuda):
    network, x = small_network().eval(), small_batch()[0]
    with torch.inference_mode():
        expected = network(x)
        check_same(network.cuda()(x.cuda()), expected, "cuda")
    assert (cuda.to_host, cuda.synchronisations.total()) == (1, 0)


def test_no_cuda_graph_is_captured(cuda):
    with pytest.raises(RuntimeError, match="pretend device"):
        torch.cuda.CUDAGraph()


def test_everything_is_as_before_after_a_failure_too():
    def everything():
        places = torch, torch.cuda, torch.accelerator, torch.Tensor, torch.nn.functional
        return [dict(vars(place)) for place in places]

    before, random_state = everything(), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), pretend_cuda():
        torch.rand(3, device="cuda")
        assert torch.cuda.is_available() and torch.cuda.get_device_capability() == (8, 0)
        raise ZeroDivisionError
    for mine, theirs in zip(everything(), before, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(mine[name] is theirs[name] for name in mine)
    assert not _get_current_dispatch_mode_stack() and not torch._C._only_lift_cpu_tensors()
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("name", [*WAITS, "one_hot of unknown classes"])
def test_a_step_that_waits_is_refused_on_the_cpu_and_on_the_device(name):
    waits = WAITS.get(name, lambda x: F.one_hot(x.long()))
    if name != "tolist":  # on a CPU it calls no operation
        with pytest.raises(AssertionError, match="waits"), held_by_a_graph():
            waits(torch.tensor([0.0, 1.0, 2.0]))
    with pretend_cuda():
        x = torch.tensor([0.0, 1.0, 2.0], device="cuda")
        with pytest.raises(AssertionError, match="waits"), held_by_a_graph():
            waits(x)


@pytest.mark.parametrize("name", PASSES)
def test_a_step_that_does_not_wait_is_accepted(cuda, name):
    for x in (torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 1.0, 2.0]).cuda()):
        with held_by_a_graph():
            PASSES[name](x)


@pytest.mark.parametrize(
    "copies",
    [
        lambda x: x.cpu(),
        lambda x: x.to("cpu", torch.float64),
        lambda x: torch.ones(3).to(x),
        lambda x: torch.ones(3).cuda(),
        lambda x: torch.tensor([1.0], device="cuda"),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: torch.ones(3).copy_(x),
    ],
)
def test_a_step_that_copies_between_devices_is_refused(cuda, copies):
    x = torch.zeros(3, device="cuda")
    with pytest.raises(AssertionError, match="waits"), held_by_a_graph():
        copies(x)


# Networks: every forward keeps to one device and looks at no number


def pixels(channels, size, count=4):
    return torch.rand(count, channels, size, size)


def noise():
    return [torch.randn(4, 100)]


def noise_and_labels():
    return torch.randn(4, 100), torch.arange(4)


def digits_and_labels():
    return pixels(1, 32), torch.arange(4)


def ensemble():
    return pretrained.Ensemble([pretrained.build(n) for n in ("squeezenet1_1", "alexnet")])


# What makes a function, what makes its arguments, and the shape of what it returns.
FORWARDS = {
    "DANN of grey images": (DANN, lambda: [pixels(1, 28)], (4, 10)),
    "DANN of colour images": (DANN, lambda: [pixels(3, 28)], (4, 10)),
    "DANN's features": (lambda: DANN().features, lambda: [pixels(3, 28)], (4, 768)),
    "DANN's domains": (
        lambda: DANN().domain_logits,
        lambda: (torch.randn(4, 768, requires_grad=True), torch.full((), 0.5)),
        (4,),
    ),
    "DCGAN generator, 32": (DCGANGenerator, noise, (4, 1, 32, 32)),
    "DCGAN generator, 64": (partial(DCGANGenerator, channels=3, size=64), noise, (4, 3, 64, 64)),
    "DCGAN discriminator, 32": (DCGANDiscriminator, lambda: [pixels(1, 32)], (4,)),
    "DCGAN discriminator, 64": (
        partial(DCGANDiscriminator, channels=3, size=64),
        lambda: [pixels(3, 64)],
        (4,),
    ),
    "cDCGAN generator": (ConditionalDCGANGenerator, noise_and_labels, (4, 1, 32, 32)),
    "cDCGAN discriminator": (ConditionalDCGANDiscriminator, digits_and_labels, (4,)),
    "cGAN generator": (ConditionalGANGenerator, noise_and_labels, (4, 1, 32, 32)),
    "cGAN discriminator": (ConditionalGANDiscriminator, digits_and_labels, (4,)),
    "judge": (Judge, lambda: [pixels(1, 32)], (4, 10)),
    "judge's features": (lambda: Judge().features, lambda: [pixels(1, 32)], (4, 128)),
    "ensemble": (ensemble, lambda: [pixels(3, 64)], (4, 1000)),
    "grey network": (
        lambda: transfer.GreyNetwork(pretrained.build("squeezenet1_1")),
        lambda: [pixels(1, 64)],
        (4, 1000),
    ),
    "classifier": (
        lambda: fine_tuning.Classifier(pretrained.build("efficientnet_lite0"), 15),
        lambda: [pixels(3, 64)],
        (4, 15),
    ),
}


@pytest.fixture
def fake():
    """Make all new tensors fake ones, which know their device and shape but no numbers."""
    with FakeTensorMode() as mode, FakeCopyMode(mode):  # the second is for copy.deepcopy
        yield


def made_on_cuda(*makers):
    """Return what functions make on the GPU; what is computed later says itself where it lies."""
    with torch.device("cuda"):
        return [make() for make in makers]


@pytest.mark.parametrize("name", FORWARDS)
def test_forwards_keep_to_their_device_and_look_at_no_number(fake, name):
    *makers, shape = FORWARDS[name]
    forward, inputs = made_on_cuda(*makers)
    output = forward(*inputs)
    assert (output.device.type, output.shape) == ("cuda", shape)


@pytest.mark.parametrize("name", FORWARDS)
def test_a_cuda_graph_can_hold_forward_and_backward(cuda, name):
    forward, inputs = made_on_cuda(*FORWARDS[name][:2])
    with held_by_a_graph():
        forward(*inputs).sum().backward()


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_pretrained_networks_keep_to_their_device_and_look_at_no_number(fake, name):
    (network,) = made_on_cuda(partial(pretrained.build, name))
    images = torch.rand(2, 3, network.input_size, network.input_size, device="cuda")
    scores = network(images)
    assert (scores.device.type, scores.shape) == ("cuda", (2, 1000))
    maps = network.activations(images, network.layers)
    banded = network.features(images, network.layers, bands=2)
    for layer in network.layers:
        assert maps[layer].device.type == banded[layer].device.type == "cuda"
        bands = 2 if maps[layer].ndim == 4 and maps[layer].shape[2] > 1 else 1
        assert banded[layer].shape == (2, bands * maps[layer].shape[1])


def test_fake_tensors_refuse_mixtures_and_looks(fake):
    x = torch.rand(3, device="cuda")
    with pytest.raises(FakeTensorDeviceMismatchError):
        x + torch.ones(3)
    with pytest.raises(DataDependentOutputException):
        x.sum().item()


# Inference: the same numbers as on the CPU, and where the docstring says


def toy_digits(channels=1, count=6):
    generator = torch.Generator().manual_seed(2)
    shape = count, channels, 28, 28
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def toy_dann():
    torch.manual_seed(0)
    return DANN()


def test_predictions_of_digits_come_back_to_the_cpu():
    predict = partial(adaptation.predict, images=toy_digits(), batch_size=4)
    expected, found, device = on_both(predict, toy_dann())
    check_same(found, expected, "cpu")
    assert not device.synchronisations and device.to_host <= 2  # one for each batch


def test_accuracies_and_pseudo_labels_are_those_of_the_cpu():
    images = toy_digits()
    labels = adaptation.predict(toy_dann(), images).argmax(1)
    labels[0] = (labels[0] + 1) % 10
    test = ImageSet(images, labels, tuple("0123456789"), "toy digits")
    expected, found, _ = on_both(partial(adaptation.accuracy, test=test), toy_dann())
    assert found == expected == pytest.approx(5 / 6)

    label = partial(adaptation.pseudo_labels, images=images, threshold=0.1)
    expected, found, _ = on_both(label, toy_dann())
    check_same(found, expected, "cpu")


def test_statistics_of_other_images_are_those_of_the_cpu():
    renew = partial(adaptation.adapt_batch_norm, images=toy_digits(3), batch_size=3)
    expected, found, _ = on_both(renew, toy_dann())
    for name, value in expected.state_dict().items():
        check_same(found.state_dict()[name], value, "cuda")


def toy_generator(name):
    torch.manual_seed(0)
    return DCGANGenerator(16, 4) if name == "DCGAN" else ConditionalDCGANGenerator(16, width=8)


@pytest.mark.parametrize("name", ["DCGAN", "cDCGAN"])
def test_generated_images_come_back_to_the_cpu(name):
    z, labels = gans.fixed_inputs(toy_generator(name), count=6)
    generate = partial(gans.generate, z=z, labels=labels, batch_size=4)
    expected, found, device = on_both(generate, toy_generator(name))
    assert not found.is_cuda and torch.equal(found, expected)
    assert not device.synchronisations and device.to_host <= 2  # one for each batch


def test_features_and_classes_of_a_judge_come_back_to_the_cpu():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 1, 32, 32), dtype=torch.uint8)
    read = partial(judging.features_and_classes, images=images, batch_size=4)
    expected, found, device = on_both(read, Judge(width=16))
    for mine, theirs in zip(found, expected, strict=True):
        check_same(mine, theirs, "cpu")
    assert not device.synchronisations


@pytest.fixture(scope="module")
def squeezenet():
    torch.manual_seed(0)
    return pretrained.build("squeezenet1_1").requires_grad_(False)


def photos(count=2, size=64):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, size, size, generator=generator)


SALIENCY = {
    "gradient": saliency.gradient,
    "SmoothGrad": partial(saliency.smooth_gradient, samples=2),
    "integrated gradients": partial(saliency.integrated_gradients, steps=2),
    "integrated gradients from an image": partial(
        saliency.integrated_gradients, baseline=torch.full((3, 64, 64), 0.5), steps=2
    ),
    "Grad-CAM": saliency.grad_cam,
    "Grad-CAM of a layer": partial(saliency.grad_cam, layer="fire8"),
}


@pytest.mark.parametrize("name", SALIENCY)
def test_saliency_maps_lie_where_the_images_do(name, squeezenet):
    labels = torch.tensor([3, 7])
    expected, found, _ = on_both(SALIENCY[name], squeezenet, photos(), labels)
    assert expected.any()
    check_same(found, expected, "cuda")


ATTACKS = {
    "FGSM": white_box.fgsm,
    "targeted FGSM": partial(white_box.fgsm, targeted=True),
    "PGD": partial(white_box.pgd, steps=2),
    "PGD, l2": partial(white_box.pgd, norm="l2", epsilon=1.0, steps=2),
    "minimal norm": partial(white_box.ddn, steps=3),
    "Newton DDN": partial(minimal_norm.newton_ddn, steps=3),
    "FMN": partial(minimal_norm.fmn, steps=3),
    "SuperDeepFool": partial(minimal_norm.superdeepfool, steps=3, searches=2),
    "minimal norm, 8 bits": partial(white_box.ddn, steps=2, levels=256),
    "NES": partial(black_box.nes, max_queries=10, samples=4),
    "Carlini-Wagner": partial(white_box.carlini_wagner, steps=2),
    "square": partial(black_box.square, max_queries=4),
    "one pixel": partial(black_box.one_pixel, population=5, generations=1),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacked_images_lie_where_the_images_do(name, squeezenet):
    def attack(network, images, labels):
        return ATTACKS[name](network, images, labels)

    scores = squeezenet(photos())
    labels = scores.argmin(1) if name.startswith("targeted") else scores.argmax(1)
    expected, found, _ = on_both(attack, squeezenet, photos(), labels)
    for field in ("images", "success", "gradients", "queries"):
        check_same(getattr(found, field), getattr(expected, field), "cuda")


def test_fooled_images_lie_where_the_images_do(squeezenet):
    targets = squeezenet(photos()).topk(2).indices[:, 1]
    fool = partial(white_box.fool, max_steps=3)
    expected, found, _ = on_both(fool, squeezenet, photos(), targets)
    for field in ("images", "steps", "success", "confidences"):
        check_same(getattr(found, field), getattr(expected, field), "cuda")


def test_measures_of_attacks_are_those_of_the_cpu(squeezenet):
    images, labels = photos(), squeezenet(photos()).argmin(1)
    changed = (images + 0.01).clamp(0, 1)
    measured = on_both(attack_measures.measure, squeezenet, images, changed, labels)
    assert measured[0] == pytest.approx(measured[1])


def test_class_images_lie_where_the_network_does_and_snapshots_on_the_cpu(squeezenet):
    def maximise(network, start, classes):
        return class_images.maximise(
            network, classes, start, iterations=3, jitter=4, blur_every=2, snapshots_at=(0, 2)
        )

    expected, found, _ = on_both(maximise, squeezenet, photos(), torch.tensor([3, 7]))
    check_same(found.images, expected.images, "cuda")
    check_same(found.scores, expected.scores, "cuda")
    check_same(found.snapshots, expected.snapshots, "cpu")


@pytest.mark.parametrize("recipe", ["maximise", "maximise_spectrum"])
def test_class_images_from_noise_are_those_of_the_cpu(recipe, squeezenet, monkeypatch):
    monkeypatch.setattr(squeezenet, "input_size", 64)
    climb = partial(getattr(class_images, recipe), classes=[3, 7], iterations=2)
    expected, found, _ = on_both(climb, squeezenet)
    check_same(found.images, expected.images, "cuda")
    check_same(found.snapshots, expected.snapshots, "cpu")


def test_class_images_of_fixed_magnitudes_are_those_of_the_cpu(squeezenet, monkeypatch):
    monkeypatch.setattr(squeezenet, "input_size", 64)
    magnitude = magnitude_constrained.mean_magnitude(list((255 * photos()).byte()), 64)
    climb = partial(
        magnitude_constrained.maximise_phase, classes=[3, 7], magnitude=magnitude, iterations=2
    )
    expected, found, _ = on_both(climb, squeezenet)
    check_same(found.images, expected.images, "cuda")
    check_same(found.snapshots, expected.snapshots, "cpu")


def test_road_is_that_of_the_cpu(squeezenet):
    maps = photos().mean(1)
    judged = partial(road.road, shares=(0.3,))
    expected, found, _ = on_both(judged, squeezenet, photos(), torch.tensor([3, 7]), maps)
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_extracted_features_come_back_to_the_cpu(channels, squeezenet):
    images = toy_digits(channels)
    extract = partial(
        features.extract,
        images=images,
        layers=["fire8", "fire9"],
        sizes=[64],
        mirrored=True,
        bands=2,
        dtype=torch.float32,
        batch_size=4,
        cache=False,
        quiet=True,
    )
    expected, found, device = on_both(extract, squeezenet)
    for layer in ("fire8", "fire9"):
        check_same(found[layer], expected[layer], "cpu")
    assert not device.synchronisations


# Whole trainings: the same numbers as on the CPU, and on the way nothing is fetched


@pytest.mark.parametrize("name", test_training.TRAININGS)
def test_trainings_are_those_of_the_cpu(name, capsys, monkeypatch):
    monkeypatch.setattr(training, "WARM_UP", 1)
    expected = test_training.TRAININGS[name]()
    capsys.readouterr()
    with pretend_cuda():
        found = test_training.TRAININGS[name]()
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-3, atol=1e-4)
    # The pretend device has no graphs: that is said once.
    assert capsys.readouterr().out.count("its steps run one by one") == 1


@pytest.mark.parametrize("name", test_training.TRAININGS)
def test_steps_neither_wait_nor_move_anything(name, cuda, monkeypatch):
    play, moved = training._StepRunner.take, []

    def counted(runner, count):
        cuda.clear()
        seconds = play(runner, count)
        moved.append((cuda.synchronisations.total(), cuda.to_device, cuda.to_host))
        return seconds

    monkeypatch.setattr(training._StepRunner, "take", counted)
    test_training.TRAININGS[name]()
    assert set(moved) == {(0, 0, 0)}


def test_a_training_resumes_on_the_device(tmp_path, interrupted_twice):
    straight = test_training.network()
    expected = test_training.train(straight)
    with pretend_cuda():
        resumed, found = interrupted_twice(
            test_training.network, lambda net: test_training.train(net, tmp_path / "training.pt")
        )
        torch.testing.assert_close(found.records["loss"], expected.records["loss"])
        torch.testing.assert_close(
            test_training.weights(resumed).cpu(), test_training.weights(straight)
        )
