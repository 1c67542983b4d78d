"""Two ways to do the same work, timed in turns in one process: what all benchmarks here share."""

import importlib
import io
import multiprocessing
import statistics
import time
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch

from dlapps import runtime
from dlapps.files import write_json

FOLDER = Path(__file__).resolve().parent / "results"


def synchronised_clock():
    """Return the time in seconds, after all work of a GPU has ended."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


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
    """Go through the rows of the module `name` and call what is theirs when it is their turn."""
    global _connection, _serves
    _connection, _serves = connection, True
    runtime.keep_freed_memory(False)
    runtime.seed_everything(0)
    with redirect_stdout(io.StringIO()):  # the first process draws the same bars
        importlib.import_module(name).rows()


def _seconds(function):
    begin = synchronised_clock()
    function()
    return synchronised_clock() - begin


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
    """Write results/<name>.json: the machine, and the rows of a benchmark."""
    write_json(FOLDER / f"{name}.json", {"machine": machine(), "rows": rows})


def table(rows):
    """Return rows as a Markdown table."""
    lines = [
        "| task | beside | times as fast | range | target | seconds | the results |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = "" if row["target"] is None else f"≥ {row['target']:g}"
        lines.append(
            f"| {row['task']} | {row['peer']} | **{row['ratio']:.2f}** | "
            f"{row['lowest']:.2f} to {row['highest']:.2f} | {target} | {row['seconds']:.2f} | "
            f"{row['agreement']} |"
        )
    return "\n".join(lines)
