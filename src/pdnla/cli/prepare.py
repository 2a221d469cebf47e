"""``pdnla-prepare``: verify photographs and pack them into shards, for training from slow or shared disks."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pdnla.cli.command import SOME_FAILED, run
from pdnla.cli.progress import Progress, echo
from pdnla.errors import UserError

COMMAND = "pdnla-prepare"

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="markdown")


def main() -> None:
    """Run the command with the arguments of the command line."""
    run(COMMAND, lambda: app(standalone_mode=False, prog_name=COMMAND))


@app.command()
def prepare(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", readable=False, help="Photographs; the class of each is its folder.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the shards.")],
    shard_size: Annotated[
        int, typer.Option(min=1, help="Megabytes of photographs in a shard, before --size is applied.")
    ] = 256,
    size: Annotated[
        int,
        typer.Option(
            min=0,
            max=8192,
            help="Reduce photographs whose shorter side has more than SIZE pixels to SIZE; 0 keeps the files' bytes.",
        ),
    ] = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that read and write.", show_default="one for each processor"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the shards in OUT first.")] = False,
) -> int:
    """Write the photographs of FOLDER to tar shards in OUT, for training with data=imagenet_shards.

    Every photograph is decoded; broken and grey ones are left out and listed in OUT/left_out.csv. To resume an
    interrupted run, repeat the command. If a subfolder cannot be listed, the rest is written and the exit status is 1.

        pdnla-prepare ILSVRC/train shards/ --size 384

        pdnla-train data=imagenet_shards data.root=shards/
    """
    from pdnla.data.preparing import GREY, begin, discard, plan_shards, write_left_out, write_shards, written

    echo(f"listing {folder}")
    unlisted: list[str] = []
    plan = plan_shards(folder, out, shard_size, size, unlisted.append)
    for sentence in unlisted:
        echo(f"left out: {sentence}", error=True)
    begin(plan, out, overwrite)
    kept, skipped, left_out, waiting = 0, 0, [], []
    for job in plan.jobs:
        earlier = written(job)
        if earlier is None:
            waiting.append(job)
            continue
        skipped += 1
        kept += earlier.kept
        left_out += earlier.left_out
    with Progress("preparing", plan.record["photographs"], "photographs") as progress:
        progress.update(kept + len(left_out), line="")
        for done, (job, shard) in enumerate(write_shards(waiting, workers or os.cpu_count() or 1), start=skipped + 1):
            kept += shard.kept
            left_out += shard.left_out
            counts = f"{shard.kept} photographs, {len(shard.left_out)} left out"
            progress.advance(len(job.paths), f"wrote {done}/{len(plan.jobs)} shard {job.number}: {counts}")
    if not kept:
        discard(out)
        path, reason = left_out[0]
        raise UserError(
            f"{folder}: holds no readable colour photograph; choose another folder ({len(left_out)} left out,"
            f" the first: {path}: {reason})"
        )
    write_left_out(out, left_out)
    grey = sum(reason == GREY for _, reason in left_out)
    echo(
        f"{kept} photographs in {len(plan.jobs)} shards, {skipped} of which existed before; {len(left_out)} left out"
        f" ({grey} grey, {len(left_out) - grey} unreadable), listed in {out / 'left_out.csv'}"
    )
    return SOME_FAILED if unlisted else 0


if __name__ == "__main__":
    main()
