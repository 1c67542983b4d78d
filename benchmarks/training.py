"""Training DANN and GANs, beside the loops of common tutorials: a DataLoader of single images."""

import copy
import itertools
import math
import tempfile
from pathlib import Path

import torch
from compare import by_device, compare
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import functional

from dlapps import adaptation, datasets, gans, runtime
from dlapps.models import dann, gan
from dlapps.steps import Batches

BATCH = 64


class JoinedGenerator(gan.ConditionalDCGANGenerator):
    """cDCGAN's generator as it is usually written: the maps of noise and label as one tensor."""

    def forward(self, z, labels):
        y = nn.functional.one_hot(labels, self.classes).float()
        branches = self.noise_branch(z[:, :, None, None]), self.label_branch(y[:, :, None, None])
        return (self.body(torch.cat(branches, 1)) + 1) / 2


class JoinedDiscriminator(gan.ConditionalDCGANDiscriminator):
    """cDCGAN's discriminator as it is usually written: the maps of image and label as one."""

    def forward(self, images, labels):
        y = nn.functional.one_hot(labels, self.classes).float()[:, :, None, None]
        branches = (
            self.image_branch(2 * images - 1),
            self.label_branch(y.expand(-1, -1, *images.shape[2:])),
        )
        return self.body(torch.cat(branches, 1)).flatten()


# Our networks normalise by themselves: the usual step is done, but changes nothing.
TRANSFORM = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.0], [1.0])])


class Arrays(torch.utils.data.Dataset):
    """Images one by one through PIL and transforms, as torchvision's MNIST gives them."""

    def __init__(self, part):
        self.part = part

    def __len__(self):
        return len(self.part)

    def __getitem__(self, index):
        image = functional.to_pil_image(self.part.images[index])
        return TRANSFORM(image), self.part.labels[index]


class Files(Arrays):
    """Images one by one from PNG files, as MNIST-M is handed around."""

    def __init__(self, part, folder):
        super().__init__(part)
        self.folder = Path(folder)
        for number, image in enumerate(part.images):
            functional.to_pil_image(image).save(self.folder / f"{number}.png")

    def __getitem__(self, index):
        with Image.open(self.folder / f"{index}.png") as image:
            return TRANSFORM(image.convert("RGB")), self.part.labels[index]


def _order(images, size, stream=0):
    """Return the indices of the images in the order in which our training's epoch draws them."""
    batches = Batches(images, None, size, steps=len(images) // size, stream=stream)
    return batches.order.flatten().tolist()


def dann_rows():
    """Return a row for an epoch of DANN, the same network, batches and settings on both sides."""
    name = runtime.pick(quick="mnist-5000", full="mnist")
    source, target = (datasets.load(n) for n in (name, name.replace("mnist", "mnist-m")))
    count = by_device(cpu=runtime.pick(quick=16 * BATCH, full=64 * BATCH), gpu=20_000)
    count = min(count, len(source), len(target))
    source, target = (part.subset(range(count)) for part in (source, target))
    tests = [part.subset(range(BATCH)) for part in (source, target)]
    device = runtime.device()
    torch.manual_seed(0)
    start = dann.DANN()
    settings = adaptation.Settings(epochs=1, batch_size=BATCH)
    folder = tempfile.TemporaryDirectory()
    domains = Arrays(source), Files(target, folder.name)
    orders = [_order(part.images, BATCH, n) for n, part in enumerate((source, target))]
    ends = {}

    def ours():
        network = copy.deepcopy(start)
        history = adaptation.train(network, source, target.images, settings, tests=tests)
        ends["ours"] = history["label_loss"][0]

    def usual():
        network = copy.deepcopy(start).to(device).train()
        optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate)
        loaders = [
            DataLoader(domain, BATCH, sampler=order)
            for domain, order in zip(domains, orders, strict=True)
        ]
        criterion = nn.BCEWithLogitsLoss()
        total = 0.0
        for step, ((x, y), (other, _)) in enumerate(zip(*loaders, strict=True)):
            progress = step / len(loaders[0])
            factor = adaptation.reversal_schedule(progress)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2
            features = network.features(x.to(device))
            label_loss = nn.functional.cross_entropy(
                network.label_classifier(features), y.to(device)
            )
            source_said = network.domain_logits(features, factor)
            target_said = network.domain_logits(network.features(other.to(device)), factor)
            loss = label_loss + criterion(source_said, torch.zeros_like(source_said))
            loss = loss + criterion(target_said, torch.ones_like(target_said))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += label_loss.item()
        ends["usual"] = total / len(loaders[0])
        adaptation.accuracy(network, tests[0])
        adaptation.accuracy(adaptation.adapt_batch_norm(network, target.images), tests[1])

    ours(), usual()
    return [
        compare(
            f"DANN: an epoch of {count:,} images per domain, {target.name}",
            "DataLoaders of arrays and PNG files, NCHW",
            ours,
            usual,
            agreement=f"label loss of the epoch {ends['ours']:.3f} and {ends['usual']:.3f}",
            target=by_device(cpu=3.0, gpu=20),
            rounds=by_device(cpu=7, gpu=3),
        )
    ]


def gan_rows():
    """Return rows for steps of DCGAN and cDCGAN, from the same weights, batches and noise."""
    digits = datasets.load(runtime.pick(quick="mnist-5000", full="mnist"), size=32)
    device = runtime.device()
    rows = []
    models = {
        "DCGAN": (
            by_device(cpu=20, gpu=400),
            by_device(cpu=1.5, gpu=8),
            *2 * [(gan.DCGANGenerator, gan.DCGANDiscriminator)],
        ),
        "cDCGAN": (
            by_device(cpu=4, gpu=200),
            by_device(cpu=1.5, gpu=4.5),
            (gan.ConditionalDCGANGenerator, gan.ConditionalDCGANDiscriminator),
            (JoinedGenerator, JoinedDiscriminator),
        ),
    }
    for name, (steps, wanted, kinds, usual_kinds) in models.items():
        settings = gans.Settings(epochs=1, batch_size=128)
        steps = min(steps, len(digits) // settings.batch_size)
        part = digits.subset(range(steps * settings.batch_size))
        torch.manual_seed(0)
        starts = [kind().apply(gan.init_weights) for kind in kinds]
        usual_starts = [kind() for kind in usual_kinds]
        for one, start in zip(usual_starts, starts, strict=True):
            one.load_state_dict(start.state_dict())
        conditional = starts[0].classes is not None
        order = _order(part.images, settings.batch_size)
        losses = {}

        def ours(
            starts=starts, part=part, conditional=conditional, settings=settings, losses=losses
        ):
            networks = copy.deepcopy(starts)
            history = gans.train(
                *networks,
                part.images,
                part.labels if conditional else None,
                settings,
                fixed=gans.fixed_inputs(networks[0], 1),
            )
            losses["ours"] = history.records["discriminator_loss"][0]

        def usual(
            starts=usual_starts,
            part=part,
            order=order,
            conditional=conditional,
            settings=settings,
            losses=losses,
        ):
            generator, discriminator = (n.to(device).train() for n in copy.deepcopy(starts))
            optimizers = [
                torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999))
                for n in (generator, discriminator)
            ]
            criterion = nn.BCEWithLogitsLoss()
            # A loader draws too: from a generator of its own, so that the noise is ours.
            own = torch.Generator()
            loader = DataLoader(Arrays(part), settings.batch_size, sampler=order, generator=own)
            torch.manual_seed(settings.seed)
            for step, (real, labels) in enumerate(loader):
                real, labels = real.to(device), labels.to(device) if conditional else None
                z = torch.randn(len(real), generator.latent, device=device)
                ones, zeros = torch.ones(len(real)).to(device), torch.zeros(len(real)).to(device)
                discriminator.zero_grad()
                on_real = criterion(discriminator(real, labels), ones)
                on_real.backward()
                fake = generator(z, labels)
                on_fake = criterion(discriminator(fake.detach(), labels), zeros)
                on_fake.backward()
                optimizers[1].step()
                generator.zero_grad()
                loss = criterion(discriminator(fake, labels), ones)
                loss.backward()
                optimizers[0].step()
                if step == 0:
                    losses["usual"] = (on_real + on_fake).item()
                # As the tutorial prints them.
                on_real.item(), on_fake.item(), loss.item()

        ours(), usual()
        rows.append(
            compare(
                f"{name}: {steps} steps of {settings.batch_size}, {digits.name}",
                "the loop of PyTorch's DCGAN tutorial",
                ours,
                usual,
                agreement=f"first loss of D {losses['ours']:.5f} and {losses['usual']:.5f}",
                target=wanted,
                rounds=by_device(cpu=7, gpu=3),
            )
        )
    return rows


def rows():
    """Return the rows of DANN and of the GANs."""
    return list(itertools.chain(dann_rows(), gan_rows()))
