"""``pdnla-export``: export weights to a file for another runtime."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from pdnla.cli.command import run
from pdnla.errors import UserError
from pdnla.pretrained import is_exported

app = typer.Typer()


class Format(str, enum.Enum):
    """Format of the file."""

    onnx = "onnx"
    pt2 = "pt2"


class ExportedPrecision(str, enum.Enum):
    """Number format of an exported network's computations."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@app.command()
def export(
    weights: Annotated[str, typer.Argument(help="Weights of pdnla-train or pdnla-convert, or pdnla_tiny.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The file to write. Default: WEIGHTS.onnx or WEIGHTS.pt2 in the current folder."
        ),
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="onnx, or pt2 (compiled by torch for this machine). Default: the ending of OUT."),
    ] = None,
    precision: Annotated[
        ExportedPrecision,
        typer.Option(help="Number format: float32; float16 (half the file size); bfloat16 (pt2 only)."),
    ] = ExportedPrecision.float32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Export WEIGHTS to ONNX, or compile them ahead of time, for any number and size of pictures.

    The file holds everything from the two pictures to the result, edge detection included. It is checked against the
    network at several sizes before it is kept. pdnla-colorize --weights reads it.

    Example: pdnla-export pdnla.safetensors --format onnx
    """
    if out is not None and not is_exported(out):
        raise UserError(f"{out}: must end in .onnx or .pt2")
    kind = format_.value if format_ else (out.suffix[1:] if out else "onnx")
    if out is not None and out.suffix[1:] != kind:
        raise UserError(f"{out}: ends in {out.suffix} and --format is {kind}; leave one of them out")
    file = out or Path(f"{Path(weights).stem}.{kind}")
    if file.exists() and not overwrite:
        raise UserError(f"{file}: exists already; add --overwrite to replace it")
    from pdnla.export import SIZES
    from pdnla.export import export as write
    from pdnla.weights import build_network, read_weights

    contents = read_weights(weights)
    network = build_network(contents, weights)
    typer.echo(f"{file}: exporting {contents.description}; this takes minutes", err=True)
    parity = write(network, file, precision.value, contents.source)
    size = file.stat().st_size / 1e6
    typer.echo(
        f"{file}: {size:.1f} MB, {precision.value}; at {len(SIZES)} sizes within {parity.largest:.2g} of the network"
        f" (mean {parity.mean:.2g}, of results in [-1, 1])"
    )


def main() -> None:
    """Run the command."""
    run("pdnla-export", lambda: app(standalone_mode=False, prog_name="pdnla-export"))
