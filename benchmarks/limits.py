"""How near training and extraction come to the machine's own limit, and where the rest goes."""

from operator import attrgetter

import torch
from compare import by_device
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from dlapps import adaptation, gans, runtime, steps, training
from dlapps.models import dann, features, gan, pretrained


def peak(rounds=8):
    """Return the fastest measured product of float32 matrices, in operations per second.

    Tried as a product and as a convolution of 1x1, which on a CPU are the work of two libraries.
    """
    device, size = runtime.device(), by_device(cpu=2048, gpu=4096)
    one, other = torch.rand(2, size, size, device=device)
    pixels, filters = one.T[None, :, :, None], other[:, :, None, None]
    best = float("inf")
    for _ in range(rounds):
        for multiply in (lambda: one @ other, lambda: F.conv2d(pixels, filters)):
            begin = runtime.clock()
            multiply()
            best = min(best, runtime.clock() - begin)
    return 2 * size**3 / best


def measure(work, replay=None, warm=5, rounds=20):
    """Return (seconds, operations, [(operator, share of the time)]) of a call of `work`.

    The seconds are the fastest call's, as in `peak`: what else the machine does is in neither.
    Timed is `replay`, where it does the same from a graph; only `work` shows its operators.
    Operations on a convolution's padding count, though it need not do them.
    """
    timed = replay or work
    for _ in range(warm):
        timed()
    best = float("inf")
    for _ in range(rounds):
        begin = runtime.clock()
        timed()
        best = min(best, runtime.clock() - begin)
    with FlopCounterMode(display=False) as counter:
        work()
    with profile() as recorded:
        work()
    time_of = attrgetter(by_device(cpu="self_cpu_time_total", gpu="self_device_time_total"))
    events = [event for event in recorded.key_averages() if event.device_type == DeviceType.CPU]
    total = sum(map(time_of, events))
    slowest = sorted(events, key=time_of, reverse=True)[:4]
    shares = [(event.key.removeprefix("aten::"), time_of(event) / total) for event in slowest]
    return best, counter.get_total_flops(), shares


def _extraction():
    network = pretrained.build("efficientnet_lite0").to(runtime.device())
    network = features.fold_batch_norms(network, ["head"])
    count = runtime.images_at_once(runtime.device())
    images = torch.rand(count, 3, network.input_size, network.input_size).to(runtime.device())
    images = images.contiguous(memory_format=torch.channels_last)

    def work():
        with torch.inference_mode():
            network.features(images, ["head"])

    return f"features of EfficientNet-Lite0, batch of {count}", work


def _training(name, step, networks, optimizers, learning_rate):
    """Return (name, step, the same as `training.run` takes it: on a GPU from a graph)."""
    rate = torch.tensor(learning_rate, device=runtime.device())
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    state = training.State(dict(enumerate(networks)), dict(enumerate(optimizers)))
    runner = training._StepRunner(step, state, name)
    return name, step, lambda: runner.take(1)


def _dann():
    torch.manual_seed(0)
    network = steps.to_device(dann.DANN())
    optimizer = steps.optimizer(torch.optim.Adam, network)
    x_s, x_t = torch.rand(2, 64, 3, 28, 28).to(runtime.device())
    y_s = torch.arange(64).to(runtime.device()) % 10
    λ = torch.ones((), device=runtime.device())

    def step():
        adaptation.dann_step(network, optimizer, x_s, y_s, x_t, λ)

    return _training("a step of DANN, 64 + 64 images", step, [network], [optimizer], 1e-3)


def _gan(name, kinds):
    torch.manual_seed(0)
    networks = [steps.to_device(kind().apply(gan.init_weights)) for kind in kinds]
    optimizers = [steps.optimizer(torch.optim.Adam, n, betas=(0.5, 0.999)) for n in networks]
    settings = gans.Settings()
    real = torch.rand(128, 1, 32, 32).to(runtime.device())
    labels = torch.arange(128).to(runtime.device()) % 10
    labels = labels if networks[0].classes is not None else None
    z = torch.randn(128, networks[0].latent).to(runtime.device())

    def step():
        gans.gan_step(networks, optimizers, [(real, labels)], [z], settings)

    return _training(f"a step of {name}, batch of 128", step, networks, optimizers, 2e-4)


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
        _gan("DCGAN", (gan.DCGANGenerator, gan.DCGANDiscriminator)),
        _gan("cDCGAN", (gan.ConditionalDCGANGenerator, gan.ConditionalDCGANDiscriminator)),
    ]
    with runtime.chosen_kernels(runtime.device(), tf32=True):
        for (name, *work), lever in zip(works, LEVERS, strict=True):
            best = max(best, peak())
            seconds, operations, slowest = measure(*work)
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
    print(f"Matrix products: {best / 1e9:.0f} billion operations per second at best")
    for row in found:
        row["share of the peak"] = 1e9 * row["billion operations"] / row["seconds"] / best
        print(f"{row['work']}: {row['share of the peak']:.0%} of the peak")
    return found


def table(rows):
    """Return rows as a Markdown table."""
    best = rows[0]["billion operations"] / rows[0]["seconds"] / rows[0]["share of the peak"]
    lines = [
        f"The peak, {best:,.0f} billion operations per second, is the fastest product of matrices "
        "that was measured in between. What a convolution multiplies by its padding counts as "
        "work: those that leave it out may seem to exceed the peak.",
        "",
        "| work | seconds | billion operations | of the peak | slowest operators | next lever |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        slowest = ", ".join(f"{name} {share:.0%}" for name, share in row["slowest"])
        lines.append(
            f"| {row['work']} | {row['seconds']:.3g} | {row['billion operations']:.1f} | "
            f"**{row['share of the peak']:.0%}** | {slowest} | {row['next lever']} |"
        )
    return "\n".join(lines)
