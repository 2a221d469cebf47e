"""What the campaigns of damaged files share: damages of bytes, a process with limits for each file, a table."""

import collections
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pdnla.errors import UserError

GOOD = ("read", "refused")
"""Outcomes that a damaged file may have."""


class Result(NamedTuple):
    """What came of a file: an outcome, what was said, seconds and MB beyond the process's own."""

    outcome: str
    said: str
    seconds: float
    megabytes: float


def truncated(data: bytearray, chance: random.Random) -> bytearray:
    return data[: int(len(data) * chance.random() ** 2)]


def flipped(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.choice((1, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def start_flipped(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.choice((1, 2, 4, 16))):
        data[chance.randrange(min(len(data), 4096))] = chance.randrange(256)
    return data


def end_flipped(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.choice((1, 2, 4, 16))):
        data[-1 - chance.randrange(min(len(data), 4096))] = chance.randrange(256)
    return data


def zeroed(data: bytearray, chance: random.Random) -> bytearray:
    start, length = chance.randrange(len(data)), chance.choice((16, 512, 65536))
    data[start : start + length] = bytes(len(data[start : start + length]))
    return data


def inserted(data: bytearray, chance: random.Random) -> bytearray:
    start = chance.randrange(len(data))
    data[start:start] = chance.randbytes(chance.choice((1, 7, 4096)))
    return data


def cut_out(data: bytearray, chance: random.Random) -> bytearray:
    start = chance.randrange(len(data))
    del data[start : start + chance.choice((1, 7, 4096))]
    return data


BYTES = (truncated, flipped, start_flipped, end_flipped, zeroed, inserted, cut_out)


def attempt(file: Path, use: Callable[[Path], object], seconds: int, memory: int) -> Result:
    """Use a file in a forked process with limits; it ends there whatever happens.

    Call it where no other threads are: a forked process hangs at a lock that one of them holds.

    Args:
        file: the file.
        use: does with it what the commands do.
        seconds: that it may take.
        memory: bytes that may be added to the process.
    """
    began = time.monotonic()
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        os.write(writable, f"{memory_of(1)}\n".encode())
        said = outcome(file, use, seconds, memory)
        os.write(writable, said.encode(errors="backslashreplace")[:4000])
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        before, _, text = pipe.read().decode().partition("\n")
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        text = "took too long\n" if number in (signal.SIGALRM, signal.SIGXCPU) else f"died of signal {number}\n"
    kind, _, said = text.partition("\n")
    return Result(kind, said, time.monotonic() - began, usage.ru_maxrss / 1024 - int(before) / 2**20)


def memory_of(column: int) -> int:
    """Return this process's bytes of address space (column 0) or of memory (1)."""
    return int(Path("/proc/self/statm").read_text().split()[column]) * resource.getpagesize()


def outcome(file: Path, use: Callable[[Path], object], seconds: int, memory: int) -> str:
    """Return what happens to a file, and what is said of it after a line's end."""
    os.chdir(file.parent)  # where a payload would write
    limit = memory_of(0) + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    try:
        use(file)
    except UserError as error:
        said = str(error)
        sound = said.isprintable() and len(said) < 1200 and file.name in said
        return f"refused\n{said}" if sound else f"no plain sentence\n{said!r}"
    except MemoryError as error:
        return f"out of memory\n{error!r}"
    except BaseException as error:
        return f"traceback\n{type(error).__name__}: {error}"
    return "read\n"


def table(results_of: Mapping[tuple[str, str], Sequence[Result]]) -> str:
    """Return the outcomes by kind and damage, in Markdown."""
    outcomes = [*GOOD, *sorted({r.outcome for results in results_of.values() for r in results} - set(GOOD))]
    lines = [f"| kind | damage | files | {' | '.join(outcomes)} | seconds, at most | MB, at most |"]
    lines.append("|" + " --- |" * (len(outcomes) + 5))
    for (kind, damage), results in sorted(results_of.items()):
        counts = collections.Counter(result.outcome for result in results)
        numbers = " | ".join(str(counts[name]) for name in outcomes)
        worst = f"{max(r.seconds for r in results):.1f} | {max(r.megabytes for r in results):.0f}"
        lines.append(
            f"| {kind.replace('_', ' ')} | {damage.replace('_', ' ')} | {len(results)} | {numbers} | {worst} |"
        )
    return "\n".join(lines)
