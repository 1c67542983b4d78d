"""How time and memory grow with the number of images; on a CPU each point in its own process.

python benchmarks/growth.py TASK COUNT     # prints one point, as JSON
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from compare import by_device, folder

from dlapps import adaptation, gans, plotting, runtime
from dlapps.datasets import ImageSet
from dlapps.files import atomic_path
from dlapps.models import dann, features, gan, pretrained
from dlapps.visualization import class_images, saliency, white_box


def _digits(count):
    images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % 10, tuple("0123456789"), "noise")


def _photographs(count, size=224):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def extraction(count):
    network = pretrained.load("efficientnet_lite0")
    images = _photographs(count)
    return lambda: features.extract(network, images, ["head"], cache=False, quiet=True)


def attribution(count):
    network = features.fold_batch_norms(pretrained.load("efficientnet_lite0"))
    images = network.prepare(_photographs(count))
    labels = torch.zeros(count, dtype=torch.int64)
    return lambda: saliency.integrated_gradients(network, images, labels, steps=3)


def attack(count):
    network = features.fold_batch_norms(pretrained.load("efficientnet_lite0"))
    images = network.prepare(_photographs(count))
    with torch.no_grad():
        labels = torch.cat([network(part).argmax(1) for part in images.split(8)])
    return lambda: white_box.ddn(network, images, labels, steps=3)


def classes(count):
    network = features.fold_batch_norms(pretrained.load("efficientnet_lite0"))
    return lambda: class_images.maximise(network, torch.arange(count), iterations=3)


def dann_epoch(count):
    part = _digits(count)
    tests = part.subset(range(64)), part.subset(range(64))
    settings = adaptation.Settings(epochs=1, batch_size=64)
    return lambda: adaptation.train(dann.DANN(), part, part.images, settings, tests=tests)


def gan_epoch(count):
    images = torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8)
    networks = gan.DCGANGenerator(), gan.DCGANDiscriminator()
    settings = gans.Settings(epochs=1)
    fixed = gans.fixed_inputs(networks[0], 1)
    return lambda: gans.train(*networks, images, None, settings, fixed=fixed)


# A task, what it is called, the counts it is run with, and what is counted.
TASKS = {
    "extraction": (extraction, "features", (16, 32, 64, 128, 256), "images"),
    "attribution": (attribution, "integrated gradients", (4, 8, 16, 32), "images"),
    "attack": (attack, "shortest change", (4, 8, 16, 32), "images"),
    "classes": (classes, "class images", (2, 4, 8, 16), "classes"),
    "dann": (dann_epoch, "DANN, an epoch", (512, 1024, 2048, 4096), "images"),
    "gan": (gan_epoch, "DCGAN, an epoch", (512, 1024, 2048, 4096), "images"),
}


def point(task, count):
    """Return the seconds and the MiB that a task of `count` takes beyond what it begins with.

    The memory is the device's.
    """
    torch.manual_seed(0)
    work = TASKS[task][0](count)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    before = _most_memory()
    begin = runtime.clock()
    work()
    seconds = runtime.clock() - begin
    return {"count": count, "seconds": seconds, "MiB": (_most_memory() - before) / 2**20}


def _most_memory():
    """Return the most bytes that were in use at once: of a GPU, or by this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _in_a_process(task, count):
    """Return a point from a process of its own, whose memory nothing else has raised."""
    command = [sys.executable, str(Path(__file__).resolve()), task, str(count)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(finished.stdout.strip().splitlines()[-1])


def rows():
    """Return {task: its points}, and draw them."""
    found = {}
    measure = by_device(cpu=_in_a_process, gpu=point)
    for task, (_, name, counts, _) in TASKS.items():
        counts = [by_device(cpu=1, gpu=8) * count for count in counts]
        if torch.cuda.is_available():
            point(task, counts[0])  # so that no point pays for what a process prepares once
        found[task] = [measure(task, count) for count in runtime.progress(counts, name)]
    draw(found, folder() / "growth.png")
    return found


def draw(found, path):
    """Draw time and memory over the count, each as a multiple of the smallest one's."""
    plotting.style.apply()
    panels = {
        (name, f"times the {name}"): {
            TASKS[task][1]: (
                [point["count"] / points[0]["count"] for point in points],
                [max(point[key], 1e-3) / max(points[0][key], 1e-3) for point in points],
            )
            for task, points in found.items()
        }
        for key, name in {"seconds": "time", "MiB": "memory"}.items()
    }
    figure = plotting.curve_panels(
        panels, "times the images or classes", "Growth (grey: as the work)", legend_columns=3
    )
    for ax in figure.axes:
        doubling = [1, 2, 4, 8, 16]
        ax.plot(doubling, doubling, color="0.8", linewidth=4, zorder=0)  # grows as the work does
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=2)
        ax.set(ylim=(0.5, 20), xticks=doubling, yticks=doubling)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_major_formatter("{x:g}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)


def table(found):
    """Return the points as a Markdown table."""
    lines = ["| task | count | seconds | MiB more |", "|---|---|---|---|"]
    for task, (_, name, _, unit) in TASKS.items():
        for one in found[task]:
            lines.append(
                f"| {name} | {one['count']:,} {unit} | {one['seconds']:.2f} | {one['MiB']:.0f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(point(sys.argv[1], int(sys.argv[2]))))
