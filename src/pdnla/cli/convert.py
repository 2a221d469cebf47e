"""``pdnla-convert``: convert a checkpoint to a safetensors file."""

from pathlib import Path
from typing import Annotated

import typer

from pdnla.cli.command import run
from pdnla.errors import UserError

app = typer.Typer()


@app.command()
def convert(
    published: Annotated[
        Path, typer.Argument(readable=False, help="The authors' checkpoint (.pt), or a checkpoint of pdnla-train.")
    ],
    out: Annotated[Path, typer.Argument(help="The file to write, ending in .safetensors.")],
    half: Annotated[bool, typer.Option("--half", help="Round the weights to half precision: half the size.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT if it exists.")] = False,
) -> None:
    """Convert a checkpoint to a safetensors file, which loads fast and cannot hold code.

    The file names its model, the model's arguments, the version of the format and the source of the weights. Nothing
    in the checkpoint is executed: a checkpoint with anything but tensors is refused.

    Example: pdnla-convert PDNLA.pt pdnla.safetensors
    """
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: must end in .safetensors")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists already; add --overwrite to replace it")
    from pdnla.weights import build_network, read_weights, save_weights

    weights = read_weights(published)
    save_weights(build_network(weights, published), out, weights.source, half)
    count = sum(tensor.numel() for tensor in weights.state.values())
    typer.echo(f"{out}: {weights.description}, {count:,} parameters, from {weights.source}")


def main() -> None:
    """Run the command."""
    run("pdnla-convert", lambda: app(standalone_mode=False, prog_name="pdnla-convert"))
