"""How near training and extraction come to the machine's own limit, and where the rest goes."""

import torch
from compare import synchronised_clock
from torch.nn import functional as F
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from dlapps import adaptation, gan_training, runtime
from dlapps.models import dann, features, gans, pretrained


def peak(size=2048, rounds=8):
    """Return the fastest measured product of float32 matrices, in operations a second.

    Tried as a product and as a convolution of 1x1, which on a CPU are the work of two libraries.
    """
    device = runtime.device()
    one, other = torch.rand(2, size, size, device=device)
    pixels, filters = one.T[None, :, :, None], other[:, :, None, None]
    best = float("inf")
    for _ in range(rounds):
        for multiply in (lambda: one @ other, lambda: F.conv2d(pixels, filters)):
            begin = synchronised_clock()
            multiply()
            best = min(best, synchronised_clock() - begin)
    return 2 * size**3 / best


def measure(work, warm=2, rounds=20):
    """Return (seconds, operations, [(operator, share of the time)]) of a call of `work`.

    The seconds are the fastest call's, as in `peak`: what else the machine does is in neither.
    Operations on a convolution's padding count, though it need not do them.
    """
    for _ in range(warm):
        work()
    best = float("inf")
    for _ in range(rounds):
        begin = synchronised_clock()
        work()
        best = min(best, synchronised_clock() - begin)
    with FlopCounterMode(display=False) as counter:
        work()
    with profile() as recorded:
        work()
    events = recorded.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    slowest = sorted(events, key=lambda event: -event.self_cpu_time_total)[:4]
    shares = [
        (event.key.removeprefix("aten::"), event.self_cpu_time_total / total) for event in slowest
    ]
    return best, counter.get_total_flops(), shares


def _extraction():
    network = pretrained.build("efficientnet_lite0").to(runtime.device())
    network = features.fold_batch_norms(network, ["head"])
    images = torch.rand(4, 3, network.input_size, network.input_size).to(runtime.device())
    images = images.contiguous(memory_format=torch.channels_last)

    def work():
        with torch.inference_mode():
            network.features(images, ["head"])

    return "features of EfficientNet-Lite0, batch of 4", work


def _dann():
    network = dann.DANN().to(runtime.device(), memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    batches = torch.rand(2, 64, 3, 28, 28, generator=generator).to(runtime.device())
    labels = torch.arange(64).to(runtime.device()) % 10

    def work():
        source, target = (network.features(batch) for batch in batches)
        loss = torch.nn.functional.cross_entropy(network.label_classifier(source), labels)
        loss = loss + adaptation.adversarial_loss(network, source, target, 1.0)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return "a step of DANN, 64 + 64 images", work


def _gan(name, kinds):
    torch.manual_seed(0)
    networks = [
        kind().apply(gans.init_weights).to(runtime.device(), memory_format=torch.channels_last)
        for kind in kinds
    ]
    settings = gan_training.Settings()
    optimizers = [torch.optim.Adam(n.train().parameters(), 2e-4, (0.5, 0.999)) for n in networks]
    real = torch.rand(128, 1, 32, 32).to(runtime.device())
    labels = torch.arange(128).to(runtime.device()) % 10
    labels = labels if networks[0].classes is not None else None
    z = torch.randn(128, networks[0].latent).to(runtime.device())

    def work():
        gan_training.train_step(networks, optimizers, [(real, labels)], [z], settings)

    return f"a step of {name}, batch of 128", work


# What would make each faster still.
LEVERS = (
    "bfloat16 where the processor multiplies it, chosen by a measurement at run time",
    "larger batches: each domain's 64 images leave small products",
    "fewer, larger steps: Adam and batch norm cost the same at any batch",
    "float16 or bfloat16 on a GPU; on a CPU the convolutions are the limit",
)


def rows():
    """Return a row for each piece of work: its share of the peak, and its slowest operators."""
    found, best = [], 0
    works = [
        _extraction(),
        _dann(),
        _gan("DCGAN", (gans.DCGANGenerator, gans.DCGANDiscriminator)),
        _gan("cDCGAN", (gans.ConditionalDCGANGenerator, gans.ConditionalDCGANDiscriminator)),
    ]
    for (name, work), lever in zip(works, LEVERS, strict=True):
        best = max(best, peak())
        seconds, operations, slowest = measure(work)
        found.append(
            {
                "work": name,
                "seconds": seconds,
                "billion operations": operations / 1e9,
                "slowest": slowest,
                "next lever": lever,
            }
        )
    best = max(best, peak())
    print(f"Matrix products: {best / 1e9:.0f} billion operations a second at best")
    for row in found:
        row["peak in billion operations a second"] = best / 1e9
        row["share of the peak"] = 1e9 * row["billion operations"] / row["seconds"] / best
        print(f"{row['work']}: {row['share of the peak']:.0%} of the peak")
    return found


def table(rows):
    """Return rows as a Markdown table."""
    best = rows[0]["peak in billion operations a second"]
    lines = [
        f"The peak, {best:.0f} billion operations a second, is the fastest product of matrices "
        "that was measured in between. What a convolution multiplies by its padding counts as "
        "work: those that leave it out may seem to exceed the peak.",
        "",
        "| work | seconds | billion operations | of the peak | slowest operators | next lever |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        slowest = ", ".join(f"{name} {share:.0%}" for name, share in row["slowest"])
        lines.append(
            f"| {row['work']} | {row['seconds']:.3f} | {row['billion operations']:.1f} | "
            f"**{row['share of the peak']:.0%}** | {slowest} | {row['next lever']} |"
        )
    return "\n".join(lines)
