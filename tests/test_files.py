"""Files are whole or absent, and fingerprints tell different content apart."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

from dlapps import files, gans


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="midway"), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("midway")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("old")
    code = f"""
        import time
        from dlapps.files import atomic_path
        with atomic_path({str(path)!r}) as temporary:
            temporary.write_text("half")
            print("writing", flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.kill()
    assert path.read_text() == "old"


def test_an_interrupt_removes_the_temporary_file(tmp_path):
    code = f"""
        import signal, time
        from dlapps.files import atomic_path
        # A process started in the background inherits that interrupts are ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with atomic_path({str(tmp_path / "numbers.txt")!r}) as temporary:
            temporary.write_text("half")
            print("writing", flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
    assert list(tmp_path.iterdir()) == []


def test_missing_folders_are_made_and_the_suffix_is_kept(tmp_path):
    path = tmp_path / "a" / "b" / "figure.png"
    with files.atomic_path(path) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == path.parent
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"ab", b"ba"),
        (np.zeros(4, np.float32), np.zeros(4, np.int32)),
        (np.zeros((2, 2)), np.zeros(4)),
        (torch.zeros(3), torch.tensor([0.0, 0.0, 1e-38])),
        ({"a": torch.zeros(2)}, {"b": torch.zeros(2)}),
        ({"epochs": 5}, {"epochs": 6}),
        (gans.generator_loss, gans.discriminator_loss),
        (gans, files),
    ],
)
def test_fingerprints_differ_for_different_content(one, other):
    assert files.fingerprint(one) != files.fingerprint(other)
    assert files.fingerprint(one) == files.fingerprint(one)


def test_fingerprints_tell_where_one_part_ends():
    assert files.fingerprint(b"ab", b"c") != files.fingerprint(b"a", b"bc")


def test_fingerprint_of_a_transposed_array_is_that_of_its_copy():
    array = np.arange(6).reshape(2, 3).T
    assert files.fingerprint(array) == files.fingerprint(np.ascontiguousarray(array))


def test_a_checkpoint_comes_back_only_for_what_it_was_made_from(tmp_path, capsys):
    path = tmp_path / "training.pt"
    state = {"weights": torch.arange(3.0), "step": 7, "history": [1.5]}
    files.save_checkpoint(path, "abc", state)
    loaded = files.load_checkpoint(path, "abc")
    assert loaded["step"] == 7
    assert loaded["history"] == [1.5]
    torch.testing.assert_close(loaded["weights"], state["weights"], rtol=0, atol=0)
    assert capsys.readouterr().out == ""
    assert files.load_checkpoint(path, "other") is None
    assert "training.pt" in capsys.readouterr().out


def test_no_checkpoint_is_none_without_a_word(tmp_path, capsys):
    assert files.load_checkpoint(tmp_path / "none.pt", "abc") is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_checkpoint_is_said_and_not_used(tmp_path, capsys, damage):
    path = tmp_path / "training.pt"
    files.save_checkpoint(path, "abc", {"step": 7})
    content = path.read_bytes()
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "empty": b"", "text": b"x" * 99}[damage]
    )
    assert files.load_checkpoint(path, "abc") is None
    assert "cannot be read" in capsys.readouterr().out


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    path = tmp_path / "training.pt"
    torch.save({"made_from": "abc", "state": Hostile()}, path)
    assert files.load_checkpoint(path, "abc") is None
    assert not (tmp_path / "run").exists()


def test_processes_that_write_one_file_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "shared.txt"
    code = f"""
        import sys
        from dlapps.files import atomic_path
        for _ in range(30):
            with atomic_path({str(path)!r}) as temporary:
                temporary.write_text(sys.argv[1] * 100_000)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    writers = [subprocess.Popen([*command, letter]) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = path.read_text()
            assert content in ("a" * 100_000, "b" * 100_000)
        time.sleep(0.001)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]
