"""``pdnla-web``: colour photographs in a web page."""

import importlib.util
import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from pdnla.cli.colorize import Precision, PrecisionOption, working_side
from pdnla.cli.command import DeviceOption, run
from pdnla.cli.progress import echo
from pdnla.errors import UserError
from pdnla.images.io import list_images
from pdnla.pretrained import check_weights
from pdnla.web.uploads import Limits

COMMAND = "pdnla-web"
PASSWORD = "PDNLA_WEB_PASSWORD"
"""The environment variable that gives the password."""

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def web(
    references: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Photographs on this machine that users may choose references from.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at. One that others can reach takes a password.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port. Default: the first free one from 7860 on.", show_default=False),
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(
            envvar=PASSWORD,
            show_envvar=True,
            show_default=False,
            help="Password that the page asks for; others on this machine can see it here, but not in the variable.",
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser, where there is a display.")] = True,
    weights: Annotated[str, typer.Option("--weights", "-w", help="Weights, as those of pdnla-colorize.")] = "default",
    size: Annotated[
        str, typer.Option(metavar="SIZE", help="The network works on about SIZE x SIZE pixels (16 to 8192), or native.")
    ] = "512",
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Largest file that is accepted.")] = Limits().megabytes,
    max_megapixels: Annotated[int, typer.Option(min=1, help="Largest picture that is accepted.")] = Limits().megapixels,
    max_files: Annotated[
        int, typer.Option(min=1, help="Most pictures of an album, and most references to choose from.")
    ] = Limits().files,
) -> None:
    """Open a page in which photographs are coloured, looked at, adjusted and corrected.

    Only this machine can reach it, and it sends no requests to other machines:

        pdnla-web

    With the photographs of a folder to choose references from:

        pdnla-web --references photographs/

    For others in the same network, who need the password:

        PDNLA_WEB_PASSWORD=... pdnla-web --host 0.0.0.0

    Ctrl-C stops it, and removes uploads and results.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError('the page needs an extra that is not installed; pip install "pdnla[web]"')
    side = working_side(size)
    check_weights(weights, "--weights")
    from pdnla.web.server import Address, check_address, serve

    address = Address(host, port, password or None)
    check_address(address)
    candidates = () if references is None else list_images(references, lambda sentence: echo(sentence, error=True))
    from pdnla.inference.colorizer import Colorizer
    from pdnla.memory import keep_freed_memory
    from pdnla.web.studio import Studio

    keep_freed_memory()
    colorizer = Colorizer(weights, device=device, precision=precision.value, size=side)
    limits = Limits(max_megabytes, max_megapixels, max_files)

    def started(url: str) -> None:
        echo(f"{COMMAND}: the page is at {url}; Ctrl-C stops it")
        if browser and _has_display():
            webbrowser.open(url)

    serve(Studio(colorizer, limits, references, candidates), address, started)


def _has_display() -> bool:
    """Return whether a browser would open a window; otherwise one for terminals would occupy this terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def main() -> None:
    """Run the command."""
    run(COMMAND, lambda: app(standalone_mode=False, prog_name=COMMAND))


if __name__ == "__main__":
    main()
