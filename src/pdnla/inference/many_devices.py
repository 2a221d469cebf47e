"""Colouring of an album on several devices: one process per device, with its own network and share of the pictures.

The share of a process depends on the list of all pictures, not on which of them have results, so processes that start
at different times, on one machine or several, never take the same picture. Each colours the pictures without results.
"""

import multiprocessing
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from pdnla.devices import choose_device, keep_compiled_code
from pdnla.errors import UserError
from pdnla.inference.album import ColouringSettings
from pdnla.inference.colorizer import Colorizer
from pdnla.inference.pipeline import Outcome, colour_tasks
from pdnla.inference.planning import Task
from pdnla.memory import keep_freed_memory
from pdnla.processes import Rank, become_child, start_child

_PATIENCE = 30  # seconds that a process has to finish its work


def choose_devices(device: str, count: int, rank: Rank) -> list[torch.device]:
    """Return the device of each of the ``count`` processes that the launched process ``rank`` starts.

    Args:
        device: ``auto`` (CUDA devices if there are any, else the CPU), ``cpu``, ``cuda``, or one such as ``cuda:1``.
        count: number of processes.
        rank: the launched process; those on one machine start at different CUDA devices.

    Raises:
        UserError: there are fewer CUDA devices, or the device is not available.
    """
    chosen = choose_device(device)
    if chosen.type != "cuda" or chosen.index is not None:
        if count > 1 and chosen.type != "cpu":
            raise UserError(f"--device {device}: is one device; use --device cuda with --devices {count}")
        return [chosen] * count
    available = torch.cuda.device_count()
    if count > available:
        raise UserError(f"--devices {count}: this machine has {available} CUDA device(s); use at most as many")
    return [torch.device("cuda", (rank.local * count + number) % available) for number in range(count)]


def colour_shares(
    shares: Sequence[Sequence[Task]],
    devices: Sequence[torch.device],
    settings: ColouringSettings,
    references: Sequence[Path] | None,
) -> Generator[Outcome, None, None]:
    """Colour a share of tasks on each device, and yield the outcome of each task as it finishes.

    A single share is coloured in this process; of several, each has its own process.

    Args:
        shares: the tasks of each device.
        devices: the devices, one per share.
        settings: the settings.
        references: the common references of all tasks; None: each task has its own.

    Raises:
        UserError: weights or the common references cannot be read, or a process was killed.
        DiskFullError: the disk is full.
        ChildProcessError: a process failed with an unexpected error; its traceback is on stderr.
    """
    work = [(list(tasks), device) for tasks, device in zip(shares, devices, strict=True) if tasks]
    if len(work) == 1:
        ((tasks, device),) = work
        yield from _colour(tasks, device, settings, references)
        return
    context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA, and inherits locks of threads
    threads = max(1, torch.get_num_threads() // max(1, len(work)))
    children: dict[Connection, tuple[BaseProcess, list[Task]]] = {}
    try:
        for tasks, device in work:
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(target=_serve, args=(sender, tasks, device, settings, references, threads))
            start_child(child)
            sender.close()
            children[receiver] = child, tasks
        yield from _outcomes(children)
    finally:
        _end(child for child, _ in children.values())


def _outcomes(children: dict[Connection, tuple[BaseProcess, list[Task]]]) -> Iterator[Outcome]:
    """Yield the outcomes that the processes report, until all have ended."""
    running = dict(children)
    while running:
        for connection in wait(list(running)):
            assert isinstance(connection, Connection)
            child, tasks = running[connection]
            try:
                message = connection.recv()
            except EOFError:
                del running[connection]
                child.join()
                _check(child)
                continue
            if isinstance(message, UserError):
                raise message
            number, failure = message
            yield Outcome(tasks[number], failure)


def _check(child: BaseProcess) -> None:
    """Raise the error of a process with a non-zero exit status."""
    status = child.exitcode or 0
    if status < 0:
        raise UserError(
            f"a process was killed (signal {-status}), perhaps because memory was short; repeat the command to"
            " continue, with fewer --devices or a smaller --batch-size"
        )
    if status:
        raise ChildProcessError("a process failed; its error is printed above")


def _end(children: Iterator[BaseProcess]) -> None:
    """Stop the running processes; each finishes the file that it is writing."""
    running = [child for child in children if child.is_alive()]
    for child in running:
        child.terminate()
    for child in running:
        child.join(_PATIENCE)
        if child.is_alive():
            child.kill()
            child.join()


def _serve(
    connection: Connection,
    tasks: Sequence[Task],
    device: torch.device,
    settings: ColouringSettings,
    references: Sequence[Path] | None,
    threads: int,
) -> None:
    """Colour tasks in a child process, and send the number of each finished task, with the reason if it failed."""
    become_child()
    torch.set_num_threads(threads)
    numbers = {task.result: number for number, task in enumerate(tasks)}
    try:
        for task, failure in _colour(tasks, device, settings, references):
            connection.send((numbers[task.result], failure))
    except UserError as error:
        connection.send(error)
    connection.close()


def _colour(
    tasks: Sequence[Task], device: torch.device, settings: ColouringSettings, references: Sequence[Path] | None
) -> Iterator[Outcome]:
    if device.type == "cpu":
        keep_freed_memory()
    if settings.compile:
        keep_compiled_code()
    options = (settings.precision, settings.size, settings.compile, settings.accelerate)
    colorizer = Colorizer(settings.weights, device, *options)
    yield from colour_tasks(colorizer, tasks, settings.batch_size, references, settings.depth)
