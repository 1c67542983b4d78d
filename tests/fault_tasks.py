"""Work that `test_faults.py` kills: a task starts or goes on in a folder, and says its result."""

import hashlib
import io
import os
import sys
import traceback
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from dlapps import adaptation, gans, runtime, training
from dlapps.artifacts import Artifacts
from dlapps.datasets import ImageSet, download
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint
from dlapps.models import dann, features, gan, pretrained

FILE = hashlib.shake_256(b"a file to download").digest(3_000_000)
MEMBERS = {
    f"folder{i % 7}/{i}.bin": hashlib.shake_256(bytes([i])).digest(30_000) for i in range(99)
}


def archive():
    """Return the bytes of a zip archive of MEMBERS."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as writer:
        for name, data in MEMBERS.items():
            writer.writestr(name, data)
    return buffer.getvalue()


def noise(count, channels, side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = count, channels, side, side
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def content(folder):
    """Return {name: bytes} of all files below a folder that are not hidden."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def extraction(folder, address):
    os.environ["DLAPPS_DATA"] = str(folder)
    features.SAVED_EVERY = 8
    torch.manual_seed(0)
    network = pretrained.build("squeezenet1_1")
    found = features.extract(
        network, noise(96, 3, 64), ["fire8", "fire9"], sizes=[64], batch_size=4
    )
    return fingerprint(found)


def domain_adaptation(folder, address):
    training.SECONDS_BETWEEN_CHECKPOINTS = 0
    torch.manual_seed(0)
    network = dann.DANN()
    source, target = (
        ImageSet(noise(48, 3, 28, seed), torch.arange(48) % 10, tuple("0123456789"), "noise")
        for seed in (0, 1)
    )
    settings = adaptation.Settings(epochs=6, batch_size=16)
    tests = source.subset(range(16)), target.subset(range(16))
    history = adaptation.train(
        network, source, target.images, settings, tests=tests, checkpoint=folder / "dann.pt"
    )
    return fingerprint(network.state_dict(), history)


def gan_training(folder, address):
    training.SECONDS_BETWEEN_CHECKPOINTS = 0
    torch.manual_seed(0)
    networks = gan.DCGANGenerator(width=4), gan.DCGANDiscriminator(width=4)
    history = gans.train(
        *networks,
        noise(96, 1, 32),
        None,
        gans.Settings(epochs=2, batch_size=8),
        fixed=gans.fixed_inputs(networks[0], 4),
        snapshots=(0, 10, 20),
        checkpoint=folder / "gan.pt",
    )
    return fingerprint(
        *(n.state_dict() for n in networks), history.records, *history.snapshots.values()
    )


def fetched(folder, address):
    checksum = "sha256:" + hashlib.sha256(FILE).hexdigest()
    path = download.fetch([f"{address}/file"], folder / "file.bin", checksum)
    return fingerprint(path.read_bytes())


def unpacked(folder, address):
    def check(found):
        if content(found) != MEMBERS:
            raise download.DatasetError(f"{found} is incomplete")

    os.environ["DLAPPS_DATA"] = str(folder)
    archive, destination = folder / "archive.zip", folder / "archive"
    download.fetch_archive([f"{address}/archive.zip"], archive, destination, check)
    return fingerprint(*content(destination).values())


def artifacts(folder, address):
    runtime.project_root = lambda: folder
    os.environ["DLAPPS_PROFILE"] = "quick"
    results = Artifacts("1_faults")
    for number in range(6):
        results.record({f"number_{number}": number / 7}, unit="", data="", model="", seed=0)
        figure, axes = plt.subplots(figsize=(3, 2))
        axes.plot([0, number])
        results.save_figure(figure, f"figure_{number % 3}")
        plt.close(figure)
        save_checkpoint(folder / "state.pt", "made", {"values": torch.full((50_000,), number)})
    assert load_checkpoint(folder / "state.pt", "made")["values"][0] == 5
    kept = {name: data for name, data in content(folder).items() if name != "state.pt"}
    return fingerprint(*kept.values())


TASKS = {
    task.__name__: task
    for task in (extraction, domain_adaptation, gan_training, fetched, unpacked, artifacts)
}


def work(name, folder, address, pipe):
    """Do a task and send its result, or what went wrong; what it prints is thrown away."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same bits are promised on a CPU alone
    torch.set_num_threads(1)
    runtime.seed_everything(0)
    pipe.send("begun")
    try:
        pipe.send(TASKS[name](Path(folder), address))
    except Exception:
        pipe.send(traceback.format_exc())
