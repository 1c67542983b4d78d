"""Saliency maps and how ROAD removes pixels, beside Captum and pytorch-grad-cam."""

import torch
from captum import attr
from compare import apart, by_device, compare
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from dlapps import datasets, runtime
from dlapps.models import features, pretrained
from dlapps.visualization import road, saliency

STEPS = SAMPLES = 20
SHARE = 0.5  # of the pixels, which ROAD removes


def rows():
    """Return a row for each kind of map."""
    network = features.fold_batch_norms(pretrained.load("efficientnet_lite0"))  # as practical 2
    photographs = datasets.load(runtime.pick(quick="photos", full="imagenet-25"), split="test")
    images = network.prepare(photographs.images)
    with torch.no_grad():
        labels = network(images).argmax(1)
    layer = "block16"  # the last whose module is called once, which pytorch-grad-cam needs
    # As a network usually lies in memory: that ours lies otherwise is part of what is compared.
    plain = pretrained.load("efficientnet_lite0").to(memory_format=torch.contiguous_format)
    module = plain.module_of(layer)

    def captums_integrated():
        method = attr.IntegratedGradients(plain)
        return method.attribute(
            images, images * 0, labels, n_steps=STEPS, internal_batch_size=len(images)
        ).sum(1)

    def captums_smooth():
        # Captum's noise leaves the range of images, which ours is clipped to.
        method = attr.NoiseTunnel(attr.Saliency(lambda noisy: plain(noisy.clamp(0, 1))))
        return method.attribute(
            images,
            nt_type="smoothgrad",
            nt_samples=SAMPLES,
            nt_samples_batch_size=1,
            stdevs=0.15,
            target=labels,
            abs=False,
        )

    def captums_cam():
        found = attr.LayerGradCam(plain, module).attribute(images, labels)
        return attr.LayerAttribution.interpolate(found.relu(), images.shape[2:], "bilinear")[:, 0]

    def gradcams():
        wanted = [ClassifierOutputTarget(label) for label in labels.tolist()]
        with GradCAM(model=plain, target_layers=[module]) as cam:
            maps = cam(images.clone().requires_grad_(), wanted)
        return torch.as_tensor(maps)

    def ours_smooth():
        return saliency.smooth_gradient(network, images, labels, samples=SAMPLES)

    def ours_integrated():
        return saliency.integrated_gradients(network, images, labels, steps=STEPS)

    def ours_cam():
        return saliency.grad_cam(network, images, labels, layer)

    def scaled(maps):
        """Bring each map to [0, 1], as pytorch-grad-cam does."""
        maps = maps - maps.amin((1, 2), keepdim=True)
        return maps / (maps.amax((1, 2), keepdim=True) + 1e-7)

    def ours_gradient():
        return saliency.gradient(network, images, labels)

    def captums_gradient():
        return attr.Saliency(plain).attribute(images, labels).amax(1)

    few = images[:4].cpu()
    missing = torch.rand(few.shape[2:], generator=torch.Generator().manual_seed(0)) < SHARE

    def ours_imputed():
        return torch.stack([road.impute(image, missing, noise=0) for image in few])

    def theirs_imputed():
        fill = NoisyLinearImputer(noise=0)
        return torch.stack([fill(image, (~missing).float()) for image in few])

    alike = torch.corrcoef(
        torch.stack([ours_smooth().flatten(), captums_smooth().abs().amax(1).flatten()])
    )[0, 1]
    said = "differ by {:.1e} of the largest value"
    title = f"{len(images)} of {photographs.name}, {network.title}"
    captum, many = "Captum (NCHW)", by_device(cpu=1.5, gpu=1.0)
    pairs = [
        ("gradient", captum, ours_gradient, captums_gradient, 1.0,
         said.format(apart(ours_gradient(), captums_gradient()))),
        (f"SmoothGrad, {SAMPLES} samples", captum, ours_smooth, captums_smooth, many,
         f"other noise; correlation {alike:.2f}"),
        (f"integrated gradients, {STEPS} steps", captum, ours_integrated, captums_integrated, many,
         said.format(apart(ours_integrated(), captums_integrated()))),
        ("Grad-CAM", captum, ours_cam, captums_cam, 1.0,
         said.format(apart(ours_cam(), captums_cam()))),
        ("Grad-CAM", "pytorch-grad-cam (NCHW)", ours_cam, gradcams, 1.0,
         said.format(apart(scaled(ours_cam()), gradcams())) + ", each map scaled to [0, 1]"),
        (f"ROAD, {SHARE:.0%} of the pixels of 4 images made up", "pytorch-grad-cam",
         ours_imputed, theirs_imputed, by_device(cpu=1.5, gpu=1.0),
         said.format(apart(ours_imputed(), theirs_imputed()))),
    ]  # fmt: skip
    return [
        compare(
            f"{name}: {title}", peer, ours, theirs, agreement=agreement, target=target, rounds=3
        )
        for name, peer, ours, theirs, target, agreement in pairs
    ]
