"""Planning of an album: the reference of each target and the path of its result; nothing is decoded or written.

This module does not import torch: commands import it before they know whether there is work to do.
"""

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pdnla.errors import UserError
from pdnla.images.io import TIFF_SUFFIXES, Openable, check_writable_suffix, count_pages, list_images
from pdnla.inference.matching import Matches, any_named, match

RESULT = "_colorized"
"""Ending of the stem of a result, if the user gives no name."""
PAIRS_SUFFIXES = (".csv", ".tsv", ".txt")
"""Suffixes of pairs files, in lower case."""
REFERENCE_COPY = "_reference"
"""Ending of the stem of a copied reference."""


class Task(NamedTuple):
    """One picture to colour.

    Attributes:
        name: its name in messages.
        target: its path.
        reference: path of the reference.
        result: path of the result.
        score: similarity of a chosen reference to the target, a cosine.
        source: the object to open instead of ``target``, if that file contains many pictures.
        pages: number of pages of the target, and of the result, a TIFF.
        further: further references.
    """

    name: str
    target: Path
    reference: Path
    result: Path
    score: float | None = None
    source: Openable | None = None
    pages: int = 1
    further: tuple[Path, ...] = ()

    @property
    def references(self) -> tuple[Path, ...]:
        """All of its references."""
        return self.reference, *self.further

    @property
    def done(self) -> bool:
        """Whether the result exists."""
        return os.path.isfile(self.result)  # noqa: PTH113 - Path.is_file raises if a name is too long


class Album(NamedTuple):
    """Pictures to colour together.

    Attributes:
        tasks: the pictures, always in the same order.
        failures: a sentence for each target, or folder of them, that cannot be coloured.
        remark: a note for the user about how references were matched.
        folder: the folder of results; None for the result of a single picture.
        candidates: the pictures from which references are chosen by content, if they are.
        left_out: a sentence for each folder of references that cannot be listed.
        listed: the common references that the user did not name, but that a named folder contains.
    """

    tasks: list[Task]
    failures: list[str]
    remark: str | None = None
    folder: Path | None = None
    candidates: Sequence[Path] = ()
    left_out: Sequence[str] = ()
    listed: frozenset[Path] = frozenset()

    def share(self, number: int, count: int) -> "Album":
        """Return the share of process ``number`` of ``count``: every ``count``-th task; the first has all messages."""
        if number:
            return self._replace(tasks=self.tasks[number::count], failures=[], remark=None, left_out=())
        return self._replace(tasks=self.tasks[::count])


def plan_album(
    target: Path, reference: Path | Sequence[Path] | None, out: str | Path | None, by_content: bool = False
) -> Album:
    """Pair targets with references and name the results.

    Args:
        target: a picture; a folder of pictures or of shards; or, without ``reference``, a pairs file.
        reference: a picture; if the targets are not shards, a folder of pictures; or several pictures and folders, all
            of them references of every target.
        out: the result, or the folder of results; a trailing ``/`` marks a folder. None: next to the target.
        by_content: choose references from the folder ``reference`` by content instead of by name.

    Raises:
        UserError: a path is missing or empty, no target has a reference, or a result would replace a target or a
            reference.
    """
    several = () if reference is None else (reference,) if isinstance(reference, Path) else tuple(reference)
    for path in (target, *several):
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder; check the path")
    if len(several) > 1:
        return _plan_several(target, several, out)
    reference = several[0] if several else None
    if reference is None:
        return _plan_pairs(target, _results_folder(target, out))
    if (target / "plan.json").is_file():
        if by_content or not reference.is_file():
            raise UserError(f"{reference}: must be one picture if the targets are shards")
        return _plan_shards(target, reference, _results_folder(target, out))
    return _plan_pictures(target, reference, out, by_content)


def _plan_several(target: Path, references: Sequence[Path], out: str | Path | None) -> Album:
    """Plan with several references for every target: pictures, and all those in folders."""
    if is_pairs_file(target):
        raise UserError(f"{target}: is a pairs file, which names its references itself; leave {references[0]} out")
    folder = _results_folder(target, out) if target.is_dir() else target
    left_out: list[str] = []
    pictures: list[Path] = []
    listed: set[Path] = set()
    inner: set[str] = set()  # references in folders, which may lie in that of the targets
    for reference in references:
        if not reference.is_dir():
            pictures.append(reference)
            continue
        if _same(folder, reference):
            raise UserError(f"{folder}: is where the pictures come from; choose another folder with -o")
        images = _images(reference, (folder, target), left_out)
        inner.update(os.path.realpath(path) for path in images)
        listed.update(images)
        pictures += images
    first, *further = dict.fromkeys(pictures)
    album = plan_album(target, first, out)
    tasks = [task for task in album.tasks if not target.is_dir() or os.path.realpath(task.target) not in inner]
    tasks = [task._replace(further=tuple(further)) for task in tasks]
    _check_results(tasks)
    listed.difference_update(references)
    return album._replace(tasks=tasks, left_out=[*album.left_out, *left_out], listed=frozenset(listed))


def _plan_pictures(target: Path, reference: Path, out: str | Path | None, by_content: bool) -> Album:
    failures: list[str] = []
    left_out: list[str] = []
    if target.is_dir():
        folder = _results_folder(target, out)
        for path in (target, reference):
            if _same(folder, path):
                raise UserError(f"{folder}: is the folder of the pictures; choose another folder with -o")
        targets = _images(target, (folder, reference), failures)
        pages = [_pages(path) for path in targets]
        results = [folder / name for name in result_names([path.relative_to(target) for path in targets], pages)]
        names = [str(path.relative_to(target)) for path in targets]
    else:
        folder = target
        pages = [_pages(target)]
        targets, results, names = [target], [_single_result(target, out, pages[0])], [target.name]
    matches = Matches([reference] * len(targets), None)
    further: tuple[Path, ...] = ()
    listed: frozenset[Path] = frozenset()
    candidates: list[Path] = []
    if by_content:
        candidates = _candidates(_images(reference, (folder,), left_out), results)
    elif reference.is_dir():
        references = _images(reference, (folder, target), left_out)
        if target.is_dir() or len(references) == 1 or any_named(target, references):
            matches = match(target, targets, reference, references)
        else:  # of one picture, all are references
            matches = Matches(
                references[:1], f"no reference has the name of {target.name}; all {len(references)} give colours"
            )
            further, listed = tuple(references[1:]), frozenset(references)
    tasks = []
    for name, path, chosen, result, count in zip(names, targets, matches.references, results, pages, strict=True):
        if isinstance(chosen, Path):
            tasks.append(Task(name, path, chosen, result, pages=count, further=further))
        else:
            failures.append(f"{path}: {chosen}")
    _check_results(tasks)
    return Album(tasks, failures, matches.remark, folder if target.is_dir() else None, candidates, left_out, listed)


def is_pairs_file(path: Path) -> bool:
    """Return whether a path has the suffix of a pairs file, which lists targets and references."""
    return path.suffix.lower() in PAIRS_SUFFIXES and not path.is_dir()


def _plan_pairs(file: Path, out: Path) -> Album:
    """Name the results of a pairs file by the targets' paths below their common folder."""
    from pdnla.data.pairs_file import read_pairs

    failures: list[str] = []
    pairs = read_pairs(file, left_out=failures.append)
    targets = [Path(os.path.abspath(target)) for target, _ in pairs]  # noqa: PTH100 - without ".."
    top = Path(os.path.commonpath([target.parent for target in targets]))
    names = [target.relative_to(top) for target in targets]
    pages = [_pages(target) for target in targets]
    tasks = [
        Task(str(name), target, reference, out / result, pages=count)
        for name, (target, reference), result, count in zip(
            names, pairs, result_names(names, pages), pages, strict=True
        )
    ]
    _check_results(tasks)
    return Album(tasks, failures, folder=out)


def _plan_shards(root: Path, reference: Path, out: Path) -> Album:
    """Name the results of the photographs in shards: one folder per shard, in it the photographs' keys."""
    from pdnla.data.shards import Shards, shard_path

    if Path(os.path.realpath(reference)).is_relative_to(os.path.realpath(out)):
        raise UserError(f"{reference}: is in the folder of results; choose another folder with -o")
    tasks = []
    for sample in Shards(root):
        result = out / f"{sample.shard:06d}" / f"{sample.key}.png"
        tasks.append(Task(str(sample), shard_path(root, sample.shard), reference, result, source=sample))
    return Album(tasks, [], folder=out)


def _check_results(tasks: Sequence[Task]) -> None:
    """Raise UserError if a result would replace a target or a reference."""
    inputs = {os.path.realpath(path) for task in tasks for path in (task.target, *task.references)}
    for task in tasks:
        if os.path.realpath(task.result) in inputs:
            raise UserError(f"{task.result}: is a target or a reference; choose another place for results with -o")


def _candidates(images: Sequence[Path], results: Sequence[Path]) -> list[Path]:
    """Return the pictures to choose from, without results and copies of references of this or an earlier run."""
    written = {os.path.realpath(path) for path in results}
    copied = {str(Path(path).with_name(f"{Path(path).stem}{REFERENCE_COPY}")) for path in written}
    candidates = []
    for path in images:
        place = os.path.realpath(path)
        if RESULT not in path.stem and place not in written and str(Path(place).with_suffix("")) not in copied:
            candidates.append(path)
    return candidates


def result_names(targets: Sequence[Path], pages: Sequence[int] = ()) -> list[Path]:
    """Return the name of a result for each relative path; they differ even if case is ignored.

    The name is the target's with the suffix .png, or .tif if the target has several pages; targets that differ only in
    their suffix keep it (a.jpg.png).

    Args:
        targets: the relative paths.
        pages: the number of pages of each; by default 1.
    """
    suffixes = [".png" if count == 1 else ".tif" for count in pages or [1] * len(targets)]
    wanted = [path.with_suffix(suffix) for path, suffix in zip(targets, suffixes, strict=True)]
    count = Counter(str(path).casefold() for path in wanted)
    taken = {name for name, times in count.items() if times == 1}
    names = []
    for path, name, suffix in zip(targets, wanted, suffixes, strict=True):
        if count[str(name).casefold()] > 1:
            endings = itertools.chain([suffix], (f"_{number}{suffix}" for number in itertools.count(2)))
            tries = (path.with_name(path.name + ending) for ending in endings)
            name = next(free for free in tries if str(free).casefold() not in taken)
            taken.add(str(name).casefold())
        names.append(name)
    return names


def _images(folder: Path, without: Sequence[Path], left_out: list[str]) -> list[Path]:
    """Return the images below ``folder``, without those in the folders ``without``."""
    top = Path(os.path.realpath(folder))
    inner = [Path(os.path.realpath(path)) for path in without]
    inner = [path for path in inner if path != top and path.is_relative_to(top) and path.is_dir()]
    images = list_images(folder, left_out.append)
    kept = [path for path in images if not any(Path(os.path.realpath(path)).is_relative_to(other) for other in inner)]
    if not kept:
        raise UserError(f"{folder}: holds no image of its own; choose another folder")
    return kept


def _results_folder(target: Path, out: str | Path | None) -> Path:
    """Return the folder of results of several pictures: ``out``, or a folder next to them."""
    if out is None:
        target = target if target.name not in ("", "..") else target.resolve()
        return target.with_name(f"{target.name if target.is_dir() else target.stem}{RESULT}")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; many results need a folder")
    return folder


def _pages(target: Path) -> int:
    return count_pages(target) if target.suffix.lower() in TIFF_SUFFIXES else 1


def _single_result(target: Path, out: str | Path | None, pages: int) -> Path:
    name = f"{target.stem}{RESULT}{'.png' if pages == 1 else '.tif'}"
    if out is None:
        return target.with_name(name)
    path = Path(out)
    if path.is_dir() or str(out).endswith(("/", os.sep)):
        return path / name
    if check_writable_suffix(path) not in TIFF_SUFFIXES and pages > 1:
        raise UserError(f"{target}: has {pages} pages, which {path.name} does not hold; end its name in .tif")
    return path


def _same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
