"""Downloads from a real local server, archives made to do harm, and nothing left half-done."""

import gzip
import hashlib
import io
import os
import re
import socket
import struct
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import MNIST

from dlapps import datasets
from dlapps.datasets import DatasetError, archives, bsds500, download, imagenet, scenes
from dlapps.files import temporary_path

CONTENT = bytes(range(256)) * 300


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        kind = self.path.strip("/").split("/")[0]
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", "/" + self.path.removeprefix("/redirect/"))
            self.end_headers()
            return
        if kind == "silent":
            self.server.silence.wait(5)
            return
        if kind == "slow":  # a first part, and then silence
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:70_000])
            self.server.silence.wait(5)
            return
        body = self.server.files.get(self.path)
        self.server.ranges.append(self.headers.get("Range"))
        if body is None:
            self.send_error(404)
            return
        if kind == "ranges" and self.headers.get("Range"):
            first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if first >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            body = body[first:]
        else:
            self.send_response(200)
        if self.path.endswith(".gz") and "gzip" in self.headers.get("Accept-Encoding", ""):
            self.send_header("Content-Encoding", "gzip")  # as some servers do: clients then unpack
        self.send_header("Content-Length", str(len(body) + (1000 if kind == "cut" else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A web server: `files` maps a path to its bytes; "/cut/…" promises more than it sends."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path / "data"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.requests, server.ranges = {"/file.bin": CONTENT}, [], []
        server.silence = threading.Event()
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.silence.set()
        server.shutdown()


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def jpeg(size=(30, 20)):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0]), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tgz_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, content in members:
            member = tarfile.TarInfo(member) if isinstance(member, str) else member
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def tar_note(kind, size):
    """A compressed tar archive that begins with a note of so many zeros, or that says so."""
    header = tarfile.TarInfo("note")
    header.type, header.size = kind, size
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb") as archive:
        archive.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(max(size, 0)))
    return buffer.getvalue()


def lying_zip(content, declared):
    """A zip archive of one file that unpacks to more than both of its headers say."""
    packed = zip_of({"big.txt": content})
    true, false = (struct.pack("<I", size) for size in (len(content), declared))
    assert packed.count(true) == 2
    return packed.replace(true, false)


def accept(folder):
    pass


# --- fetch


def test_fetch_writes_the_file_once(server, tmp_path):
    for _ in range(2):
        path = download.fetch(
            [f"{server.address}/file.bin"], tmp_path / "new" / "file.bin", sha256(CONTENT)
        )
        assert path.read_bytes() == CONTENT
    assert server.requests == ["/file.bin"]
    assert names(tmp_path) == ["new/file.bin"]


def test_fetch_follows_a_redirection(server, tmp_path):
    path = download.fetch([f"{server.address}/redirect/file.bin"], tmp_path / "f", sha256(CONTENT))
    assert path.read_bytes() == CONTENT


def test_fetch_falls_back_on_the_next_mirror(server, tmp_path):
    server.files |= {"/wrong": b"something else", "/cut/file": CONTENT, "/page": b"<!DOCTYPE html>"}
    mirrors = ["/no", "/wrong", "/page", "/cut/file", "/file.bin"]
    urls = [server.address + mirror for mirror in mirrors]
    assert download.fetch(urls, tmp_path / "f", sha256(CONTENT)).read_bytes() == CONTENT
    assert server.requests == mirrors


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("wrong", b"something else", "expected " + sha256(CONTENT)),
        ("page", b"\n <HTML><body>Sign in</body>", "web page"),
        ("redirect/page", b"\n <HTML><body>Sign in</body>", "web page"),
        ("empty", b"", "empty"),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        ("missing", None, "404"),
    ],
)
def test_fetch_says_why_and_leaves_nothing(server, tmp_path, path, body, reason):
    if body is not None:
        server.files["/" + path.removeprefix("redirect/")] = body
    with pytest.raises(DatasetError, match=reason) as caught:
        download.fetch([f"{server.address}/{path}"], tmp_path / "f.bin", sha256(CONTENT))
    assert f"{server.address}/{path}" in str(caught.value)
    assert str(tmp_path / "f.bin") in str(caught.value)  # where to put it by hand
    assert names(tmp_path) == []


def test_fetch_names_every_mirror_that_failed(server, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{unused.getsockname()[1]}/f"
    with pytest.raises(DatasetError) as caught:
        download.fetch([refused, f"{server.address}/missing"], tmp_path / "f.bin")
    assert refused in str(caught.value)
    assert "refused" in str(caught.value)
    assert f"{server.address}/missing" in str(caught.value)


def test_fetch_does_not_wait_for_ever(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with pytest.raises(DatasetError, match="timed out"):
        download.fetch([f"{server.address}/silent"], tmp_path / "f")
    assert names(tmp_path) == []


def test_a_download_that_falls_silent_midway_is_gone_on_with(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.files["/ranges/f"] = CONTENT
    urls = [f"{server.address}/slow/f", f"{server.address}/ranges/f"]
    assert download.fetch(urls, tmp_path / "f", sha256(CONTENT)).read_bytes() == CONTENT
    assert server.ranges == ["bytes=65536-"]  # what is written is written in parts of 64 KiB
    assert names(tmp_path) == ["f"]


def test_fetch_shows_its_progress(server, tmp_path, capsys):
    download.fetch([f"{server.address}/file.bin"], tmp_path / "file.bin")
    assert "file.bin: 100%" in capsys.readouterr().out


def test_fetch_refuses_a_damaged_file_that_is_already_there(server, tmp_path):
    (tmp_path / "f").write_bytes(CONTENT[:-1])
    with pytest.raises(DatasetError, match="Delete it"):
        download.fetch([f"{server.address}/file.bin"], tmp_path / "f", sha256(CONTENT))
    assert (tmp_path / "f").read_bytes() == CONTENT[:-1]
    assert server.requests == []


def test_a_download_that_broke_off_is_gone_on_with(server, tmp_path):
    server.files |= {"/cut/file": CONTENT[:70_000], "/ranges/file": CONTENT}
    with pytest.raises(DatasetError, match=r"ended after 70,000 of 71,000|IncompleteRead"):
        download.fetch([f"{server.address}/cut/file"], tmp_path / "f", sha256(CONTENT))
    assert not (tmp_path / "f").exists()
    path = download.fetch([f"{server.address}/ranges/file"], tmp_path / "f", sha256(CONTENT))
    assert path.read_bytes() == CONTENT
    # Some versions of urllib3 give away the last part of less than 64 KiB, some do not.
    assert server.ranges[-1] in ("bytes=65536-", "bytes=70000-")
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("kind", ["", "/ranges"])
def test_a_part_that_does_not_fit_is_thrown_away(server, tmp_path, kind):
    """It is that of another file, or already too long, or the server knows no ranges."""
    server.files["/ranges/file.bin"] = CONTENT
    for part in (b"other" * 100, CONTENT, CONTENT + b"more"):
        (tmp_path / ".f.part").write_bytes(part)
        download.fetch([f"{server.address}{kind}/file.bin"], tmp_path / "f", sha256(CONTENT))
        assert (tmp_path / "f").read_bytes() == CONTENT
        assert names(tmp_path) == ["f"]
        (tmp_path / "f").unlink()


def test_without_a_checksum_a_download_starts_anew(server, tmp_path):
    (tmp_path / ".f.part").write_bytes(CONTENT[:1000])
    server.files["/ranges/f"] = CONTENT
    download.fetch([f"{server.address}/ranges/f"], tmp_path / "f")
    assert server.ranges == [None]
    assert names(tmp_path) == ["f"]


def test_an_interruption_leaves_nothing_that_is_read_as_whole(server, tmp_path, monkeypatch):
    def interrupted(url, file, description):
        file.write(CONTENT[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_append", interrupted)
    for checksum, left in [(None, []), (sha256(CONTENT), [".f.part"])]:
        with pytest.raises(KeyboardInterrupt):
            download.fetch([f"{server.address}/file.bin"], tmp_path / "f", checksum)
        assert names(tmp_path) == left


def test_what_a_killed_download_left_is_gone_on_with(server, tmp_path, monkeypatch):
    server.files["/ranges/f"] = CONTENT
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 2**30)  # there is no such process
        folder = temporary_path(tmp_path / "f")
    folder.mkdir()
    (folder / "tmp1").write_bytes(CONTENT[:1000])
    download.fetch([f"{server.address}/ranges/f"], tmp_path / "f", sha256(CONTENT))
    assert server.ranges == ["bytes=1000-"]
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/f", "f.bin"])
def test_an_address_that_is_not_of_the_web_is_refused_by_name(tmp_path, url):
    with pytest.raises(DatasetError, match=rf"{re.escape(url)}: (InvalidSchema|MissingSchema)"):
        download.fetch([url], tmp_path / "f")
    assert names(tmp_path) == []


def test_md5_is_understood(server, tmp_path):
    checksum = "md5:" + hashlib.md5(CONTENT).hexdigest()
    assert download.fetch([f"{server.address}/file.bin"], tmp_path / "f", checksum).exists()
    with pytest.raises(DatasetError, match="md5"):
        download.fetch([f"{server.address}/file.bin"], tmp_path / "g", "md5:" + "0" * 32)


# --- archives whose checksum is not known beforehand


def test_the_checksum_is_recorded_once_the_content_is_right(server, tmp_path):
    data = tmp_path / "data"
    server.files["/a.zip"] = archive = zip_of({"x/one.txt": b"1"})
    arguments = ([f"{server.address}/a.zip"], data / "a.zip", data / "a")
    download.fetch_archive(*arguments, accept)
    assert names(data) == ["a.zip", "a.zip.sha256", "a/x/one.txt"]
    assert (data / "a.zip.sha256").read_text().split()[0] == hashlib.sha256(archive).hexdigest()

    download.fetch_archive(*arguments, accept)  # there already
    assert server.requests == ["/a.zip"]

    (data / "a.zip").unlink()
    server.files["/a.zip"] = zip_of({"x/one.txt": b"2"})
    with pytest.raises(DatasetError, match=hashlib.sha256(archive).hexdigest()):
        download.fetch_archive(arguments[0], data / "a.zip", data / "b", accept)
    assert not (data / "a.zip").exists()
    assert not (data / "b").exists()


def test_an_archive_with_the_wrong_content_is_not_kept(server, tmp_path):
    def check(folder):
        raise DatasetError(f"{folder} holds 1 file, expected 2")

    server.files["/a.zip"] = zip_of({"x/one.txt": b"1"})
    data = tmp_path / "data"
    with pytest.raises(DatasetError, match=r"a\.zip holds 1 file, expected 2"):
        download.fetch_archive([f"{server.address}/a.zip"], data / "a.zip", data / "a", check)
    assert names(data) == []


def test_an_archive_put_there_by_hand_is_used_and_never_deleted(server, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.zip").write_bytes(zip_of({"x/one.txt": b"1"}))
    download.fetch_archive([], data / "a.zip", data / "a", accept)
    assert (data / "a/x/one.txt").read_bytes() == b"1"

    (data / "b.zip").write_bytes(b"no archive")
    with pytest.raises(DatasetError, match=r"b\.zip"):
        download.fetch_archive([], data / "b.zip", data / "b", accept)
    assert (data / "b.zip").exists()


def test_a_folder_that_is_in_the_way_is_checked_and_left_alone(server, tmp_path):
    def check(folder):
        raise DatasetError(f"{folder} is incomplete")

    data = tmp_path / "data"
    (data / "a").mkdir(parents=True)
    (data / "a" / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"incomplete\. It is in the way"):
        download.fetch_archive([f"{server.address}/a.zip"], data / "a.zip", data / "a", check)
    assert names(data) == ["a/mine.txt"]
    assert server.requests == []


def test_archives_may_lie_elsewhere_than_what_is_in_them(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DLAPPS_ARCHIVES", str(tmp_path / "drive"))
    monkeypatch.setattr(bsds500, "URLS", (f"{server.address}/b.tgz",))
    monkeypatch.setattr(bsds500, "COUNT", 4)
    members = [(f"{bsds500.IN_ARCHIVE}/{i}.jpg", jpeg((40, 30))) for i in range(4)]
    server.files["/b.tgz"] = tgz_of(members)
    for machine in ("one", "two"):  # the second one finds the archive, and nothing unpacked
        monkeypatch.setenv("DLAPPS_DATA", str(tmp_path / machine))
        assert len(bsds500.training_photographs()) == 4
        assert len(names(tmp_path / machine)) == 4
    assert names(tmp_path / "drive") == ["BSR_bsds500.tgz", "BSR_bsds500.tgz.sha256"]
    assert server.requests == ["/b.tgz"]


# --- extract


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zip_link(name):
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o120777 << 16
    return member


HARMFUL = {
    "zip: parent": (zip_of({"../out.txt": b"x"}), "leads out"),
    "zip: parent below": (zip_of({"a/../../out.txt": b"x"}), "leads out"),
    "zip: absolute": (zip_of({"/out.txt": b"x"}), "leads out"),
    "zip: backslash": (zip_of({"..\\out.txt": b"x"}), "leads out"),
    "zip: drive": (zip_of({"C:\\out.txt": b"x"}), "leads out"),
    "zip: link": (zip_of({zip_link("l.txt"): "/etc/passwd"}), "link"),
    "tgz: parent": (tgz_of([("../out.txt", b"x")]), "leads out"),
    "tgz: absolute": (tgz_of([("/out.txt", b"x")]), "leads out"),
    "tgz: through a link": (
        tgz_of([(link("l.txt", "/etc"), b""), ("l.txt/out.txt", b"x")]),
        "link",
    ),
    "tgz: hard link": (tgz_of([(link("l.txt", "../out.txt", tarfile.LNKTYPE), b"")]), "link"),
    "tgz: device": (tgz_of([(link("l.txt", "", tarfile.CHRTYPE), b"")]), "device"),
    "tgz: pipe": (tgz_of([(link("l.txt", "", tarfile.FIFOTYPE), b"")]), "device"),
    "zip: bomb": (zip_of({"big.txt": bytes(2**20)}), "more than"),
    "tgz: bomb": (tgz_of([("big.txt", bytes(2**20))]), "more than"),
    "zip: many": (zip_of({str(i): b"" for i in range(9)}), "more than 8 files"),
    "tgz: many": (tgz_of([(str(i), b"") for i in range(9)]), "more than 8 files"),
    "zip: lying size": (lying_zip(bytes(2**20), 1000), "CRC"),
    # Some versions of Python refuse such headers themselves, with words of their own.
    "tar: long name": (tar_note(tarfile.GNUTYPE_LONGNAME, 70_000), r"70,000 bytes|ReadError"),
    "tar: long header": (tar_note(tarfile.XHDTYPE, 70_000), r"70,000 bytes|ReadError"),
    "tar: negative size": (tar_note(tarfile.REGTYPE, -1024), r"-1,024 bytes|ReadError"),
    "zip: cut": (zip_of({"a.txt": b"x" * 1000})[:-30], "zip"),
    "tgz: cut": (tgz_of([("a.txt", CONTENT)])[:-50], "EOFError"),
    "empty": (b"", "zip or tar"),
    "text": (b"no archive at all", "zip or tar"),
}


@pytest.mark.parametrize(("content", "reason"), HARMFUL.values(), ids=HARMFUL)
def test_extract_refuses(tmp_path, monkeypatch, content, reason):
    monkeypatch.setattr(archives, "UNPACKED_LIMIT", 2**20 - 1)
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 8)
    monkeypatch.setattr(archives, "NOTE_LIMIT", 2**16)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "archive").write_bytes(content)
    with pytest.raises(DatasetError, match=reason) as caught:
        archives.extract(inside / "archive", inside / "new", accept)
    assert str(inside / "archive") in str(caught.value)
    assert names(tmp_path) == ["inside/archive"]
    assert sorted(inside.iterdir()) == [inside / "archive"]


def test_extract_notices_changed_bytes(tmp_path):
    content = bytearray(zip_of({"a.txt": np.random.default_rng(0).bytes(5000)}))
    content[2000] ^= 255
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DatasetError, match="CRC"):
        archives.extract(tmp_path / "a.zip", tmp_path / "a", accept)
    assert names(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, DatasetError("wrong")])
def test_extract_is_all_or_nothing(tmp_path, interruption):
    def check(folder):
        assert names(folder) == ["x/one.jpg"]
        assert not (tmp_path / "a").exists()
        raise interruption

    (tmp_path / "a.zip").write_bytes(zip_of({"x/one.jpg": b"1", "x/two.mat": b"2"}))
    with pytest.raises((KeyboardInterrupt, DatasetError)):
        archives.extract(tmp_path / "a.zip", tmp_path / "a", check, keep=(".jpg",))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a.zip"]


def test_links_among_files_that_are_not_kept_do_no_harm(tmp_path):
    members = [("x/one.jpg", b"1"), (link("x/other", "/etc/passwd"), b"")]
    (tmp_path / "a.tgz").write_bytes(tgz_of(members))
    archives.extract(tmp_path / "a.tgz", tmp_path / "a", accept, keep=(".jpg",))
    assert names(tmp_path / "a") == ["x/one.jpg"]


def test_two_processes_that_unpack_at_once_do_not_disturb_each_other(tmp_path):
    def check(folder):  # meanwhile another process finishes
        other = tmp_path / "a" / "x"
        if not other.exists():
            other.mkdir(parents=True)
            (other / "one.txt").write_bytes(b"1")

    (tmp_path / "a.zip").write_bytes(zip_of({"x/one.txt": b"1"}))
    archives.extract(tmp_path / "a.zip", tmp_path / "a", check)
    assert names(tmp_path) == ["a.zip", "a/x/one.txt"]


# --- the data sets' own downloads, small


def test_mnist_downloads_its_four_files(server, monkeypatch):
    generator = np.random.default_rng(0)
    resources = []
    for prefix, count in (("train", 6), ("t10k", 3)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
            packed = gzip.compress(header + array.tobytes())
            name = f"{prefix}-{kind}-ubyte.gz"
            server.files[f"/mirror/{name}"] = packed
            resources.append((name, hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(MNIST, "mirrors", [f"{server.address}/gone/", f"{server.address}/mirror/"])
    monkeypatch.setattr(datasets.mnist, "COUNTS", {"train": 6, "test": 3})
    for _ in range(2):
        test = datasets.load("mnist", "test")
        assert np.array_equal(test.images[:, 0].numpy(), images)
    assert test.labels.tolist() == [0, 1, 2]
    assert len(server.requests) == 4  # two files, two mirrors


def scene_zip(spelling=str, counts=(("train", 2), ("test", 3))):
    return zip_of(
        {
            f"15SceneData/{split}/{spelling(name)}/image_{number:04}.jpg": jpeg()
            for split, count in counts
            for name in scenes.CLASSES
            for number in range(count)
        }
        | {
            "__MACOSX/15SceneData/train/._Store": b"x",
            f"15SceneData/train/{spelling('Store')}/._a.jpg": b"x",
        }
    )


def test_15_scene_downloads_unpacks_and_counts(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scenes, "URLS", (f"{server.address}/scenes.zip",))
    monkeypatch.setattr(scenes, "COUNTS", {"train": 30, "test": 45})
    server.files["/scenes.zip"] = scene_zip(counts=(("train", 2), ("test", 2)))
    with pytest.raises(DatasetError, match=r"holds 30 images.*expected 45"):
        datasets.load("15-scene")
    assert names(tmp_path) == []

    server.files["/scenes.zip"] = scene_zip(str.lower)
    test = datasets.load("15-scene", "test", size=16)
    assert tuple(test.images.shape) == (45, 1, 16, 16)
    assert test.classes == scenes.CLASSES
    assert "15-Scene: these 75 photographs are others than those known" in capsys.readouterr().out
    assert len(server.requests) == 2
    datasets.load("15-scene", "train")
    assert len(server.requests) == 2


def test_bsds500_downloads_and_counts(server, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bsds500, "URLS", (f"{server.address}/gone", f"{server.address}/b.tgz"))
    monkeypatch.setattr(bsds500, "COUNT", 8)
    folder = "BSR/BSDS500/data/images/train"
    members = [(f"{folder}/{i:03}.jpg", jpeg((40, 30))) for i in range(8)]
    server.files["/b.tgz"] = tgz_of([*members, ("BSR/bench/a.m", b"x")])
    assert len(datasets.load_photographs("bsds500", "train")) == 6
    assert len(datasets.load_photographs("bsds500", "test")) == 2
    assert server.requests == ["/gone", "/b.tgz"]
    assert "BSDS500: these 8 photographs are others than those known" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.m"))


def test_imagenet_refuses_another_file(server, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "URLS", (f"{server.address}/file.bin",))
    with pytest.raises(DatasetError, match=imagenet.SHA256):
        datasets.load("imagenet-25")
    assert names(tmp_path) == []
