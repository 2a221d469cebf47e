"""Choosing references: the colour picture with the content most similar to a target's."""

import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from pdnla.data.pairs_file import Choice, read_choices, write_choices
from pdnla.data.retrieval import build_index
from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.images.greys import open_colour
from pdnla.images.io import read_image
from pdnla.inference.planning import REFERENCE_COPY, Album, Task

_SIDE = 64  # shorter side in pixels at which pictures are tested for colour


def choose_references(
    targets: Sequence[Path],
    candidates: Sequence[Path],
    count: int = 1,
    least: float = -1.0,
    most: float = float("inf"),
    backbone: str = "efficientnet_lite0",
    device: str | torch.device = "cpu",
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    left_out: Callable[[str], None] | None = None,
    target_cache: Path | None = None,
    candidate_cache: Path | None = None,
) -> list[Choice]:
    """Return for each target the ``count`` most similar candidates by luminance, best first.

    Grey and unreadable candidates and the target itself are never chosen, so there can be fewer than ``count``. An
    unreadable target has none.

    Args:
        targets: pictures to find references for, grey or in colour.
        candidates: pictures to choose from.
        count: references for each target.
        least: the lowest accepted score.
        most: the highest accepted score; copies of one picture have scores of nearly 1.
        backbone: network of the descriptors; see :func:`pdnla.data.retrieval.descriptors`.
        device: the device.
        workers: number of reading processes.
        progress: called with the number of finished pictures and the number of all.
        left_out: called with a sentence for each unreadable picture; None for a warning in the log.
        target_cache: folder of the targets' cached descriptors; None for the user's cache.
        candidate_cache: the same of the candidates.

    Raises:
        UserError: the backbone is not available, or the index cannot be written.
    """
    candidate_index = build_index(candidates, backbone, device, workers, progress, left_out, candidate_cache)
    target_index = candidate_index
    if list(targets) != list(candidates):
        target_index = build_index(targets, backbone, device, workers, progress, left_out, target_cache)
    places = [os.path.realpath(path) for path in candidates]
    coloured: dict[int, bool] = {}

    def in_colour(number: int) -> bool:
        if number not in coloured:
            coloured[number] = _in_colour(candidates[number])
        return coloured[number]

    choices: list[Choice] = []
    for target, vector, readable in zip(targets, target_index.vectors, target_index.readable.tolist(), strict=True):
        if not readable:
            continue
        own = os.path.realpath(target)
        cosines = (candidate_index.vectors @ vector).masked_fill(~candidate_index.readable, -torch.inf)
        chosen = 0
        for number in cosines.argsort(descending=True).tolist():
            score = float(cosines[number])
            if score < least or chosen == count:
                break
            if score <= most and places[number] != own and in_colour(number):
                choices.append(Choice(target, candidates[number], score))
                chosen += 1
    return choices


def _in_colour(path: Path) -> bool:
    try:
        return open_colour(path, _SIDE) is not None
    except UserError:
        return False


class TaskChoices(NamedTuple):
    """Tasks with chosen references, and a sentence for each task without one."""

    tasks: list[Task]
    failures: list[str]


def choose_for_tasks(
    tasks: Sequence[Task],
    candidates: Sequence[Path],
    folder: Path,
    device: torch.device,
    progress: Callable[[int, int], None],
    left_out: Callable[[str], None],
) -> TaskChoices:
    """Choose for each task the candidate in colour that is most similar to its target.

    Args:
        tasks: pictures to colour.
        candidates: pictures to choose from.
        folder: their folder, for error messages.
        device: the device.
        progress: called with the number of finished pictures and the number of all.
        left_out: called with a sentence for each unreadable candidate.

    Raises:
        UserError: the backbone is not available, or the index cannot be written.
    """
    targets = [task.target for task in tasks]
    unreadable = set[str]()  # an unreadable target is reported once, as a failed task
    choices = []
    if candidates:
        choices = choose_references(
            targets, candidates, device=device, workers=2, progress=progress, left_out=unreadable.add
        )
    by_target = {choice.target: choice for choice in choices}
    chosen, failures = [], []
    for task in tasks:
        if task.target in by_target:
            _, reference, score = by_target[task.target]
            chosen.append(task._replace(reference=reference, score=score))
        else:
            failures.append(_why_none(task.target, folder))
    for sentence in sorted(unreadable.difference(failures)):
        left_out(sentence)
    return TaskChoices(chosen, failures)


def _why_none(target: Path, folder: Path) -> str:
    try:
        read_image(target)
    except UserError as error:
        return str(error)
    return f"{target}: {folder} holds no other picture in colour that can be read; choose another with --pick-from"


class ReferenceCopies:
    """Copies of chosen references next to the results, and a pairs file with their scores.

    The copy for ``a.png`` is ``a_reference.jpg``. The file is ``references.csv`` in the folder of results, or
    ``a_reference.csv`` for a single one; lines of earlier runs about other targets are kept.

    Args:
        album: the album; a copy never replaces one of its pictures.
        overwrite: replace earlier copies.

    Raises:
        UserError: the file exists and has other contents.
    """

    def __init__(self, album: Album, overwrite: bool) -> None:
        self.overwrite = overwrite
        self._taken = {os.path.realpath(path) for task in album.tasks for path in (task.target, task.result)}
        single = album.tasks[0].result
        self.file = (
            album.folder / "references.csv" if album.folder else single.with_name(f"{single.stem}{REFERENCE_COPY}.csv")
        )
        earlier = read_choices(self.file) if self.file.exists() else []
        self._choices = {_absolute(choice.target): choice for choice in earlier}

    def add(self, task: Task) -> None:
        """Copy a task's reference, and add its line.

        Raises:
            UserError: the copy cannot be written.
        """
        assert task.score is not None
        endings = itertools.chain([REFERENCE_COPY], (f"{REFERENCE_COPY}_{number}" for number in itertools.count(2)))
        names = (f"{task.result.stem}{ending}{task.reference.suffix}" for ending in endings)
        copy = next(path for path in map(task.result.with_name, names) if self._free(path))
        with replacing(copy) as temporary:
            shutil.copyfile(task.reference, temporary)
        self._choices[_absolute(task.target)] = Choice(task.target, task.reference, task.score)

    def _free(self, path: Path) -> bool:
        return os.path.realpath(path) not in self._taken and (self.overwrite or not os.path.exists(path))  # noqa: PTH110 - Path.exists raises if a name is too long

    def write(self) -> None:
        """Write the pairs file, unless it would be empty.

        Raises:
            UserError: it cannot be written.
        """
        if self._choices:
            write_choices(self.file, self._choices.values())


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - without following links, unlike resolve, and without "..", unlike absolute
