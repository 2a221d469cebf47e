"""How every command ends: what it prints last and its exit status."""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import typer

from pdnla.cli._progress import discard, say
from pdnla.errors import UserError

SOME_FAILED = 1
BAD_USAGE = 2
INTERRUPTED = 130

_LINE_END = re.compile(r"\s*[\r\n]+\s*")


def run(command: str, function: Callable[[], int | None]) -> NoReturn:
    """Run ``function`` and leave with the status it returns (None is 0).

    What the user can mend, a :class:`UserError` or an option that typer refuses, becomes one line on stderr
    and status 2. Ctrl-C becomes status 130. Any other exception is a bug and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # not a text file, as in some programs that embed Python
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = function() or 0
    except UserError as error:
        status = _complain(command, str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        # Typer's usage errors are click's, or those of the copy of click that newer versions carry.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        status = _complain(command, f"{message().rstrip('.')}; see {command} --help")
    if status == INTERRUPTED:
        say(f"{command}: interrupted", error=True)
    _flush()
    sys.exit(status)


def _complain(command: str, sentence: str) -> int:
    say(f"{command}: {_LINE_END.sub(' ', sentence.strip())}", error=True)
    return BAD_USAGE


def _flush() -> None:
    """Print what is waiting to be printed; a reader that has left, such as ``head``, is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
