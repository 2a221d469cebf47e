"""Running a command: the exit status, and errors of the user as one line."""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from pdnla.cli.progress import discard_output, echo
from pdnla.errors import UserError, refused_path

SOME_FAILED = 1
BAD_USAGE = 2
INTERRUPTED = 130
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
"""The option ``--device``."""

_LINE_END = re.compile(r"\s*[\r\n]+\s*")


def run(command: str, function: Callable[[], int | None]) -> NoReturn:
    """Run ``function`` and exit with the status it returns (0 for None).

    A :class:`UserError`, an option that typer refuses, or a file that the system refuses becomes one line on stderr and
    status 2. Ctrl-C becomes status 130. Any other exception is a bug and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # some programs that embed Python replace the stream
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = function() or 0
    except UserError as error:
        status = _print_error(command, str(error))
    except BrokenPipeError:  # Hydra printed its help into a pipe that was closed
        discard_output(sys.stdout)
        status = 0
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except OSError as error:
        if error.filename is None:
            raise
        status = _print_error(command, refused_path(error))
    except Exception as error:
        # Typer's usage errors are those of click, or of the copy of click inside newer versions of typer.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        status = _print_error(command, f"{message().rstrip('.')}; see {command} --help")
    if status == INTERRUPTED:
        echo(f"{command}: interrupted", error=True)
    _flush()
    sys.exit(status)


def _print_error(command: str, sentence: str) -> int:
    echo(f"{command}: {_LINE_END.sub(' ', sentence.strip())}", error=True)
    return BAD_USAGE


def _flush() -> None:
    """Flush stdout; a reader that has closed the pipe, such as ``head``, is not an error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output(sys.stdout)
