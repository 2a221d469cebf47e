"""Colour an album: skip existing results, choose references, colour, and report failures.

This module imports torch only when there is work to do.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pdnla.errors import DiskFullError, UserError
from pdnla.inference.planning import Album, Task
from pdnla.inference.results import prepare_folders
from pdnla.processes import Rank

if TYPE_CHECKING:
    import torch

    from pdnla.inference.choosing import ReferenceCopies


class ColouringSettings(NamedTuple):
    """Settings for colouring an album or a film.

    Attributes:
        weights: see :class:`~pdnla.inference.colorizer.Colorizer`.
        precision: the same.
        size: the same.
        compile: the same.
        accelerate: the same.
        device: ``auto``, ``cpu``, ``cuda`` or one such as ``cuda:1``.
        devices: number of processes, each on a CUDA device or on its share of the processors.
        batch_size: largest number of pictures of similar shape in a batch.
        overwrite: replace existing results.
        pick_from: the folder from which references are chosen; None: each task has its own.
        keep_references: copy chosen references next to the results.
        depth: bits per channel of the results, 8 or 16.
    """

    weights: str = "default"
    precision: str = "auto"
    size: int | str = 512
    compile: bool = False
    accelerate: bool = True
    device: str = "auto"
    devices: int = 1
    batch_size: int = 1
    overwrite: bool = False
    pick_from: Path | None = None
    keep_references: bool = False
    depth: int = 8


class AlbumObserver(Protocol):
    """Receives the events of colouring an album."""

    def skipped(self, task: Task) -> None:
        """A task was skipped because its result exists."""

    def described(self, done: int, total: int) -> None:
        """Descriptors of ``done`` of ``total`` pictures are computed, for choosing references."""

    def chosen(self, task: Task) -> None:
        """A reference with its score was chosen for a task."""

    def coloured(self, task: Task) -> None:
        """The result of a task was written."""

    def failed(self, sentence: str) -> None:
        """A picture or a folder has no result; the sentence contains its name and the reason."""

    def left_out(self, sentence: str) -> None:
        """Another file could not be used or written; the sentence contains its name and the reason."""


def colour_album(album: Album, settings: ColouringSettings, rank: Rank, observer: AlbumObserver) -> None:
    """Colour the tasks without results and report each to ``observer``.

    Args:
        album: the pictures of all launched processes.
        settings: the settings.
        rank: this launched process, which colours its share.
        observer: receives the events.

    Raises:
        UserError: weights or the common reference cannot be read, a device is not available, or the folder of results
            cannot be created.
        DiskFullError: the disk is full.
    """
    own = album.share(rank.number, rank.world)
    waiting = _waiting_tasks(own, settings.overwrite, observer)
    if not waiting:
        return
    from pdnla.images.greys import usable_references
    from pdnla.inference.choosing import ReferenceCopies
    from pdnla.inference.many_devices import choose_devices, colour_shares
    from pdnla.inference.pipeline import shared_references

    devices = choose_devices(settings.device, settings.devices, rank)
    copies = ReferenceCopies(album, settings.overwrite) if settings.keep_references else None
    if settings.pick_from is not None:
        waiting = _choose_references(waiting, album.candidates, settings.pick_from, devices[0], observer)
        if not waiting:
            return
    prepare_folders(own)
    by_result = {task.result: task for task in waiting}
    shares = [
        [by_result[task.result] for task in own.share(number, len(devices)).tasks if task.result in by_result]
        for number in range(len(devices))
    ]
    references = shared_references(waiting if settings.pick_from else album.tasks)
    if references is not None and album.listed:
        references = usable_references(references, frozenset(references) - album.listed, observer.left_out)
    try:
        with closing(colour_shares(shares, devices, settings, references)) as outcomes:
            for task, failure in outcomes:
                if failure is not None:
                    observer.failed(failure)
                    continue
                if copies is not None:
                    _keep(copies, task, observer)
                observer.coloured(task)
    finally:
        if copies is not None:
            copies.write()


def _waiting_tasks(album: Album, overwrite: bool, observer: AlbumObserver) -> list[Task]:
    """Return the tasks without results; report the others, and the pictures and folders that cannot be used."""
    for sentence in album.failures:
        observer.failed(sentence)
    for sentence in album.left_out:
        observer.left_out(sentence)
    waiting = []
    for task in album.tasks:
        if task.done and not overwrite:
            observer.skipped(task)
        else:
            waiting.append(task)
    return waiting


def _choose_references(
    tasks: Sequence[Task], candidates: Sequence[Path], folder: Path, device: "torch.device", observer: AlbumObserver
) -> list[Task]:
    """Return the tasks with the most similar candidates as their references, and report those without one."""
    from pdnla.inference.choosing import choose_for_tasks

    chosen, failures = choose_for_tasks(tasks, candidates, folder, device, observer.described, observer.left_out)
    for task in chosen:
        observer.chosen(task)
    for sentence in failures:
        observer.failed(sentence)
    return chosen


def _keep(copies: "ReferenceCopies", task: Task, observer: AlbumObserver) -> None:
    try:
        copies.add(task)
    except DiskFullError:
        raise
    except UserError as error:
        observer.left_out(str(error))
