"""``pdnla-prepare``: a folder of photographs becomes shards, verified, for training from slow or shared disks."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pdnla.cli._run import progress_bar, run
from pdnla.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import, and --help needs none of it
    from pdnla.data.shards import Job, Written

COMMAND = "pdnla-prepare"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


def main() -> None:
    """Run the command with the arguments it was started with."""
    run(COMMAND, lambda: app(standalone_mode=False, prog_name=COMMAND))


@app.command()
def prepare(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Photographs; each one's class is the folder it lies in.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the shards.")],
    shard_size: Annotated[
        int, typer.Option(min=1, help="Megabytes of photographs in a shard, counted before --size.")
    ] = 256,
    size: Annotated[
        int,
        typer.Option(
            min=0,
            max=8192,
            help="Scale photographs down until the shorter side has at most SIZE pixels; 0 keeps their bytes.",
        ),
    ] = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that read and write.", show_default="one for each processor"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the shards that are in OUT first.")] = False,
) -> None:
    """Write the photographs of FOLDER into tar shards in OUT, to train from with data=imagenet_shards.

    Every photograph is decoded; broken and grey ones are left out and listed in OUT/left_out.csv. A run that was
    interrupted goes on where it was: give the same command again.

        pdnla-prepare ILSVRC/train shards/ --size 384

        pdnla-train data=imagenet_shards data.root=shards/
    """
    from pdnla.data.shards import GREY, begin, plan_shards, remove_halves, write_left_out, written

    console = Console(stderr=True)
    if console.is_terminal:
        console.print(f"listing {folder}", markup=False, highlight=False, soft_wrap=True)
    else:
        print(f"listing {folder}", flush=True)
    plan = plan_shards(folder, out, shard_size, size)
    begin(plan, out, overwrite)
    kept, skipped, left_out, waiting = 0, 0, [], []
    for job in plan.jobs:
        found = written(job)
        if found is None:
            waiting.append(job)
            continue
        skipped += 1
        kept += found.kept
        left_out += found.left_out
    total = plan.record["photographs"]
    try:
        with progress_bar("preparing", console) as bar:
            task = bar.add_task("", total=total, completed=kept + len(left_out))
            for done, (job, result) in enumerate(_write(waiting, workers or os.cpu_count() or 1), start=skipped + 1):
                kept += result.kept
                left_out += result.left_out
                bar.advance(task, len(job.paths))
                if not console.is_terminal:
                    counts = f"{result.kept} photographs, {len(result.left_out)} left out"
                    print(f"wrote {done}/{len(plan.jobs)} shard {job.number}: {counts}", flush=True)
    finally:
        remove_halves(out)
    write_left_out(out, left_out)
    grey = sum(reason == GREY for _, reason in left_out)
    print(
        f"{kept} photographs in {len(plan.jobs)} shards, {skipped} of them there before; {len(left_out)} left out"
        f" ({grey} grey, {len(left_out) - grey} unreadable), listed in {out / 'left_out.csv'}",
        flush=True,
    )
    if not kept:
        raise UserError(f"{folder}: none of its photographs can be read and has colours; choose another folder")


def _write(jobs: "Sequence[Job]", workers: int) -> "Iterator[tuple[Job, Written]]":
    """Write shards, in this process or in several, and yield each as it is done.

    Raises:
        UserError: the disk is full, or a process was killed.
    """
    from pdnla.data.shards import write_shard

    workers = min(workers, len(jobs))
    if workers < 2:
        yield from ((job, write_shard(job)) for job in jobs)
        return
    # Not forked: this process has threads by now.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_leave_with_parent)
    try:
        futures = {pool.submit(write_shard, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process that writes shards was killed, perhaps for want of memory; give the same command again with"
            " fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_with_parent() -> None:
    """End this process at once on Ctrl-C, and when the command's own process is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=wait, daemon=True).start()
