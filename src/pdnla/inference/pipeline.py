"""Colouring of files in one process: they are read ahead, coloured in batches and written in the background."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pdnla.errors import DiskFullError, UserError
from pdnla.images.greys import read_reference
from pdnla.images.io import Picture, read_image, read_metadata, read_pages, write_image, write_pages
from pdnla.images.metadata import Metadata
from pdnla.images.sixteen_bits import Pixels
from pdnla.inference.background import BackgroundWriter, read_ahead
from pdnla.inference.planning import Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from pdnla.inference.colorizer import Colorizer

_logger = logging.getLogger(__name__)

WAITING_PIXELS = 64_000_000
"""Largest number of pixels that are read ahead of the network, and that wait to be written."""
BATCH_PIXELS = 64_000_000
"""Number of full-size pixels above which a batch is coloured, even if it has few pictures."""


class Outcome(NamedTuple):
    """The outcome of a task: its result is written, or ``failure`` is a sentence with the reason."""

    task: Task
    failure: str | None = None


class LoadedTask(NamedTuple):
    """A task with its target (or its first page) and its reference in memory; None if all tasks share a reference."""

    task: Task
    target: Picture
    reference: Picture | None

    @property
    def pixels(self) -> int:
        """Number of pixels of the pictures."""
        pictures = [self.target] if self.reference is None else [self.target, self.reference]
        return sum(picture.size[0] * picture.size[1] for picture in pictures)


def colour_tasks(
    colorizer: "Colorizer",
    tasks: Iterable[Task],
    batch_size: int,
    references: Sequence[Path] | None = None,
    depth: int = 8,
) -> Iterator[Outcome]:
    """Colour tasks and yield the outcome of each when its result is written or it has failed.

    Args:
        colorizer: the colorizer.
        tasks: the tasks.
        batch_size: largest number of pictures of similar shape in a batch.
        references: the common references of all tasks, which are read once; None: each task has its own.
        depth: bits per channel of the results, 8 or 16.

    Raises:
        UserError: a common reference cannot be read.
        DiskFullError: the disk is full.
    """
    if references is not None:
        colorizer.set_references([_read_reference(path) for path in references])
    with BackgroundWriter[Outcome](limit=WAITING_PIXELS) as writer:
        for batch in batches(tasks, batch_size, references is not None):
            if isinstance(batch, Outcome):
                yield batch
                continue
            if batch[0].task.pages > 1:
                yield _colour_pages(colorizer, batch[0], depth)
                continue
            for task, result, weight in _colour_batch(colorizer, batch, depth):
                if isinstance(result, str):
                    yield Outcome(task, result)
                else:
                    yield from writer.submit(partial(_write, task, result), weight)
        yield from writer.finish()


def batches(tasks: Iterable[Task], batch_size: int, shared: bool) -> Iterator[list[LoadedTask] | Outcome]:
    """Read pictures ahead, and group them into batches of ``batch_size``, or fewer if they are huge.

    A target with several pages is a batch of its own.

    Args:
        tasks: the tasks.
        batch_size: number of pictures in a batch.
        shared: all tasks have the same reference, which is not read.

    Yields:
        Batches, and the outcome of each task whose pictures cannot be read.
    """

    def read(task: Task) -> LoadedTask | Outcome:
        try:
            target = read_image(task.source or task.target)
            _check_target(task, target)
            return LoadedTask(task, target, None if shared else _read_reference(task.reference))
        except UserError as error:
            return Outcome(task, str(error))

    def weigh(loaded: LoadedTask | Outcome) -> int:
        return 0 if isinstance(loaded, Outcome) else loaded.pixels

    batch: list[LoadedTask] = []
    for loaded in read_ahead(read, tasks, weigh, WAITING_PIXELS):
        if isinstance(loaded, Outcome):
            yield loaded
            continue
        if loaded.task.pages > 1:
            yield [loaded]
            continue
        batch.append(loaded)
        if len(batch) == batch_size or sum(other.pixels for other in batch) > BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_reference(path: Path) -> Picture:
    reference = read_reference(path)
    if reference.animated or reference.pages > 1:
        _logger.warning("%s: has several %s; the first is the reference", path, _parts(reference))
    return reference


def _check_target(task: Task, target: Picture) -> None:
    """Raise UserError if the target has further pages or frames, which would be lost."""
    name = task.source or task.target
    if target.animated:
        raise UserError(f"{name}: is an animation; export its frames into a folder and colour that")
    if target.pages != task.pages:
        raise UserError(f"{name}: is a TIFF of {target.pages} pages; end its name in .tif to have them all")


def _parts(picture: Picture) -> str:
    return "frames" if picture.animated else "pages"


def _colour_batch(
    colorizer: "Colorizer", batch: Sequence[LoadedTask], depth: int
) -> Iterator[tuple[Task, "Image | Pixels | str", int]]:
    """Colour a batch; if it fails, colour its pictures one by one, so that only those at fault have no result.

    Yields:
        Each task, its result or a sentence with the reason for the failure, and its number of pixels.
    """
    references = [loaded.reference for loaded in batch if loaded.reference is not None]
    try:
        results = _colour(colorizer, [loaded.target for loaded in batch], references or None, depth)
    except UserError as error:
        if len(batch) == 1:
            task = batch[0].task
            yield task, f"{task.source or task.target}: {error}", 0
            return
        for loaded in batch:
            yield from _colour_batch(colorizer, [loaded], depth)
        return
    for loaded, result in zip(batch, results, strict=True):
        yield loaded.task, result, loaded.target.size[0] * loaded.target.size[1]


def _colour(
    colorizer: "Colorizer", targets: Sequence[Picture], references: Sequence[Picture] | None, depth: int
) -> "Sequence[Image | Pixels]":
    if depth == 16:
        return colorizer.colorize_16_bits(targets, references)
    return colorizer.colorize_many(targets, references)


def _colour_pages(colorizer: "Colorizer", loaded: LoadedTask, depth: int) -> Outcome:
    """Colour the pages of a target one by one; each is written before the next is read."""
    task = loaded.task
    references = None if loaded.reference is None else [loaded.reference]

    def pages() -> "Iterator[tuple[Image | Pixels, Metadata]]":
        for picture, metadata in read_pages(task.target):
            yield _colour(colorizer, [picture], references, depth)[0], metadata

    try:
        write_pages(task.result, pages())
    except DiskFullError:  # the others have no room either
        raise
    except UserError as error:
        sentence = str(error)
        named = sentence.startswith((str(task.target), str(task.result)))
        return Outcome(task, sentence if named else f"{task.target}: {sentence}")
    return Outcome(task)


def _write(task: Task, result: "Image | Pixels") -> Outcome:
    try:
        write_image(task.result, result, read_metadata(task.source or task.target))
    except DiskFullError:  # the others have no room either
        raise
    except UserError as error:
        return Outcome(task, str(error))
    return Outcome(task)


def shared_references(tasks: Sequence[Task]) -> tuple[Path, ...] | None:
    """Return the common references of all tasks, or None if they differ."""
    first = tasks[0].references
    return first if all(task.references == first for task in tasks) else None
