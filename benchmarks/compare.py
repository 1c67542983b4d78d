"""Two ways to do the same work, timed in turns in one process: what all benchmarks here share."""

import statistics
import time
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


def alternate(ours, theirs, rounds=5):
    """Call both in turns, ours first; return the ratios of their times to ours, and the times.

    Both were called before, for their results: that pays for what later calls find prepared. A
    turn's ratio compares calls that follow each other, so that a machine which slows down slows
    both.
    """
    times = []
    for _ in range(rounds):
        moments = [synchronised_clock()]
        for function in (ours, theirs):
            function()
            moments.append(synchronised_clock())
        times.append((moments[1] - moments[0], moments[2] - moments[1]))
    return [their_time / our_time for our_time, their_time in times], times


def compare(task, peer, ours, theirs, *, agreement, target=None, rounds=5):
    """Return a row for the tables: `task` done by ours and by `peer`, `rounds` times in turns.

    agreement: how far the two results are apart, in words with the number in them.
    target: the ratio that is aimed at, if any.
    """
    ratios, times = alternate(ours, theirs, rounds)
    row = {
        "task": task,
        "peer": peer,
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "target": target,
        "seconds": statistics.median(ours for ours, _ in times),
        "agreement": agreement,
    }
    print(
        f"{task}, beside {peer}: {row['ratio']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})"
    )
    return row


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
