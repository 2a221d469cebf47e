"""From files to files in one process: read ahead, coloured in batches, written in the background."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pdnla.errors import DiskFullError, UserError
from pdnla.images.io import Picture, read_image, write_image
from pdnla.inference.background import BackgroundWriter, read_ahead
from pdnla.inference.planning import Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from pdnla.inference.colorizer import Colorizer

WAITING_PIXELS = 64_000_000
"""Read ahead of the network at most, and as many waiting to be written."""
BATCH_PIXELS = 64_000_000
"""Full-size pixels in a batch after which it is coloured, however few the pictures."""


class Outcome(NamedTuple):
    """What became of a task: its result is written, or ``failure`` is the sentence why there is none."""

    task: Task
    failure: str | None = None


class LoadedTask(NamedTuple):
    """A task with its pictures in memory; no reference where all tasks share one."""

    task: Task
    target: Picture
    reference: Picture | None

    @property
    def pixels(self) -> int:
        """How many pixels they have together."""
        pictures = [self.target] if self.reference is None else [self.target, self.reference]
        return sum(picture.size[0] * picture.size[1] for picture in pictures)


def colour_tasks(
    colorizer: "Colorizer", tasks: Iterable[Task], batch_size: int, reference: Path | None = None
) -> Iterator[Outcome]:
    """Colour tasks and yield the outcome of each, once its result is written or it has failed.

    Args:
        colorizer: what colours.
        tasks: what to colour.
        batch_size: pictures of like shape coloured at a time.
        reference: the one reference of all tasks, which is read once; None: each has its own.

    Raises:
        UserError: the one reference of all targets cannot be read.
        DiskFullError: there is no room for a result.
    """
    if reference is not None:
        colorizer.set_reference(read_image(reference))
    with BackgroundWriter[Outcome](limit=WAITING_PIXELS) as writer:
        for batch in batches(tasks, batch_size, reference is not None):
            if isinstance(batch, Outcome):
                yield batch
                continue
            for task, result in _colour_batch(colorizer, batch):
                if isinstance(result, str):
                    yield Outcome(task, result)
                else:
                    yield from writer.submit(partial(_write, task, result), weight=result.width * result.height)
        yield from writer.finish()


def batches(tasks: Iterable[Task], batch_size: int, shared: bool) -> Iterator[list[LoadedTask] | Outcome]:
    """Read pictures ahead of their use, into batches of ``batch_size``, or fewer where they are huge.

    Args:
        tasks: what to read.
        batch_size: pictures in a batch.
        shared: all have one reference, which is not read.

    Yields:
        Batches, and the outcome of each task whose pictures cannot be read.
    """

    def read(task: Task) -> LoadedTask | Outcome:
        try:
            target = read_image(task.source or task.target)
            return LoadedTask(task, target, None if shared else read_image(task.reference))
        except UserError as error:
            return Outcome(task, str(error))

    def weigh(loaded: LoadedTask | Outcome) -> int:
        return 0 if isinstance(loaded, Outcome) else loaded.pixels

    batch: list[LoadedTask] = []
    for loaded in read_ahead(read, tasks, weigh, WAITING_PIXELS):
        if isinstance(loaded, Outcome):
            yield loaded
            continue
        batch.append(loaded)
        if len(batch) == batch_size or sum(other.pixels for other in batch) > BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def _colour_batch(colorizer: "Colorizer", batch: Sequence[LoadedTask]) -> Iterator[tuple[Task, "Image | str"]]:
    """Colour a batch; if it fails, its pictures one by one, so that one of them does not spoil the rest."""
    references = [loaded.reference for loaded in batch if loaded.reference is not None]
    try:
        results = colorizer.colorize_many([loaded.target for loaded in batch], references or None)
    except UserError as error:
        if len(batch) == 1:
            task = batch[0].task
            yield task, f"{task.source or task.target}: {error}"
            return
        for loaded in batch:
            yield from _colour_batch(colorizer, [loaded])
        return
    yield from zip((loaded.task for loaded in batch), results, strict=True)


def _write(task: Task, result: "Image") -> Outcome:
    try:
        write_image(task.result, result)
    except DiskFullError:  # the others have no room either
        raise
    except UserError as error:
        return Outcome(task, str(error))
    return Outcome(task)


def shared_reference(tasks: Sequence[Task]) -> Path | None:
    """Return the one reference of all tasks, or None if they have several."""
    first = tasks[0].reference
    return first if all(task.reference == first for task in tasks) else None
