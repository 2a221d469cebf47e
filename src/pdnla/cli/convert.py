"""``pdnla-convert``: the authors' published checkpoint becomes a safetensors file."""

from pathlib import Path
from typing import Annotated

import typer

from pdnla.cli._run import run
from pdnla.errors import UserError

app = typer.Typer(add_completion=False)


@app.command()
def convert(
    published: Annotated[Path, typer.Argument(help="The authors' checkpoint (.pt), or a checkpoint of pdnla-train.")],
    out: Annotated[Path, typer.Argument(help="The file to write, ending in .safetensors.")],
    half: Annotated[bool, typer.Option("--half", help="Round the weights to half precision: half the size.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT if it exists.")] = False,
) -> None:
    """Turn a checkpoint into a safetensors file, which loads fast and can hold no code.

    The file says its model, the model's arguments, its format's version and where the weights came from. Nothing in
    the checkpoint is executed: anything but tensors in it is refused.

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
    run("pdnla-convert", lambda: app(standalone_mode=False))
