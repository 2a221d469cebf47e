"""Commands in processes of their own, forked from one that has imported what they need.

Importing torch and Lightning takes longer than most of these tests. Where there is no fork (Windows), each process
imports them itself. A process leaves as multiprocessing's do: what an interpreter does at its very end is not done.
"""

import atexit
import functools
import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

_FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_CONTEXT: Any = multiprocessing.get_context("forkserver" if _FORKS else "spawn")
_IMPORTED = [
    "torch._dynamo",
    "pdnla.cli.train",
    "pdnla.cli.colorize",
    "pdnla.training.run",
    "pdnla.inference.colorizer",
]
_SECONDS = 300.0
_STARTED: list[Any] = []


@atexit.register
def _end() -> None:
    """Kill what a failed test left, for which multiprocessing would wait."""
    for process in _STARTED:
        process.kill()


class Run:
    """A command that was started; its output is kept in a file.

    Attributes:
        pid: of its process, which leads a group of its own.
    """

    def __init__(self, process: Any, log: Path) -> None:
        self._process, self._log = process, log
        self.pid: int = process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, minus the number of the signal that killed it, or None while it runs."""
        return self._process.exitcode

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

    def finish(self, status: int = 0, seconds: float = _SECONDS) -> str:
        """Wait for its end, with this exit status, and return what it printed."""
        self._process.join(seconds)
        assert self.status is not None, f"still runs after {seconds} seconds: {self.output[-3000:]}"
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
    log = str(Path(_logs().name) / f"{len(_STARTED)}.txt")
    Path(log).touch()
    given = (str(command), [str(argument) for argument in arguments], str(folder or Path.cwd()), environment, log)
    with patch.dict(os.environ, OMP_NUM_THREADS="1"):  # which OpenMP reads when it is loaded
        if _FORKS:
            _CONTEXT.set_forkserver_preload(_IMPORTED)
        process = _CONTEXT.Process(target=_run, args=given)
        process.start()
    _STARTED.append(process)
    return Run(process, Path(log))


@functools.cache
def _logs() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="output-")


def _run(command: str, arguments: list[str], folder: str, environment: dict[str, str], log: str) -> None:
    """Be the command."""
    if hasattr(os, "setsid"):
        os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.update(environment, OMP_NUM_THREADS="1")
    os.chdir(folder)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = [command if command.endswith(".py") else str(Path(sys.executable).with_name(command)), *arguments]
    if command.endswith(".py"):
        sys.path.insert(0, str(Path(command).parent.resolve()))
        runpy.run_path(command, run_name="__main__")
    elif command == "python":
        del sys.argv[:2]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        name = command.removeprefix("pdnla-")
        importlib.import_module(f"pdnla.cli.{'evaluate' if name == 'eval' else name}").main()
