"""Commands in processes of their own, forked from one that has imported what they need (:mod:`fork_server`)."""

import atexit
import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fork_server import FORKS, Forked, fork

_SECONDS = 300.0
_STARTED: list["Run"] = []


@atexit.register
def _end() -> None:
    """Kill what a failed test left."""
    for run in _STARTED:
        if FORKS and run.status is None:
            run.send(signal.SIGKILL)


class Run:
    """A command that was started; its output is kept in a file.

    Attributes:
        pid: of its process, which leads a group of its own.
    """

    def __init__(self, process: "Forked | subprocess.Popen[bytes]", log: Path) -> None:
        self._process, self._log = process, log
        self.pid: int = process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, minus the number of the signal that killed it, or None while it runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """What it has printed so far, to both streams."""
        return self._log.read_text(encoding="utf-8", errors="backslashreplace")

    def send(self, number: int, group: bool = False) -> None:
        """Send a signal to its process or its whole group."""
        (os.killpg if group else os.kill)(self.pid, number)

    def wait_until(self, condition: Callable[[], bool], seconds: float = _SECONDS) -> None:
        """Wait for a condition that must come while the command runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.status is None, self.output[-3000:]
            assert time.monotonic() < deadline, self.output[-3000:]
            time.sleep(0.01)

    def wait_for_group(self, seconds: float = _SECONDS) -> None:
        """Wait until its processes have left after it was killed; each may still end what it has begun."""
        deadline = time.monotonic() + seconds
        while _has_members(self.pid):
            assert time.monotonic() < deadline, self.output[-3000:]
            time.sleep(0.01)

    def finish(self, status: int = 0, seconds: float = _SECONDS) -> str:
        """Wait for its end, with this exit status, and return what it printed."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {seconds} seconds: {self.output[-3000:]}") from None
        assert self.status == status, self.output[-3000:]
        return self.output


def start(command: str | Path, arguments: Sequence[object], folder: Path | None = None, **environment: str) -> Run:
    """Start a command such as ``pdnla-train``, a Python script, or ``python -m``, on one thread of the CPU.

    Args:
        command: the command's name, the script's path, or python.
        arguments: its command line; that of python begins with -m and a module.
        folder: the working directory; this process's own by default.
        environment: variables to set.
    """
    log = Path(_logs().name) / f"{len(_STARTED)}.txt"
    name = str(command)
    interpreted = name == "python" or name.endswith(".py")
    program = [] if name == "python" else [name if interpreted else str(Path(sys.executable).with_name(name))]
    given = [*program, *(str(argument) for argument in arguments)]
    variables = {**os.environ, **environment, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as output:
        if FORKS:
            process: Forked | subprocess.Popen[bytes] = fork(
                given, variables, str(folder or Path.cwd()), output.fileno()
            )
        else:
            line = [sys.executable, *given] if interpreted else given
            process = subprocess.Popen(line, cwd=folder, env=variables, stdout=output, stderr=output)
    _STARTED.append(Run(process, log))
    return _STARTED[-1]


@contextlib.contextmanager
def piped(command: Sequence[str], **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """Start a program whose pipes the test uses, and wait for its end; it is killed where the test fails before.

    Args:
        command: the program and its arguments.
        options: of :class:`subprocess.Popen`; standard output is a pipe of text by default.
    """
    with subprocess.Popen(command, **{"stdout": subprocess.PIPE, "text": True, **options}) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def _has_members(group: int) -> bool:
    """Return whether a process of a group runs, on Linux; one that has ended and that nobody waits for does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has left since
            state, _, number = stat.read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                return True
    return False


@functools.cache
def _logs() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="output-")
