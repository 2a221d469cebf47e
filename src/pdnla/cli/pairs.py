"""``pdnla-pairs``: find a reference for every picture of a folder."""

import csv
import enum
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pdnla.cli._run import progress_bar, run
from pdnla.errors import UserError
from pdnla.files import replacing

COMMAND = "pdnla-pairs"
COLUMNS = ("target", "reference", "score")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class BackboneName(str, enum.Enum):
    """The frozen network that says what is alike."""

    efficientnet_lite0 = "efficientnet_lite0"
    vgg19 = "vgg19"


@app.command()
def pairs(
    targets: Annotated[Path, typer.Argument(metavar="FOLDER", help="Pictures to find references for.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file of pairs to write (CSV).")],
    references: Annotated[
        Path | None,
        typer.Option(help="Folder that references come from; FOLDER itself without it.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="References for each target.")] = 1,
    least: Annotated[float, typer.Option(help="Leave out pairs less alike than this cosine.")] = 0.0,
    most: Annotated[float, typer.Option(help="Leave out pairs more alike than this: copies of one picture.")] = 0.98,
    backbone: Annotated[BackboneName, typer.Option(help="What says that pictures are alike.")] = (
        BackboneName.efficientnet_lite0
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures.")] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> int:
    """Find for every picture in FOLDER the one that shows what is most like it, and write the pairs with their scores.

    Pictures are compared by what they show, never by their colours. The file serves training
    (pdnla-train data=pairs data.pairs_file=pairs.csv loss=hybrid) and validation (data.validation_pairs=pairs.csv).
    References are pictures in colour: grey ones are never chosen. What was computed of a picture is kept, so that a
    second run takes seconds.

    Example: pdnla-pairs photographs/ -o photographs/pairs.csv
    """
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists already; add --overwrite to replace it")
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"{out}: cannot be a file of pairs; name a file in a folder that exists")
    if not least < most:
        raise UserError(f"--least {least} must be under --most {most}")
    from pdnla.data.images import list_images

    asked = list_images(targets)
    offered = asked if references is None else list_images(references)
    rows, without = _find(asked, offered, count, least, most, backbone.value, device, workers)
    if not rows:
        raise UserError(
            f"{targets}: none of its {len(asked)} pictures has a reference in colour between --least {least} and"
            f" --most {most}; widen them, or give more pictures with --references"
        )
    folder = out.absolute().parent
    with replacing(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for target, reference, score in rows:
            writer.writerow([*(os.path.relpath(path, folder) for path in (target, reference)), f"{score:.4f}"])
    print(f"{out}: {len(rows)} pairs for {len(asked) - without} of {len(asked)} pictures")
    return 0


def _find(
    asked: list[Path],
    offered: list[Path],
    count: int,
    least: float,
    most: float,
    backbone: str,
    device: str,
    workers: int,
) -> tuple[list[tuple[Path, Path, float]], int]:
    """Return the pairs and how many targets have none."""
    from pdnla.data.photographs import open_colour
    from pdnla.data.retrieval import build_index
    from pdnla.devices import choose_device

    both = list(dict.fromkeys([*asked, *offered]))
    console = Console(stderr=True)
    with progress_bar("describing", console) as bar:
        task = bar.add_task("", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if not console.is_terminal:
                print(f"described {done}/{total} pictures", flush=True)

        index = build_index(both, backbone, choose_device(device), workers, tell)
    numbers = {path: number for number, path in enumerate(both)}
    candidates = [numbers[path] for path in offered]
    coloured: dict[int, bool] = {}

    def in_colour(number: int) -> bool:
        if number not in coloured:
            try:
                coloured[number] = open_colour(both[number], 64) is not None
            except UserError:
                coloured[number] = False
        return coloured[number]

    rows: list[tuple[Path, Path, float]] = []
    without = 0
    for target in asked:
        cosines = index.vectors[candidates] @ index.vectors[numbers[target]]
        found = 0
        for place in cosines.argsort(descending=True).tolist():
            score, number = float(cosines[place]), candidates[place]
            if score < least or found == count:
                break
            if number != numbers[target] and score <= most and score > 0 and in_colour(number):
                rows.append((target, both[number], score))
                found += 1
        without += not found
    return rows, without


def main() -> None:
    """Run the command with the arguments it was started with."""
    run(COMMAND, lambda: app(standalone_mode=False, prog_name=COMMAND))
