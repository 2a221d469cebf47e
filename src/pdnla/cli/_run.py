"""How every command ends: what it may print and the exit status it leaves with."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pdnla.errors import UserError

BAD_USAGE = 2
INTERRUPTED = 130


def run(command: str, function: Callable[[], int | None]) -> NoReturn:
    """Run ``function`` and leave with the status it returns (None is 0).

    What the user can mend, a :class:`UserError` or an option that typer refuses, becomes one line on stderr
    and status 2. Ctrl-C becomes status 130. Any other exception is a fault of ours and keeps its traceback.
    """
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
        print(f"{command}: interrupted", file=sys.stderr)
    sys.exit(status)


def _complain(command: str, sentence: str) -> int:
    print(f"{command}: {' '.join(sentence.split())}", file=sys.stderr)
    return BAD_USAGE


def progress_bar(doing: str, console: Console) -> Progress:
    """Return a bar that says what is being done, how much of it is, and how long the rest takes.

    It is shown on a terminal alone; elsewhere, say the same in lines.
    """
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextlib.contextmanager
def describing() -> Iterator[Callable[[int, int], None]]:
    """Yield what shows how many pictures are described, and of how many: a bar on a terminal, lines elsewhere."""
    console = Console(stderr=True)
    with progress_bar("describing", console) as bar:
        task = bar.add_task("", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if not console.is_terminal:
                print(f"described {done}/{total} pictures", flush=True)

        yield tell
