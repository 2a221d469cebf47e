"""What commands print while they work: a bar on a terminal, lines elsewhere, and nothing that a name can break."""

import os
import sys
import unicodedata
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text
from typing_extensions import Self

_LINES = 20  # of automatic progress at most, where there is no terminal
_ESCAPED = {"Cc", "Cs", "Zl", "Zp"}  # control characters, bytes that are no UTF-8, other line ends


def escaped(text: str) -> str:
    r"""Return ``text`` in one line: line ends, control characters and bytes that are no UTF-8 as ``\n``, ``\udce9``."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _ESCAPED else character
        for character in text
    )


def encodable(text: str, encoding: str) -> str:
    r"""Return ``text`` with what ``encoding`` lacks escaped, as ``\u2192``."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(line: str, error: bool = False) -> None:
    """Print a line on stdout or, if it tells of an ``error``, on stderr; names in it can hold anything.

    What the stream's encoding lacks is printed escaped. A reader that has left, such as ``head``, ends the printing and
    not the work.
    """
    stream = sys.stderr if error else sys.stdout
    try:
        print(encodable(escaped(line), getattr(stream, "encoding", None) or "utf-8"), file=stream, flush=True)
    except BrokenPipeError:
        discard(stream)


def discard(stream: TextIO) -> None:
    """Let all that is printed on ``stream`` from now on, and all that waits to be, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Progress:
    """How far a command is: a bar on stderr if that is a terminal, else lines on stdout.

    >>> with Progress("colouring", total=len(pictures)) as progress:
    ...     for picture in pictures:
    ...         progress.advance(line=f"coloured {picture}")       # the line is for where there is no bar
    ...         progress.print(f"failed {picture}", error=True)    # this one is shown in any case

    Args:
        doing: what is done, such as ``colouring``.
        total: of how many; None if that is not known yet.
        unit: what is counted.
        bar: False for no bar even on a terminal, which several processes share.
    """

    def __init__(self, doing: str, total: int | None = None, unit: str = "pictures", bar: bool = True) -> None:
        self.doing, self.total, self.unit = doing, total, unit
        self.done = 0
        self._told = 0
        self._console = Console(stderr=True)
        self._bar: Bar | None = None
        if bar and self._console.is_terminal:
            columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=self._console)
            self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()

    def stop(self) -> None:
        """Leave the bar as it is; another one may then be shown."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int = 1, line: str | None = None) -> None:
        """Count ``count`` more as done; see :meth:`update`."""
        self.update(self.done + count, line=line)

    def update(self, done: int, total: int | None = None, line: str | None = None) -> None:
        """Say how many are done, and of how many if that has become known.

        Args:
            done: so many.
            total: of so many; None: as before.
            line: what to print where there is no bar, nothing if it is empty. None: a line now and then that says how
                many are done.
        """
        if done < self.done:  # something else is counted now
            self._told = 0
        self.done, self.total = done, self.total if total is None else total
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self.total)
        elif line is not None:
            if line:
                say(line)
        elif self._due():
            self._told = done
            say(f"{self.doing} {done}/{self.total} {self.unit}")

    def _due(self) -> bool:
        if not self.total or self.done == self._told:
            return False
        step = -(-self.total // _LINES)
        return self.done // step != self._told // step or self.done >= self.total

    def print(self, line: str, error: bool = False) -> None:
        """Print a line that is shown in any case: above the bar, or as :func:`say` does."""
        if self._bar is None:
            say(line, error)
        else:
            shown = Text(encodable(escaped(line), self._console.encoding))
            self._console.print(shown, soft_wrap=True)
