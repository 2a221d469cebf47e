"""Measure how fast training crops are read from a folder of photographs and from shards of them, in one run.

    python scripts/loading_speed.py /data/ILSVRC/train --shards 8
    python scripts/loading_speed.py photographs/ --shard-size 4 --workers 8 --size 256

Writes shards as ``pdnla-prepare`` does to a temporary folder, on the disk that ``--temporary`` names, and reads the
photographs that are in them from both. Two kinds of work: ``bytes`` reads files one after the other in this process,
``crops`` is what training does, with worker processes. ``cached`` is with the files in memory; ``from disk`` is after
asking the kernel to forget them, whatever the disk itself still holds in a cache. The sources take turns, so that a
machine that slows down slows all of them; medians, and the range, are shown.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from pdnla.data.photographs import DrawnBatches, Photograph, TrainingCrops
from pdnla.data.preparing import begin, plan_shards, write_shard
from pdnla.data.shards import Shards, window_order

BATCH = 16
STATES = ("from disk", "cached")


class Source(NamedTuple):
    """Photographs, their files, and the order of an epoch (None: random)."""

    name: str
    photographs: Sequence[Photograph]
    files: Sequence[Path]
    order: Callable[[np.random.Generator], np.ndarray] | None


def write_shards(folder: Path, out: Path, shard_size: int, most: int | None) -> list[Path]:
    """Write the first ``most`` shards of a folder and return their photographs, in order."""
    plan = plan_shards(folder, out, shard_size, 0)
    jobs = plan.jobs[:most]
    plan.record["shards"] = len(jobs)
    begin(plan, out, overwrite=False)
    for job in jobs:
        print(f"\rwriting shard {job.number + 1} of {len(jobs)}", end="", file=sys.stderr, flush=True)
        write_shard(job)
    print(file=sys.stderr)
    indexes = [json.loads(path.read_text()) for path in sorted(out.glob("shard-*.json"))]
    return [folder / path for index in indexes for path in index["paths"]]


def forget(files: Sequence[Path]) -> None:
    """Ask the kernel to drop files from its cache."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)  # unwritten pages cannot be dropped
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def reading_bytes(source: Source) -> Callable[[], None]:
    """Return a job that reads the bytes of every photograph."""
    rng = np.random.default_rng(0)
    order = source.order(rng) if source.order else rng.permutation(len(source.photographs))

    def run() -> None:
        for number in order:
            with source.photographs[int(number)].open("rb") as file:
                file.read()

    return run


def reading_crops(source: Source, size: int, workers: int) -> Callable[[], None]:
    """Return a job that reads an epoch of training crops, with persistent worker processes."""
    batches = DrawnBatches(len(source.photographs), BATCH, seed=0, order=source.order)
    crops = TrainingCrops(source.photographs, size, 1.5)
    loader = DataLoader(crops, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0)

    def run() -> None:
        for _ in loader:
            pass

    return run


def take_turns(work: str, jobs: Sequence[tuple[Source, Callable[[], None]]], rounds: int) -> dict[str, list[str]]:
    """Return the images per second of each source, by :data:`STATES`; the first round is not counted."""
    seconds: dict[str, list[list[float]]] = {source.name: [[] for _ in STATES] for source, _ in jobs}
    for turn in range(rounds + 1):
        for state, name in enumerate(STATES):
            for source, job in jobs:
                note = f"{work}, {source.name}, {name}, round {turn} of {rounds}"
                print(f"\r{note:70}", end="", file=sys.stderr, flush=True)
                if name == "from disk":
                    forget(source.files)
                start = time.perf_counter()
                job()
                if turn:
                    seconds[source.name][state].append(time.perf_counter() - start)
    print(file=sys.stderr)
    count = len(jobs[0][0].photographs)
    return {name: [cell(count, times) for times in both] for name, both in seconds.items()}


def cell(count: int, seconds: Sequence[float]) -> str:
    """Return the median, lowest and highest rate."""
    middle, lowest, highest = (count / f(seconds) for f in (statistics.median, max, min))
    return f"{middle:,.0f} ({lowest:,.0f}–{highest:,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shard-size", type=int, default=256, help="megabytes")
    parser.add_argument("--shards", type=int, help="how many shards to measure with; without it all of the folder")
    parser.add_argument("--window", type=int, default=2, help="data.shuffle_shards of the third source")
    parser.add_argument("--size", type=int, default=256, help="side of the crops")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--temporary", type=Path, help="where to write the shards")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.temporary) as temporary:
        out = Path(temporary)
        paths = write_shards(options.folder, out, options.shard_size, options.shards)
        shards, tars = Shards(out), sorted(out.glob("*.tar"))

        def windows(rng: np.random.Generator) -> np.ndarray:
            return window_order(shards.shard, options.window, rng)

        sources = (
            Source("folder", paths, paths, None),
            Source("shards", shards, tars, None),
            Source(f"shards, {options.window} mixed at a time", shards, tars, windows),
        )
        jobs = {
            "bytes": [(source, reading_bytes(source)) for source in sources],
            "crops": [(source, reading_crops(source, options.size, options.workers)) for source in sources],
        }
        measured = {work: take_turns(work, pairs, options.rounds) for work, pairs in jobs.items()}
    megabytes = int(shards.size.sum()) / 1e6
    print(f"{len(shards)} photographs, {megabytes:.0f} MB, {len(tars)} shards; crops of {options.size} pixels with")
    print(f"{options.workers} workers; images per second\n")
    headings = [f"{work}, {state}" for work in measured for state in STATES]
    print(f"| source | {' | '.join(headings)} |")
    print(f"| --- |{' --- |' * len(headings)}")
    for source in sources:
        print(f"| {source.name} | {' | '.join(cell for both in measured.values() for cell in both[source.name])} |")


if __name__ == "__main__":
    main()
