"""Many pictures: which is to be coloured after which, read ahead of colouring, coloured in batches.

No torch here: the commands import this before they know whether there is anything to compute.
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pdnla.errors import UserError
from pdnla.images.io import Openable, Picture, check_writable_suffix, list_images, read_image, write_image
from pdnla.inference.background import Behind, ahead
from pdnla.inference.matching import Pairing, pair

if TYPE_CHECKING:
    from PIL.Image import Image

    from pdnla.data.shards import Shards
    from pdnla.inference.colorizer import Colorizer

WAITING_PIXELS = 64_000_000
"""Read ahead of colouring, and as many still to be written."""
BATCH_PIXELS = 64_000_000
"""Full-size pixels in a batch after which it is coloured, however few the pictures."""
ENDING = "_colorized"
"""Of a result's name, where the user gives none."""
COPY = "_reference"
"""Of the name of a copy of its reference."""


class Job(NamedTuple):
    """One picture to colour.

    Attributes:
        name: what to call it.
        target: where it is.
        reference: where its colours come from.
        result: where it goes.
        score: of a reference that was picked.
        source: what to open instead of ``target``, which is then a file of many pictures.
    """

    name: str
    target: Path
    reference: Path
    result: Path
    score: float | None = None
    source: Openable | None = None


class Plan(NamedTuple):
    """The jobs, a sentence for each target that has no reference, and what the user should know.

    ``folder`` is where the results of a folder go. Where references are to be picked, ``candidates`` are what from, and
    each job's reference is their folder until one is.
    """

    jobs: list[Job]
    unmatched: list[str]
    remark: str | None
    folder: Path | None = None
    candidates: Sequence[Path] = ()


def plan_jobs(target: Path, reference: Path, out: Path | None, pick: bool = False) -> Plan:
    """Pair targets with references and name the results; nothing is decoded or written.

    Args:
        target: a picture or a folder.
        reference: a picture or a folder.
        out: where the result or results go; None for beside the target.
        pick: references are to be picked from a folder by what they show, not matched by name.

    Raises:
        UserError: a path is missing or empty, no reference can be told for any target, or a result would take
            the place of a target or a reference.
    """
    for path in (target, reference):
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder; check the path")
    if target.is_dir():
        folder = out or _beside(target)
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file; a folder of targets needs a folder for its results")
        for path in (target, reference):
            if _same(folder, path):
                raise UserError(f"{folder}: is where the pictures come from; choose another folder with -o")
        targets = _images(target, without=(folder, reference))
        results = [folder / name for name in result_names([path.relative_to(target) for path in targets])]
        names = [str(path.relative_to(target)) for path in targets]
    else:
        folder = target
        targets, results, names = [target], [_result_of_one(target, out)], [target.name]
    paired: Pairing = Pairing([reference] * len(targets), None)
    candidates: list[Path] = []
    if pick:
        written = {path.resolve() for path in results}
        copied = {path.with_name(f"{path.stem}{COPY}") for path in written}
        for path in _images(reference, without=(folder,)):
            place = path.resolve()
            if ENDING not in path.stem and place not in written and place.with_suffix("") not in copied:
                candidates.append(path)
    elif reference.is_dir():
        paired = pair(target, targets, reference, _images(reference, without=(folder, target)))
    jobs, unmatched = [], []
    for name, path, guide, result in zip(names, targets, paired.references, results, strict=True):
        if isinstance(guide, Path):
            jobs.append(Job(name, path, guide, result))
        else:
            unmatched.append(f"{path}: {guide}")
    inputs = {path.resolve() for job in jobs for path in (job.target, job.reference)}
    for job in jobs:
        if job.result.resolve() in inputs:
            raise UserError(f"{job.result}: is a picture to work from; choose another place with -o")
    return Plan(jobs, unmatched, paired.remark, folder if target.is_dir() else None, candidates)


def plan_pairs(pairs: Sequence[tuple[Path, Path]], out: Path) -> list[Job]:
    """Name the results of pairs of a target and a reference in a folder, by the targets' places below what they share.

    Raises:
        UserError: a result would take the place of a target or a reference.
    """
    targets = [target.absolute() for target, _ in pairs]
    top = Path(os.path.commonpath([target.parent for target in targets]))
    names = [target.relative_to(top) for target in targets]
    inputs = {path.resolve() for pair in pairs for path in pair}
    jobs = []
    for name, (target, reference), result in zip(names, pairs, result_names(names), strict=True):
        jobs.append(Job(str(name), target, reference, out / result))
        if jobs[-1].result.resolve() in inputs:
            raise UserError(f"{jobs[-1].result}: is a picture to work from; choose another folder")
    return jobs


def plan_shards(shards: "Shards", reference: Path, out: Path) -> list[Job]:
    """Name the results of the photographs in shards: a folder a shard, in it the photographs' keys."""
    from pdnla.data.shards import shard_path

    jobs = []
    for sample in shards:
        result = out / f"{sample.shard:06d}" / f"{sample.key}.png"
        jobs.append(Job(str(sample), shard_path(shards.root, sample.shard), reference, result, source=sample))
    return jobs


def result_names(targets: Sequence[Path]) -> list[Path]:
    """Return a PNG's name for each relative path, all different even where upper and lower case are one.

    It is the target's with the suffix .png; targets that differ in their suffix only keep it (a.jpg.png).
    """
    wanted = [path.with_suffix(".png") for path in targets]
    count = Counter(str(path).casefold() for path in wanted)
    taken = {name for name, times in count.items() if times == 1}
    names = []
    for path, name in zip(targets, wanted, strict=True):
        if count[str(name).casefold()] > 1:
            endings = itertools.chain([".png"], (f"_{number}.png" for number in itertools.count(2)))
            tries = (path.with_name(path.name + ending) for ending in endings)
            name = next(free for free in tries if str(free).casefold() not in taken)
            taken.add(str(name).casefold())
        names.append(name)
    return names


def _images(folder: Path, without: Sequence[Path]) -> list[Path]:
    """Return the images below ``folder`` but not those below the folders in ``without`` that lie in it."""
    top = folder.resolve()
    inner = [path.resolve() for path in without]
    inner = [path for path in inner if path != top and path.is_relative_to(top) and path.is_dir()]
    images = list_images(folder)
    kept = [path for path in images if not any(path.resolve().is_relative_to(other) for other in inner)]
    if not kept:
        raise UserError(f"{folder}: holds no image of its own; choose another folder")
    return kept


def _beside(folder: Path) -> Path:
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}{ENDING}")


def _result_of_one(target: Path, out: Path | None) -> Path:
    name = f"{target.stem}{ENDING}.png"
    if out is None:
        return target.with_name(name)
    if out.is_dir():
        return out / name
    check_writable_suffix(out)
    return out


def _same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()


class Loaded(NamedTuple):
    """A job with its pictures in memory; no reference where all jobs share one."""

    job: Job
    target: Picture
    reference: Picture | None

    @property
    def pixels(self) -> int:
        """How many pixels they have together."""
        pictures = [self.target] if self.reference is None else [self.target, self.reference]
        return sum(picture.size[0] * picture.size[1] for picture in pictures)


def batches(
    jobs: Iterable[Job], batch_size: int, shared: bool, failed: Callable[[str], None]
) -> Iterator[list[Loaded]]:
    """Read pictures, ahead of what is done with them, into batches of ``batch_size``, or fewer where they are huge.

    Args:
        jobs: what to read.
        batch_size: pictures in a batch.
        shared: all have one reference, which is not read.
        failed: is told why a picture cannot be read; it is left out.
    """

    def read(job: Job) -> Loaded | str:
        try:
            return Loaded(job, read_image(job.source or job.target), None if shared else read_image(job.reference))
        except UserError as error:
            return str(error)

    batch: list[Loaded] = []
    for found in ahead(read, jobs, lambda found: 0 if isinstance(found, str) else found.pixels, WAITING_PIXELS):
        if isinstance(found, str):
            failed(found)
            continue
        batch.append(found)
        if len(batch) == batch_size or sum(loaded.pixels for loaded in batch) > BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def colour_batch(
    colorizer: "Colorizer", batch: Sequence[Loaded], failed: Callable[[str], None]
) -> Iterator[tuple[Job, "Image"]]:
    """Colour a batch; if it fails, its pictures one by one, so that one of them does not spoil the rest."""
    references = [loaded.reference for loaded in batch if loaded.reference is not None]
    try:
        results = colorizer.colorize_many([loaded.target for loaded in batch], references or None)
    except UserError as error:
        if len(batch) == 1:
            failed(f"{batch[0].job.target}: {error}")
            return
        for loaded in batch:
            yield from colour_batch(colorizer, [loaded], failed)
        return
    yield from zip((loaded.job for loaded in batch), results, strict=True)


class ResultWriter(Behind[Job]):
    """Writes results in threads, a bounded number of pixels at a time."""

    def __init__(self) -> None:
        super().__init__(limit=WAITING_PIXELS)

    def write(self, job: Job, result: "Image") -> list[Job]:
        """Begin to write a job's result, and return the jobs whose results have been written since the last call.

        Raises:
            UserError: an earlier result cannot be written.
        """
        return self.do(job, partial(write_image, job.result, result), weight=result.width * result.height)


def colour(
    colorizer: "Colorizer", jobs: Sequence[Job], batch_size: int, failed: Callable[[str], None]
) -> Iterator[Job]:
    """Colour jobs and yield each when its result is written; reading and writing go on beside the network.

    Args:
        colorizer: what colours.
        jobs: what to colour.
        batch_size: pictures of like shape coloured at a time.
        failed: is told why a picture cannot be read or coloured; it is left out.

    Raises:
        UserError: the one reference of all targets cannot be read, or a result cannot be written.
    """
    shared = shared_reference(jobs)
    if shared is not None:
        colorizer.set_reference(read_image(shared))
    with ResultWriter() as writer:
        for batch in batches(jobs, batch_size, shared is not None, failed):
            for job, result in colour_batch(colorizer, batch, failed):
                yield from writer.write(job, result)
        yield from writer.rest()


def shared_reference(jobs: Sequence[Job]) -> Path | None:
    """Return the one reference of all jobs, or None if they have several."""
    first = jobs[0].reference
    return first if all(job.reference == first for job in jobs) else None
