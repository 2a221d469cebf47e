"""The output of commands while they work: a bar on a terminal, lines elsewhere, file names escaped."""

import os
import sys
import time
import unicodedata
from datetime import timedelta
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text
from typing_extensions import Self

_LINES = 20  # at most, of automatic progress without a terminal
_ESCAPED = {"Cc", "Cs", "Zl", "Zp"}  # control characters, invalid UTF-8, other line ends


def escape_controls(text: str) -> str:
    r"""Return ``text`` on one line: line ends, control characters and invalid UTF-8 become ``\n``, ``\udce9``."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _ESCAPED else character
        for character in text
    )


def escape_unencodable(text: str, encoding: str) -> str:
    r"""Return ``text`` with the characters that ``encoding`` lacks escaped, such as ``\u2192``."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def echo(line: str, error: bool = False) -> None:
    """Print a line on stdout or, for an ``error``, on stderr; file names in it may hold any characters.

    Characters that the stream's encoding lacks are escaped. If the reader has closed the pipe, as ``head`` does, the
    command goes on without printing.
    """
    stream = sys.stderr if error else sys.stdout
    try:
        print(
            escape_unencodable(escape_controls(line), getattr(stream, "encoding", None) or "utf-8"),
            file=stream,
            flush=True,
        )
    except BrokenPipeError:
        discard_output(stream)


def discard_output(stream: TextIO) -> None:
    """Discard the buffered output of ``stream`` and all further output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Progress:
    """Progress display of a command: a bar on stderr if that is a terminal, else lines on stdout.

    >>> with Progress("colouring", total=len(pictures)) as progress:
    ...     for picture in pictures:
    ...         progress.advance(line=f"coloured {picture}")       # printed only without a bar
    ...         progress.print(f"failed {picture}", error=True)    # printed in any case

    Args:
        doing: the name of the work, such as ``colouring``.
        total: the number of units; None if it is not known yet.
        unit: the name of the units.
        bar: False for no bar even on a terminal, because several processes share it.
        timed: show the speed, and without a terminal the time left too.
    """

    def __init__(
        self, doing: str, total: int | None = None, unit: str = "pictures", bar: bool = True, timed: bool = False
    ) -> None:
        self.doing, self.total, self.unit = doing, total, unit
        self.done = 0
        self._timed = timed
        self._first: tuple[int, float] | None = None  # what was done when the display began, and when
        self._last_printed = 0
        self._console = Console(stderr=True)
        self._bar: Bar | None = None
        if bar and self._console.is_terminal:
            columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            speed = (TextColumn("{task.description}"),) if timed else ()
            self._bar = Bar(*columns, *speed, console=self._console)
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
        """Stop updating the bar; another one may then be shown."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int = 1, line: str | None = None) -> None:
        """Count ``count`` more units as done; see :meth:`update`."""
        self.update(self.done + count, line=line)

    def update(self, done: int, total: int | None = None, line: str | None = None) -> None:
        """Set the number of units that are done.

        Args:
            done: the number.
            total: the number of all units; None for no change.
            line: printed if there is no bar; nothing if it is empty. None for an automatic line from time to time.
        """
        if done < self.done:  # a new count begins
            self._last_printed = 0
        self.done, self.total = done, self.total if total is None else total
        if self._first is None:
            self._first = done, time.monotonic()
        if self._bar is not None:
            speed = f"{self._speed():.1f} {self.unit}/s" if self._timed and self._speed() else ""
            self._bar.update(self._task, completed=done, total=self.total, description=speed)
        elif line is not None:
            if line:
                echo(line)
        elif self._due():
            self._last_printed = done
            echo(f"{self.doing} {done}/{self.total} {self.unit}{self._remaining()}")

    def _speed(self) -> float:
        """Return the units per second since the display began; 0 if none is done."""
        start, began = self._first or (self.done, 0.0)
        return (self.done - start) / max(time.monotonic() - began, 1e-6)

    def _remaining(self) -> str:
        if not self._timed or not self._speed() or self.total is None:
            return ""
        seconds = round((self.total - self.done) / self._speed())
        return f", {self._speed():.1f} {self.unit}/s, {timedelta(seconds=seconds)} left"

    def _due(self) -> bool:
        if not self.total or self.done == self._last_printed:
            return False
        step = -(-self.total // _LINES)
        return self.done // step != self._last_printed // step or self.done >= self.total > self._last_printed

    def print(self, line: str, error: bool = False) -> None:
        """Print a line in any case: above the bar, or with :func:`echo`."""
        if self._bar is None:
            echo(line, error)
        else:
            shown = Text(escape_unencodable(escape_controls(line), self._console.encoding))
            self._console.print(shown, soft_wrap=True)
