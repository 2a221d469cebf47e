"""``pdnla-pairs``: find a reference for every picture of a folder."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from pdnla.cli.command import SOME_FAILED, DeviceOption, run
from pdnla.cli.progress import Progress, echo
from pdnla.data.pairs_file import write_choices
from pdnla.errors import UserError
from pdnla.images.io import list_images

COMMAND = "pdnla-pairs"

app = typer.Typer(pretty_exceptions_enable=False)


class BackboneName(str, enum.Enum):
    """The frozen network whose features are compared."""

    efficientnet_lite0 = "efficientnet_lite0"
    vgg19 = "vgg19"


@app.command()
def pairs(
    targets: Annotated[Path, typer.Argument(metavar="FOLDER", readable=False, help="Pictures to find references for.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The pairs file to write (CSV).")],
    references: Annotated[
        Path | None,
        typer.Option(readable=False, help="Folder of the references. Default: FOLDER itself.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="References for each target.")] = 1,
    least: Annotated[float, typer.Option(help="Leave out pairs whose cosine similarity is below this.")] = 0.0,
    most: Annotated[
        float, typer.Option(help="Leave out pairs whose cosine similarity is above this: copies of one picture.")
    ] = 0.98,
    backbone: Annotated[BackboneName, typer.Option(help="Network whose features are compared.")] = (
        BackboneName.efficientnet_lite0
    ),
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures.")] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> int:
    """Find for every picture in FOLDER the picture with the most similar content, and write the pairs with scores.

    The comparison uses luminance only, not colours. The file serves training
    (pdnla-train data=pairs data.pairs_file=pairs.csv loss=hybrid) and validation (data.validation_pairs=pairs.csv).
    Grey pictures are never chosen as references. Descriptors are cached, so a second run takes seconds. Pictures that
    cannot be read are listed and left out, and the exit status is 1.

    Example: pdnla-pairs photographs/ -o photographs/pairs.csv
    """
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists already; add --overwrite to replace it")
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"{out}: cannot be a pairs file; name a file in a folder that exists")
    if not -1 <= least < most:
        raise UserError(f"--least {least} must be at least -1, as cosines are, and under --most {most}")
    left_out: list[str] = []
    target_paths = list_images(targets, left_out.append)
    reference_paths = target_paths if references is None else list_images(references, left_out.append)
    from pdnla.devices import choose_device
    from pdnla.inference.choosing import choose_references

    chosen = choose_device(device)
    with Progress("describing") as progress:
        choices = choose_references(
            target_paths,
            reference_paths,
            count,
            least,
            most,
            backbone.value,
            chosen,
            workers,
            progress.update,
            left_out.append,
        )
    for sentence in dict.fromkeys(left_out):
        echo(f"left out: {sentence}", error=True)
    if not choices:
        raise UserError(
            f"{targets}: none of its {len(target_paths)} pictures has a reference in colour between --least {least} and"
            f" --most {most}; widen them, or give more pictures with --references"
        )
    write_choices(out, choices)
    matched = len({choice.target for choice in choices})
    echo(f"{out}: {matched} of {len(target_paths)} pictures have references, {len(choices)} pairs in all")
    return SOME_FAILED if left_out else 0


def main() -> None:
    """Run the command with the arguments of the command line."""
    run(COMMAND, lambda: app(standalone_mode=False, prog_name=COMMAND))
