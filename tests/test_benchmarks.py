"""What all benchmarks share: calls in turns, ratios of calls that follow each other, the page."""

import functools
import importlib
import json
import os
import sys
import textwrap
import time
import types
from pathlib import Path

import nbformat
import psutil
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """A function that imports a benchmark's module, which is forgotten after the test."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def compare(benchmark):
    return benchmark("compare")


@pytest.fixture
def turns(monkeypatch, tmp_path):
    """A benchmark, by its name, whose calls leave lines in `log`; theirs fail if `fail` exists."""
    (tmp_path / "turns.py").write_text(
        """
import os
from pathlib import Path
from compare import compare

HERE = Path(__file__).parent

def note(who):
    with (HERE / "log").open("a") as log:
        print(who, os.getpid(), file=log)

def theirs():
    note("theirs")
    if (HERE / "fail").exists():
        raise ValueError

def rows():
    return [compare("work", "a peer", lambda: note("ours"), theirs, agreement="equal", rounds=3)]
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("turns")
    del sys.modules["turns"]


def test_calls_take_turns_in_two_processes(compare, turns, tmp_path):
    with compare.peer_of("turns"):
        (row,) = turns.rows()
    assert 0 < row["lowest"] <= row["ratio"] <= row["highest"]
    calls = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [who for who, _ in calls] == ["ours", "theirs"] * 3
    assert {process for _, process in calls[::2]} == {str(os.getpid())}
    others = {process for _, process in calls[1::2]}
    assert len(others) == 1
    assert str(os.getpid()) not in others
    with pytest.raises(RuntimeError, match="call it within peer_of"):
        turns.rows()


def test_a_peer_that_fails_is_an_error_and_no_endless_wait(compare, turns, tmp_path):
    (tmp_path / "fail").touch()
    with pytest.raises(EOFError), compare.peer_of("turns"):
        turns.rows()


def test_a_row_has_the_median_ratio_and_its_range(compare, monkeypatch):
    now, theirs = [0.0], iter(["ready", 3.0, 8.0, 8.0])
    durations = iter([1.0, 2.0, 4.0])

    def ours():
        now[0] += next(durations)

    monkeypatch.setattr(compare.runtime, "clock", lambda: now[0])
    other = types.SimpleNamespace(recv=lambda: next(theirs), send=lambda said: None)
    monkeypatch.setattr(compare, "_connection", other)
    row = compare.compare("work", "a peer", ours, None, agreement="equal", target=2.5, rounds=3)
    assert (row["ratio"], row["lowest"], row["highest"], row["seconds"]) == (3, 2, 4, 2)
    line = compare.table({"CPU": [row]}).splitlines()[-1]
    assert line == (
        "| work | a peer | **3.00** (2.00 to 4.00; ≥ 2.5) | not recorded | 2 |  | equal |"
    )


def test_apart_is_a_share_of_the_largest_value(compare):
    one = torch.tensor([1.0, -4.0])
    assert compare.apart(one, one) == 0
    assert compare.apart(torch.tensor([1.0, -3.0]), one) == 0.25


def row_of(task, **changes):
    row = {"task": task, "peer": "a peer", "ratio": 2.0, "lowest": 1.0, "highest": 3.0}
    return row | {"target": None, "seconds": 0.5, "agreement": "equal"} | changes


def test_machines_stand_side_by_side(compare):
    rows = {
        "CPU": [row_of("GAN: 20 steps", ratio=1.4), row_of("maps: 25 images")],
        "GPU": [row_of("GAN: 400 steps", ratio=9.0), row_of("attack, 25 images", seconds=0.004)],
    }
    gan, maps, attack = compare.table(rows).splitlines()[2:]
    assert gan == (
        "| CPU: GAN: 20 steps<br>GPU: GAN: 400 steps | a peer | **1.40** (1.00 to 3.00) | "
        "**9.00** (1.00 to 3.00) | 0.5 | 0.5 | equal |"
    )
    assert maps.startswith("| maps: 25 images | a peer | **2.00** (1.00 to 3.00) | not recorded |")
    assert attack.endswith("| not recorded | **2.00** (1.00 to 3.00) |  | 0.004 | equal |")
    with pytest.raises(ValueError, match="same task and peer"):
        compare.table({"CPU": [row_of("PGD: 1"), row_of("PGD, 2")]})


def test_targets_and_results_are_those_of_the_device(compare, monkeypatch):
    assert compare.by_device(cpu=1, gpu=2) == (2 if torch.cuda.is_available() else 1)
    for there, expected in ((False, compare.FOLDER), (True, compare.FOLDER / "gpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert compare.by_device(cpu=1, gpu=2) == 1 + there
        assert compare.folder() == expected


def test_peers_have_pytorchs_defaults(compare, monkeypatch):
    seen = []

    def rows():
        cudnn = torch.backends.cudnn.allow_tf32
        seen.append((cudnn, torch.are_deterministic_algorithms_enabled()))

    before = torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()
    monkeypatch.setitem(sys.modules, "settings", types.SimpleNamespace(rows=rows))
    monkeypatch.setattr(compare, "_serves", False)
    monkeypatch.setattr(compare, "_connection", None)
    try:
        compare._serve("settings", None)
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.use_deterministic_algorithms(before[1])
    assert seen == [(True, False)]


def test_the_page_has_all_that_is_recorded(benchmark, compare, monkeypatch, tmp_path):
    run = benchmark("run")
    monkeypatch.setattr(compare, "FOLDER", tmp_path / "results")
    cpu = {"device": "a processor", "threads": 2, "torch": "2", "profile": "full"}
    other, gpu = cpu | {"profile": "quick"}, cpu | {"device": "a card"}

    def page(machine, name, rows, said):
        compare.write_json(
            compare.folder(machine) / f"{name}.json", {"machine": said, "rows": rows}
        )
        run.write_page()
        return (tmp_path / "RESULTS.md").read_text("utf-8")

    page("CPU", "training", [row_of("GAN: 20 steps")], cpu)
    text = page("CPU", "maps", [row_of("maps: 25 images")], cpu)
    assert text.count("- CPU: a processor, threads 2") == text.count("threads 2") == 1
    assert "- GPU: not recorded" in text
    assert text.count("benchmarks/gpu.py") == 1
    text = page("CPU", "attacks", [row_of("attack: 25 images")], other)
    assert text.count("profile quick") == 1
    assert text.index("## Attacks") < text.index("CPU: a processor, threads 2, torch 2, profile q")
    for name in ("training", "maps", "attacks"):
        text = page("GPU", name, [row_of("GAN: 400 steps")], gpu)
    assert "- GPU: a card" in text
    assert "benchmarks/gpu.py" not in text
    limit = {"work": "a step", "seconds": 0.1, "billion operations": 1.0, "share of the peak": 0.5}
    limit |= {"slowest": [["mm", 0.9]], "next lever": "none"}
    text = page("GPU", "limits", [limit], gpu)
    assert "On the CPU: not recorded.\n\nOn the GPU:\n\nThe peak, 20 billion operations" in text


def test_the_committed_page_is_what_the_results_say(benchmark, compare, monkeypatch, tmp_path):
    run = benchmark("run")
    (tmp_path / "results").symlink_to(compare.FOLDER)
    monkeypatch.setattr(compare, "FOLDER", tmp_path / "results")
    run.write_page()
    committed = (BENCHMARKS / "RESULTS.md").read_text("utf-8")
    assert (tmp_path / "RESULTS.md").read_text("utf-8") == committed


@pytest.fixture
def tiny_training(benchmark, monkeypatch):
    """The benchmark of trainings, on two batches of noise; a row is the words of its agreement."""
    training = benchmark("training")

    def load(name, size=28):
        count, channels = (256, 1) if size == 32 else (2 * training.BATCH, 3)
        generator = torch.Generator().manual_seed(size)
        shape = count, channels, size, size
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        labels = torch.arange(count) % 10
        return training.datasets.ImageSet(images, labels, tuple("0123456789"), name)

    monkeypatch.setattr(training.datasets, "load", load)
    monkeypatch.setattr(training, "compare", lambda *_, agreement, **__: agreement.split())
    return training


def test_both_sides_train_gans_on_the_same_images_and_noise(tiny_training):
    for said in tiny_training.gan_rows():
        ours, usual = float(said[-3]), float(said[-1])
        # On a GPU ours rounds to TF32, and the peer only in the process of its own.
        assert usual == pytest.approx(ours, rel=5e-3 if torch.cuda.is_available() else 2e-5)


def test_both_sides_train_dann_on_the_same_images(tiny_training, monkeypatch):
    no_dropout = functools.partial(tiny_training.dann.DANN, dropout=0)
    monkeypatch.setattr(tiny_training.dann, "DANN", no_dropout)
    (said,) = tiny_training.dann_rows()
    tolerance = 0.02 if torch.cuda.is_available() else 0.0015  # of numbers with three digits
    assert float(said[-1]) == pytest.approx(float(said[-3]), abs=tolerance)


@pytest.fixture
def gpu(benchmark, monkeypatch, tmp_path):
    """gpu.py on a machine that seems to have a GPU, its folder a temporary one."""
    gpu = benchmark("gpu")
    monkeypatch.setattr(gpu, "FOLDER", tmp_path)
    monkeypatch.setattr(gpu, "GRACE", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu.compare, "machine", lambda: {"device": "a card"})
    return gpu


def stage(gpu, name, source, **options):
    return gpu.Stage(name, "tests", (sys.executable, "-c", textwrap.dedent(source)), **options)


def is_gone(process):
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_stages_end_as_they_end(gpu, tmp_path, capsys):
    good = stage(
        gpu,
        "good",
        "import os; print(os.environ['KEY'])",
        in_results=lambda: ["a row"],
        environment={"KEY": "value"},
    )
    bad = stage(gpu, "bad", "print('first'); raise ValueError('last')", in_results=lambda: 1 / 0)
    slow = stage(
        gpu,
        "slow",
        """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print("begun", child.pid, flush=True)
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            print("FAILED tests/test_one.py::test[a b] - ValueError: - no", flush=True)
            raise
        """,
        in_log=gpu.failed_tests,
    )
    late = stage(gpu, "late", "print('never')")
    begin = time.monotonic()
    assert gpu.main(["--minutes", str(6 / 60)], [good, bad, slow, late]) == 1
    assert time.monotonic() - begin < 12
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert summary["machine"] == {"device": "a card"}
    found = [(s["stage"], s["status"], s["failed"]) for s in summary["stages"]]
    assert found == [
        ("good", "done", ["a row"]),
        ("bad", "failed", ["ValueError: last"]),
        ("slow", "not finished", ["tests/test_one.py::test[a b]"]),
        ("late", "not finished", []),
    ]
    assert summary["stages"][2]["seconds"] > summary["stages"][3]["seconds"] == 0
    assert (tmp_path / "good.log").read_text() == "value\n"
    child = int((tmp_path / "slow.log").read_text().split()[1])
    end = time.monotonic() + 10  # a killed process takes a moment
    while not is_gone(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert is_gone(child)
    assert "--only slow late" in capsys.readouterr().out


def test_a_stage_that_hears_no_interrupt_is_killed(gpu):
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    result = gpu.run_stage(stage(gpu, "deaf", deaf), 4)
    assert result["status"] == "not finished"
    assert 3 < result["seconds"] < 20


def test_only_what_was_asked_for_is_run(gpu, tmp_path):
    known = [stage(gpu, name, "") for name in ("one", "two")]
    assert gpu.main(["--only", "two"], known) == 0
    (result,) = json.loads((tmp_path / "summary.json").read_text("utf-8"))["stages"]
    assert (result["stage"], result["status"], result["failed"]) == ("two", "done", [])


def test_without_a_gpu_there_is_nothing_to_learn(gpu, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([], [stage(gpu, "one", "")]) == 2
    assert "no GPU" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_stages_are_benchmarks_tests_and_notebooks(gpu):
    names = [one.name for one in gpu.stages()]
    assert len(set(names)) == len(names)
    assert names[:6] == list(gpu.run.TITLES)[:6]
    assert names[6:8] == ["tests", "growth"]
    assert [name[:2] for name in names[8:]] == ["1_", "2_", "3_", "4_"]


def test_rows_below_their_target_are_named(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu.compare, "FOLDER", tmp_path)
    rows = [row_of("one", target=1.5), row_of("two", target=2.5), row_of("three")]
    gpu.compare.write_json(tmp_path / "gpu" / "maps.json", {"machine": {}, "rows": rows})
    assert gpu.below_target("maps") == ["two, beside a peer: 2.00, expected 2.5"]
    gpu.compare.write_json(tmp_path / "gpu" / "growth.json", {"machine": {}, "rows": {"gan": []}})
    assert gpu.below_target("growth") == []


def test_numbers_that_differ_are_named(gpu, monkeypatch, tmp_path):
    def number(value):
        return {"value": value, "unit": "share", "data": "digits", "seed": 0, "model": None}

    results = gpu.grade.Results({"a": number(0.5), "b": number(0.9)}, {"torch": "1"}, [])
    monkeypatch.setattr(gpu.grade, "read_expected", lambda profile, name: results)
    here = tmp_path / "figures" / "full"
    gpu.compare.write_json(here / "3_it.json", {"a": number(0.51), "b": number(0.8)})
    gpu.compare.write_json(here / "3_it.versions.json", {"torch": "1", "GPU": "a card"})
    (tmp_path / "full").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "full" / "3_it.ipynb")
    assert gpu.differing("3_it") == ["b: 0.8, expected 0.9 (not measured: ± 10 %)"]
    assert "agrees" in (tmp_path / "3_it.numbers.txt").read_text("utf-8")
    gpu.compare.write_json(here / "3_it.json", {"a": number(0.5), "b": number(0.9)})
    assert gpu.differing("3_it") == []


@pytest.mark.parametrize("name", [path.stem for path in sorted(BENCHMARKS.glob("*.py"))])
def test_is_python_that_names_what_it_does(name):
    source = (BENCHMARKS / f"{name}.py").read_text("utf-8")
    code = compile(source, name, "exec")
    assert code.co_consts[0].rstrip(".")
