"""Killed, full, forbidden, out of memory: nothing is lost, and no half file is read as whole."""

import errno
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import forkserver
from pathlib import Path

import fault_tasks
import pytest
import torch
from PIL import Image

from dlapps import datasets, files, runtime
from dlapps.artifacts import Artifacts
from dlapps.datasets import DatasetError, ImageSet, download, folders
from dlapps.models import features, pretrained
from dlapps.transfer import fine_tuning
from dlapps.visualization import black_box, saliency, white_box

KILLS = 50
SERVED = {"/file": fault_tasks.FILE, "/archive.zip": fault_tasks.archive()}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        content = SERVED[self.path]
        wanted = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        first, total = int(wanted), len(content)
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - first))
        self.end_headers()
        for begin in range(first, total, 2**16):
            try:
                self.wfile.write(content[begin : begin + 2**16])
            except OSError:
                return  # the client was killed
            time.sleep(0.005)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with everything imported, so that kills fall into the work itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fault_tasks", "pytest"])
    with pytest.MonkeyPatch.context() as patch:
        # The server takes over the environment, not the path on which the tests were found.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("NO_PROXY", "127.0.0.1")
        forkserver.ensure_running()
    return context


def start(processes, task, folder, address):
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(
        target=fault_tasks.work, args=(task, str(folder), address, sender), daemon=True
    )
    process.start()
    sender.close()
    assert receiver.recv() == "begun"
    return process, receiver


def finish(process, receiver):
    result = receiver.recv()
    process.join()
    return result


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def check_whole(folder):
    """Every file that is not hidden can be read to its end."""
    for path in folder.rglob("*"):
        if not path.is_file() or any(p.startswith(".") for p in path.relative_to(folder).parts):
            continue
        if path.suffix == ".pt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        elif path.parent == folder and path.suffix in (".bin", ".zip"):
            assert path.read_bytes() in SERVED.values()
    if (folder / "archive").exists():
        assert fault_tasks.content(folder / "archive") == fault_tasks.MEMBERS


@pytest.mark.slow
@pytest.mark.parametrize("task", fault_tasks.TASKS)
def test_killed_work_ends_as_if_it_had_not_been(processes, tmp_path, address, task):
    """SIGKILL at 50 random moments; the work goes on after each until it is done, then anew."""
    (tmp_path / "whole").mkdir()
    process, receiver = start(processes, task, tmp_path / "whole", address)
    begin = time.perf_counter()  # the first start waits until everything is imported
    expected = finish(process, receiver)
    duration = time.perf_counter() - begin
    left = names(tmp_path / "whole")

    chance = random.Random(0)
    kills = struck = rounds = 0
    while kills < KILLS:
        folder = tmp_path / f"round{rounds}"
        folder.mkdir()
        rounds += 1
        done = False
        while not done and kills < KILLS:
            anew = not any(folder.iterdir())
            process, receiver = start(processes, task, folder, address)
            begin = time.perf_counter()
            done = receiver.poll(duration * chance.random())
            if done:
                assert finish(process, receiver) == expected
                if anew:  # the machine is less busy than before
                    duration = time.perf_counter() - begin
            else:
                process.kill()
                process.join()
                kills += 1
                struck += any(folder.iterdir())
                check_whole(folder)
        process, receiver = start(processes, task, folder, address)
        assert finish(process, receiver) == expected
        assert names(folder) == left  # nothing lies about, nothing is missing
    print(f"{task}: {kills} kills in {rounds} rounds, {struck} of them after the first write")
    assert struck >= KILLS / 4


@pytest.mark.parametrize("task", [name for name in fault_tasks.TASKS if name != "artifacts"])
def test_two_at_once_in_an_empty_folder_do_not_disturb_each_other(
    processes, tmp_path, address, task
):
    for folder in ("alone", "both"):
        (tmp_path / folder).mkdir()
    expected = finish(*start(processes, task, tmp_path / "alone", address))
    both = [start(processes, task, tmp_path / "both", address) for _ in range(2)]
    assert [finish(*one) for one in both] == [expected, expected]
    check_whole(tmp_path / "both")
    assert names(tmp_path / "both") == names(tmp_path / "alone")


# --- no room, no permission, another clock


@pytest.fixture
def small_disk(tmp_path):
    """Yield a file system of its own and a function that leaves so many bytes free on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only an administrator of Linux may mount a small file system")

    def leave(size):
        filler = folder / ".filler"
        filler.unlink(missing_ok=True)
        if size is not None:
            filler.write_bytes(bytes(shutil.disk_usage(folder).free - size))

    yield folder, leave
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("task", fault_tasks.TASKS)
def test_on_a_full_disk_work_ends_with_a_word_and_goes_on_when_there_is_room(
    processes, small_disk, tmp_path, address, task
):
    (tmp_path / "whole").mkdir()
    expected = finish(*start(processes, task, tmp_path / "whole", address))
    folder, leave = small_disk
    results = []
    # Room for nothing; for a download, but not for what is in it; for all.
    for size in (100_000, 4_000_000, None):
        leave(size)
        results.append(finish(*start(processes, task, folder, address)))
        check_whole(folder)
    *before, last = results
    assert last == expected
    assert names(folder) == names(tmp_path / "whole")
    failures = [result for result in before if result != expected]
    assert failures
    for failure in failures:
        reason = failure[failure.rindex("Error: ") :]
        assert os.strerror(errno.ENOSPC) in reason or " MiB are free" in reason
        assert str(folder) in failure


@contextmanager
def files_of_at_most(size):
    """Let no file grow beyond `size` bytes: as on a full disk, and anybody may."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_without_room_leaves_the_one_before(tmp_path):
    path = tmp_path / "state.pt"
    files.save_checkpoint(path, "made", {"step": 1})
    message = rf"{re.escape(str(path))} could not be written \([\d,]+ MiB are free"
    with pytest.raises(OSError, match=message), files_of_at_most(20_000):
        files.save_checkpoint(path, "made", {"weights": torch.zeros(100_000)})
    assert files.load_checkpoint(path, "made") == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_without_room_leave_those_before(tmp_path, monkeypatch):
    monkeypatch.setenv("DLAPPS_FIGURES", str(tmp_path))
    monkeypatch.setenv("DLAPPS_PROFILE", "quick")
    results = Artifacts("1_faults")
    results.record({"one": 1}, unit="", data="", model="", seed=0)
    with pytest.raises(OSError, match=r"1_faults\.json") as caught, files_of_at_most(20_000):
        results.record({"two": 2}, unit="u" * 30_000, data="", model="", seed=0)
    assert caught.value.errno == errno.EFBIG
    assert list(json.loads((tmp_path / "quick" / "1_faults.json").read_text())) == ["one"]
    assert names(tmp_path / "quick") == ["1_faults.json", "1_faults.versions.json"]


def test_an_archive_without_room_to_unpack_is_kept(tmp_path, monkeypatch, address):
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    archive = tmp_path / "archive.zip"
    arguments = [f"{address}/archive.zip"], archive, tmp_path / "archive"

    def check(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    with pytest.raises(DatasetError, match=os.strerror(errno.ENOSPC)):
        download.fetch_archive(*arguments, check)
    assert archive.read_bytes() == SERVED["/archive.zip"]
    assert list(tmp_path.iterdir()) == [archive]


def test_a_read_only_file_system_is_only_read(small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "project_root", lambda: tmp_path)
    folder, _ = small_disk
    monkeypatch.setenv("DLAPPS_DATA", str(folder))
    (folder / "set").mkdir()
    Image.new("RGB", (40, 40), (200, 0, 0)).save(folder / "set" / "one.png")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    for _ in range(2):
        assert datasets.load(f"folder:{folder / 'set'}").images[0, :, 9, 9].tolist() == [200, 0, 0]
    assert len(list((tmp_path / "data" / "cache").iterdir())) == 1
    with pytest.raises(OSError, match=rf"{folder}/state\.pt") as caught:
        files.save_checkpoint(folder / "state.pt", "made", {"step": 1})
    assert caught.value.errno == errno.EROFS


@pytest.fixture
def forbidden():
    """A folder that may be read and not written, by a user who is not the administrator."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        (folder / "secret.pt").write_bytes(b"secret")
        (folder / "secret.png").write_bytes(b"secret")
        for secret in folder.iterdir():
            secret.chmod(0)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # nobody
        yield folder
        os.seteuid(user)
        folder.chmod(0o755)


def test_what_may_not_be_written_or_read_is_named(forbidden, address, monkeypatch):
    monkeypatch.setenv("DLAPPS_FIGURES", str(forbidden))
    monkeypatch.setenv("DLAPPS_PROFILE", "quick")
    refused = os.strerror(errno.EACCES)
    with pytest.raises(PermissionError, match=rf"{refused}: .*{forbidden}/state\.pt"):
        files.save_checkpoint(forbidden / "state.pt", "made", {"step": 1})
    with pytest.raises(PermissionError, match=f"{refused}: .*{forbidden}"):
        Artifacts("1_faults").record({"one": 1}, unit="", data="", model="", seed=0)
    with pytest.raises(DatasetError, match=rf"{refused}(?s:.*){forbidden}/file\.bin"):
        download.fetch([f"{address}/file"], forbidden / "file.bin")
    with pytest.raises(DatasetError, match=rf"{forbidden}/secret\.png cannot be read.*{refused}"):
        folders.read_image(forbidden / "secret.png")
    with pytest.raises(PermissionError, match=rf"{refused}: .*{forbidden}/secret\.pt"):
        files.load_checkpoint(forbidden / "secret.pt", "made")
    assert names(forbidden) == ["secret.png", "secret.pt"]


def test_a_clock_that_was_moved_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    network = pretrained.build("squeezenet1_1")
    arguments = network, fault_tasks.noise(8, 3, 64), ["fire9"]
    first = features.extract(*arguments, sizes=[64])
    for path in tmp_path.rglob("*.pt"):
        os.utime(path, (2**33, 2**33))  # in the year 2242
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(type(network), "features", None)  # from now on only read
    again = features.extract(*arguments, sizes=[64])
    assert torch.equal(first["fire9"], again["fire9"])


# --- out of memory


OUT_OF_MEMORY = {
    "CPU": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    "GPU": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
}


class Hungry(torch.nn.Module):
    """A network that has memory for `most` images at once."""

    def __init__(self, network, most, error):
        super().__init__()
        self.network, self.most, self.error = network, most, error

    def forward(self, images):
        if len(images) > self.most:
            raise self.error
        return self.network(images)


def starve(network, most, error):
    network.body = Hungry(network.body, most, error)
    network.layer_modules = {
        layer: f"network.{module}" for layer, module in network.layer_modules.items()
    }


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_out_of_memory_halves_the_batch_and_says_so(capsys, error):
    torch.manual_seed(0)
    network = pretrained.build("squeezenet1_1")
    images = fault_tasks.noise(10, 3, 64)
    arguments = {"sizes": [64], "cache": False, "quiet": True}
    expected = features.extract(network, images, ["fire9"], **arguments)
    starve(network, 2, error)
    found = features.extract(network, images, ["fire9"], batch_size=9, **arguments)
    torch.testing.assert_close(found["fire9"], expected["fire9"])
    assert re.findall(r"batch_size (\d+)", capsys.readouterr().out) == ["4", "2"]

    network.body.most = 0
    with pytest.raises(MemoryError, match=r"sizes is \[64\]"):
        features.extract(network, images, ["fire9"], **arguments)


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
@pytest.mark.parametrize(
    "compute",
    [
        saliency.gradient, saliency.smooth_gradient, saliency.integrated_gradients,
        saliency.grad_cam, white_box.fgsm, white_box.pgd, white_box.carlini_wagner,
        white_box.ddn, black_box.square, black_box.nes, black_box.one_pixel,
        white_box.fool,
    ],
)  # fmt: skip
def test_out_of_memory_in_maps_and_attacks_says_what_to_lower(compute, error):
    network = pretrained.build("squeezenet1_1")
    starve(network, 1, error)
    with pytest.raises(MemoryError, match=r"images is a batch of 2: .*set a smaller one"):
        compute(network, torch.rand(2, 3, 64, 64), [1, 2])


def test_out_of_memory_in_fine_tuning_says_what_to_lower():
    model = fine_tuning.Classifier(pretrained.build("squeezenet1_1"), 2)
    starve(model.network, 2, OUT_OF_MEMORY["CPU"])
    data = ImageSet(fault_tasks.noise(8, 3, 64), torch.arange(8) % 2, ("a", "b"), "noise")
    settings = fine_tuning.Settings(epochs=1, batch_size=4, size=64)
    with pytest.raises(MemoryError, match=r"batch_size is 4: .*set a smaller one"):
        fine_tuning.train(model, data, settings)


def test_out_of_memory_is_told_from_other_errors():
    with (
        pytest.raises(MemoryError, match="batch_size is 128"),
        runtime.naming_memory("batch_size", 128),
    ):
        torch.empty(2**62, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="size"), runtime.naming_memory("batch_size", 128):
        torch.zeros(2) @ torch.zeros(3)
