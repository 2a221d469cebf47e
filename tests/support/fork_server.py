"""A process that has imported torch and Lightning, and forks itself wherever a test would start Python.

Importing them takes longer than most commands of the tests. All processes of a parallel run share one server, which
ends with the last of them. ``python`` beside it is written for each run: a stand-in for the interpreter, which passes
its command line, environment, folder and files to the server, and signals to the forked process. Without fork
(Windows), the interpreter itself starts.
"""

import array
import atexit
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORKS = sys.platform == "linux" and len(tempfile.gettempdir()) < 40  # macOS cannot fork what has imported torch
_IMPORTED = [
    "torch._dynamo",
    "pdnla.training.run",
    "pdnla.cli.train",
    "pdnla.cli.colorize",
    "pdnla.evaluation.runner",
    "pdnla.inference.colorizer",
]
_LENGTH = 8  # of the number before a request

# Written in full, because the interpreter starts sooner without the modules of this file.
_STAND_IN = """
import array, json, os, signal, socket, sys
files = []
for file in range(256):
    try:
        os.fstat(file)
    except OSError:
        continue
    files.append(file)
request = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), files, False], ensure_ascii=True).encode()
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
server.sendmsg([b"%{length}d" % len(request)], passed)
server.sendall(request)
answers = server.makefile("rb")
pid = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
status = int(answers.readline() or -9)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def python() -> str:
    """Return the path of the stand-in for the interpreter."""
    if not FORKS:
        return sys.executable
    _lease()
    return str(_folder() / "python")


class Forked:
    """A process that was forked.

    Attributes:
        pid: its number.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._answers = connection, connection.makefile("rb")
        self.pid = int(self._answers.readline())
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return its exit status, minus the number of the signal that killed it, or None while it runs."""
        if self._status is None and select.select([self._connection], [], [], 0)[0]:
            self._status = int(self._answers.readline())
        return self._status

    def wait(self, seconds: float) -> None:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self._status is None and not select.select([self._connection], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), seconds)
        self.poll()


def fork(arguments: Sequence[str], environment: Mapping[str, str], folder: Path, output: int) -> Forked:
    """Fork a process that leads a group of its own.

    Args:
        arguments: the interpreter's.
        environment: all its variables.
        folder: its working directory.
        output: the file of both its streams.
    """
    _lease()
    connection = _connect()
    with Path(os.devnull).open("rb") as nothing:
        files = [nothing.fileno(), output, output]
        request = json.dumps([list(arguments), dict(environment), str(folder), [0, 1, 2], True]).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
        connection.sendmsg([b"%*d" % (_LENGTH, len(request))], rights)
        connection.sendall(request)
        return Forked(connection)


@functools.cache
def _folder() -> Path:
    """Return the folder of this run of the tests."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}-alone")
    folder = Path(tempfile.gettempdir()) / f"pdnla-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(_folder() / "server"))
    except OSError:
        connection.close()
        raise
    return connection


@functools.cache
def _lease() -> socket.socket:
    """Start the server if no other process has, and keep it until this process ends."""
    import fcntl

    folder = _folder()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):
            return _connect()
        address = folder / "server"
        address.unlink(missing_ok=True)
        stand_in = folder / "python"
        program = folder / "python.py"
        program.write_text(_STAND_IN.format(address=str(address), length=_LENGTH))
        # A first line with the interpreter's own path could be too long for the system, or have a space.
        line = shlex.join([sys.executable, "-IS", str(program)])
        stand_in.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        stand_in.chmod(0o700)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen(64)
            paths = os.pathsep.join(path for path in sys.path if path)
            subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno()), str(folder)],
                pass_fds=[listener.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},  # OpenMP reads it when it is loaded
                start_new_session=True,
            )
        return _connect()


def _serve(listener: socket.socket, folder: Path) -> None:
    """Fork a process for each request until nobody is connected."""
    leases = [listener.accept()[0]]  # of the process that started the server
    for module in _IMPORTED:
        importlib.import_module(module)
    while leases:
        for ready in select.select([listener, *leases], [], [])[0]:
            if ready is listener:
                leases.append(listener.accept()[0])
                continue
            leases.remove(ready)
            head, files, _, _ = socket.recv_fds(ready, _LENGTH, 253)
            if head and os.fork() == 0:
                listener.close()
                for lease in leases:
                    lease.close()
                _keep(ready, int(head), files, folder)
            for file in files:
                os.close(file)
            ready.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def _keep(connection: socket.socket, length: int, files: list[int], folder: Path) -> None:
    """Fork the process of a request and tell its number and its status; end it if nobody listens any more."""
    request = b""
    while len(request) < length:
        request += connection.recv(length - len(request))
    arguments, environment, working, places, leads = json.loads(request)
    child = os.fork()
    if child == 0:
        connection.close()
        if leads:
            os.setsid()
        _be(arguments, environment, working, dict(zip(places, files, strict=True)), folder)
    for file in {*files, 0, 1, 2}:  # a reader of its output waits for nobody else
        os.close(file)
    os.setsid()

    def end_with_the_connection() -> None:
        with contextlib.suppress(OSError):
            if not connection.recv(1):
                os.kill(child, signal.SIGKILL)

    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % child)
    threading.Thread(target=end_with_the_connection, daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % status)
    os._exit(0)


def _be(arguments: list[str], environment: dict[str, str], working: str, files: dict[int, int], folder: Path) -> None:
    """Be an interpreter with these arguments."""
    aside = {place: _above(file, max(files)) for place, file in files.items()}
    for place, file in aside.items():
        os.dup2(file, place)
        os.close(file)
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment, OMP_NUM_THREADS="1")
        os.chdir(working)
        sys.executable = str(folder / "python")
        multiprocessing.set_executable(sys.executable)
        unbuffered = "-u" in arguments or "PYTHONUNBUFFERED" in environment
        _open_streams(environment.get("PYTHONIOENCODING", ""), unbuffered)
        sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        _interpret(arguments)
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
    except BaseException:
        traceback.print_exc()
        status = status or 120  # as the interpreter does
    os._exit(status & 0xFF)


def _open_streams(coding: str, unbuffered: bool) -> None:
    """Open the standard streams as the interpreter does; ``coding`` is the value of PYTHONIOENCODING."""
    encoding, _, errors = coding.partition(":")
    options: dict[str, Any] = {"encoding": encoding or None, "closefd": False}
    sys.stdin = open(0, errors=errors or None, **options)  # noqa: SIM115
    sys.stdout = open(1, "w", errors=errors or None, **options)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", **options)  # noqa: SIM115
    sys.stdout.reconfigure(line_buffering=unbuffered or sys.stdout.isatty())
    sys.stderr.reconfigure(line_buffering=True)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def _above(file: int, least: int) -> int:
    """Return a copy of a file with a number above another, and close the file."""
    import fcntl

    copy = fcntl.fcntl(file, fcntl.F_DUPFD, least + 1)
    os.close(file)
    return copy


def _interpret(arguments: list[str]) -> None:
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in ("-c", "-m", "-"):
        flag = rest.pop(0)
        if flag in ("-X", "-W"):
            rest.pop(0)
    if rest[0] == "-c":
        sys.argv = ["-c", *rest[2:]]
        sys.path.insert(0, "")
        module: Any = type(sys)("__main__")
        sys.modules["__main__"] = module
        exec(compile(rest[1], "<string>", "exec"), module.__dict__)
    elif rest[0] == "-m":
        sys.argv = rest[1:]
        sys.path.insert(0, str(Path.cwd()))
        sys.modules.pop(rest[1], None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = rest
        sys.path.insert(0, str(Path(rest[0]).resolve().parent))
        runpy.run_path(rest[0], run_name="__main__")


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        _serve(given, Path(sys.argv[2]))
