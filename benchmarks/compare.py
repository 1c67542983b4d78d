"""Two ways to do the same work, timed in turns: what all benchmarks here share."""

import importlib
import io
import multiprocessing
import re
import statistics
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch

from dlapps import runtime
from dlapps.files import write_json

FOLDER = Path(__file__).resolve().parent / "results"
MACHINES = "CPU", "GPU"  # the columns of RESULTS.md


def by_device(*, cpu, gpu):
    """Return the argument for the device in use: a target, or how much work is timed.

    A GPU takes more of it: a training has to pay for its warm-up and the capture of its graph.
    """
    return gpu if torch.cuda.is_available() else cpu


def folder(machine=None):
    """Return the folder of the results of a machine of MACHINES, by default of this one."""
    machine = machine or by_device(cpu="CPU", gpu="GPU")
    return FOLDER / "gpu" if machine == "GPU" else FOLDER


def compare(task, peer, ours, theirs, *, agreement, target=None, rounds=5):
    """Return a row for the tables: `task` done by ours and by `peer`, `rounds` times in turns.

    Both were called before, for their results: that pays for what later calls find prepared. Theirs
    are called in a process of their own (see `peer_of`), while this one waits, so that they have
    the C library's way with memory, as their users do, and not what dlapps sets. A turn's ratio is
    that of two calls after each other, so that a machine which slows down slows both.

    agreement: how far the two results are apart, in words with the number in them.
    target: the ratio that is aimed at, if any.
    """
    if _connection is None:
        raise RuntimeError("compare needs the other process: call it within peer_of")
    if _serves:
        _connection.send("ready")
        for _ in range(rounds):
            _connection.recv()
            _connection.send(_seconds(theirs))
        return None
    _connection.recv()
    times = []
    for _ in range(rounds):
        our_time = _seconds(ours)
        _connection.send("your turn")
        times.append((our_time, _connection.recv()))
    ratios = [their_time / our_time for our_time, their_time in times]
    row = {
        "task": task,
        "peer": peer,
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "target": target,
        "seconds": statistics.median(our_time for our_time, _ in times),
        "agreement": agreement,
    }
    print(
        f"{task}, beside {peer}: {row['ratio']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})"
    )
    return row


# The other process, and whether this one is the peers'.
_connection, _serves = None, False


@contextmanager
def peer_of(name):
    """Run the rows of the module `name` in a second process too, which serves `compare` here."""
    global _connection
    _connection, other = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(name, other))
    process.start()
    other.close()  # so that the end of the other process is an error here and no endless wait
    try:
        yield
    finally:
        _connection.close()
        _connection = None
        process.join()


def _serve(name, connection):
    """Go through the rows of the module `name` and call what is theirs when it is their turn.

    Peers have PyTorch's defaults, as their users do. `seed_everything` changes two of them for the
    whole process: without TF32, which our trainings choose themselves, a peer would be slower on a
    GPU, and with deterministic algorithms alone on a CPU.
    """
    global _connection, _serves
    _connection, _serves = connection, True
    runtime.seed_everything(0)
    torch.backends.cudnn.allow_tf32 = True
    torch.use_deterministic_algorithms(False)
    with redirect_stdout(io.StringIO()):  # the first process draws the same bars
        importlib.import_module(name).rows()


def _seconds(function):
    begin = runtime.clock()
    function()
    return runtime.clock() - begin


def apart(one, other):
    """Return the largest difference as a share of the largest value."""
    one, other = one.detach().float().cpu(), other.detach().float().cpu()
    return ((one - other).abs().max() / other.abs().max()).item()


def machine():
    """Return what the numbers depend on: device, threads, version and profile."""
    found = runtime.versions()
    return {
        "device": found["GPU"] or found["processor"],
        "threads": found["threads"],
        "torch": found["torch"],
        "profile": runtime.profile(),
    }


def save(name, rows):
    """Write <name>.json of this machine: what it is, and the rows of a benchmark."""
    write_json(folder() / f"{name}.json", {"machine": machine(), "rows": rows})


def table(results):
    """Return {machine of MACHINES: its rows} as one Markdown table, machines side by side."""
    rows = {machine: _keyed(results.get(machine, [])) for machine in MACHINES}
    lines = [
        "| task | beside | times as fast, CPU | GPU | seconds, CPU | GPU | the results |",
        "|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys(key for of_machine in rows.values() for key in of_machine):
        found = {machine: rows[machine][key] for machine in MACHINES if key in rows[machine]}
        cells = [_together(found, "task"), key[1], *(_ratio(found.get(m)) for m in MACHINES)]
        cells += [f"{found[m]['seconds']:.3g}" if m in found else "" for m in MACHINES]
        lines.append(f"| {' | '.join([*cells, _together(found, 'agreement')])} |")
    return "\n".join(lines)


def _keyed(rows):
    """Return {(what the task is called, without its sizes; peer): row}."""
    keyed = {(re.split("[:,]", row["task"])[0], row["peer"]): row for row in rows}
    if len(keyed) < len(rows):
        raise ValueError(f"two of {len(rows)} rows have the same task and peer: {list(keyed)}")
    return keyed


def _ratio(row):
    if row is None:
        return "not recorded"
    target = "" if row["target"] is None else f"; ≥ {row['target']:g}"
    return f"**{row['ratio']:.2f}** ({row['lowest']:.2f} to {row['highest']:.2f}{target})"


def _together(found, name):
    """Return what the machines' rows say under `name`, once if they say the same."""
    texts = {machine: row[name] for machine, row in found.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "<br>".join(f"{machine}: {text}" for machine, text in texts.items())
