"""Practical 2, the same as reference libraries do it, where they are installed."""

import copy
from functools import partial
from importlib import util

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlapps.visualization import saliency


def differences_from_captum(
    network: nn.Module, image: Tensor, label: Tensor, samples=4, steps=5, seed=0
) -> dict[str, float]:
    """Return how far our maps of one image (1, 3, H, W) are from Captum's, {method: difference}.

    The largest difference, as a share of the map's largest value, in double precision, so that only
    a real difference shows. Without Captum the dictionary is empty.
    """
    if not util.find_spec("captum"):
        return {}
    from captum import attr

    exact = copy.deepcopy(network).double()
    image = image.double().requires_grad_()  # or Captum warns that it does so itself
    generator = torch.Generator().manual_seed(seed)
    noise = [0.15 * torch.randn(1, *image.shape[1:], generator=generator) for _ in range(samples)]
    copies = [(image + n.to(image)).clamp(0, 1) for n in noise]
    slopes = [attr.Saliency(exact).attribute(c, label, abs=False) for c in copies]
    module = exact.module_of(saliency.map_layers(exact, image)[-1])
    cam = attr.LayerGradCam(exact, module).attribute(image, label, relu_attributions=True)
    # One step after the other, as ours: where an even region ties in a max-pooling (in a black
    # baseline everywhere), a batch of another size rounds otherwise and lets another pixel win.
    path = attr.IntegratedGradients(exact).attribute(
        image, torch.zeros_like(image), label, n_steps=steps, internal_batch_size=1
    )
    smooth = partial(saliency.smooth_gradient, samples=samples, seed=seed)
    integrated = partial(saliency.integrated_gradients, steps=steps)
    pairs = {
        "gradient": (saliency.gradient, attr.Saliency(exact).attribute(image, label).amax(1)),
        "SmoothGrad": (smooth, torch.stack(slopes).mean(0).abs().amax(1)),
        "integrated gradients": (integrated, path.sum(1)),
        "Grad-CAM": (
            saliency.grad_cam,
            F.interpolate(cam, image.shape[2:], mode="bilinear")[:, 0],
        ),
    }
    found = {}
    for method, (explain, theirs) in pairs.items():
        difference = (explain(exact, image, label) - theirs).detach().abs().max()
        found[method] = (difference / theirs.abs().max()).item()
    return found


def carlini_wagner_of_torchattacks(
    network: nn.Module, images: Tensor, targets: Tensor, constant=1.0, steps=100
) -> Tensor | None:
    """Return the images (N, 3, H, W) of torchattacks' Carlini-Wagner attack, None without it."""
    if not util.find_spec("torchattacks"):
        return None
    import torchattacks

    attack = torchattacks.CW(network, c=constant, steps=steps, lr=0.01)
    attack.set_mode_targeted_by_label(quiet=True)
    return attack(images.contiguous(), targets)


def shortest_of_adversarial_library(
    network: nn.Module, images: Tensor, labels: Tensor, *, targeted=False, steps=100,
    attacks=("FMN", "ALMA", "SuperDeepFool"),
) -> dict[str, Tensor]:  # fmt: skip
    """Return {attack: images (N, 3, H, W)} of adversarial-library, empty without it.

    FMN and ALMA in the l2 norm with `steps` gradients each; SuperDeepFool, which knows no targets,
    takes the gradients of the ten largest scores in each step and stops by itself. ALMA's first
    step changes an image by 1, targeted, or 0.1; its rate falls along its own schedule.
    """
    if not util.find_spec("adv_lib"):
        return {}
    from adv_lib import attacks as theirs

    images, options = images.contiguous(), {"targeted": targeted}
    run = {
        "FMN": partial(theirs.fmn, network, images, labels, norm=2, steps=steps, **options),
        "ALMA": partial(
            theirs.alma, network, images, labels, num_steps=steps,
            init_lr_distance=1.0 if targeted else 0.1, **options,
        ),
    }  # fmt: skip
    if not targeted:
        run["SuperDeepFool"] = lambda: torch.cat(
            [_superdeepfool(network, images[n : n + 1], theirs.sdf) for n in range(len(images))]
        )
    return {name: call().detach() for name, call in run.items() if name in attacks}


def _superdeepfool(network, image, attack):
    """Return SuperDeepFool's image; of the 1,000 classes it sees the ten that are likely at first.

    The predicted class, the first of the ten, is what is to change.
    """
    with torch.no_grad():
        ten = network(image).topk(10).indices[0]

    class Ten(nn.Module):
        def forward(self, x):
            return network(x)[:, ten]

    return attack(Ten(), image, torch.zeros(1, dtype=torch.long, device=image.device))
