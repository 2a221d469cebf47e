"""Choosing references: of many pictures the one in colour that shows most of what a target shows."""

import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from pdnla.data.pairs_file import Choice, read_choices, write_choices
from pdnla.data.photographs import open_colour
from pdnla.data.retrieval import build_index
from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.images.io import read_image
from pdnla.inference.planning import REFERENCE_COPY, Album, Task

_SIDE = 64  # pixels of the shorter side that say whether a picture is in colour


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
) -> list[Choice]:
    """Return for each target the ``count`` candidates most like it, best first, by what the luminance of both shows.

    Grey candidates, unreadable ones and the target itself are never chosen, so there may be fewer than ``count``, or
    none; an unreadable target has none.

    Args:
        targets: pictures to find references for, grey or in colour.
        candidates: pictures to choose from.
        count: references for each target.
        least: the lowest score that counts.
        most: the highest one; copies of one picture have scores of nearly 1.
        backbone: what describes the pictures; see :func:`pdnla.data.retrieval.descriptors`.
        device: where.
        workers: processes that read pictures.
        progress: is told how many pictures are described, and of how many.
        left_out: is told, in a sentence, of each picture that cannot be read; None: a warning in the log.

    Raises:
        UserError: the backbone cannot be had, or the index cannot be kept.
    """
    offered = build_index(candidates, backbone, device, workers, progress, left_out)
    asked = offered
    if list(targets) != list(candidates):
        asked = build_index(targets, backbone, device, workers, progress, left_out)
    places = [os.path.realpath(path) for path in candidates]
    coloured: dict[int, bool] = {}

    def in_colour(number: int) -> bool:
        if number not in coloured:
            coloured[number] = _in_colour(candidates[number])
        return coloured[number]

    choices: list[Choice] = []
    for target, vector, readable in zip(targets, asked.vectors, asked.readable.tolist(), strict=True):
        if not readable:
            continue
        own = os.path.realpath(target)
        cosines = (offered.vectors @ vector).masked_fill(~offered.readable, -torch.inf)
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


class Picked(NamedTuple):
    """Tasks with the reference picked for each, and a sentence for each that there is none for."""

    tasks: list[Task]
    left_out: list[str]


def pick_references(
    tasks: Sequence[Task],
    candidates: Sequence[Path],
    folder: Path,
    device: torch.device,
    progress: Callable[[int, int], None],
    left_out: Callable[[str], None],
) -> Picked:
    """Pick for each task, of the candidates, the picture in colour that is most like its target.

    Args:
        tasks: pictures to colour.
        candidates: pictures to pick from.
        folder: where they come from, to name in sentences.
        device: where to compute.
        progress: is told how many pictures are described, and of how many.
        left_out: is told, in a sentence, of each candidate that cannot be read.

    Raises:
        UserError: the backbone cannot be had, or the index cannot be kept.
    """
    targets = [task.target for task in tasks]
    unreadable = set[str]()  # a target is said to be so once, as a task that fails
    choices = []
    if candidates:
        choices = choose_references(
            targets, candidates, device=device, workers=2, progress=progress, left_out=unreadable.add
        )
    chosen = {choice.target: choice for choice in choices}
    picked, failed = [], []
    for task in tasks:
        if task.target in chosen:
            _, reference, score = chosen[task.target]
            picked.append(task._replace(reference=reference, score=score))
        else:
            failed.append(_why_none(task.target, folder))
    for sentence in sorted(unreadable.difference(failed)):
        left_out(sentence)
    return Picked(picked, failed)


def _why_none(target: Path, folder: Path) -> str:
    try:
        read_image(target)
    except UserError as error:
        return str(error)
    return f"{target}: {folder} holds no other picture in colour that can be read; choose another with --pick-from"


class ReferenceCopies:
    """Copies of picked references beside the results, and a file of pairs that names them with their scores.

    Beside ``a.png`` lies ``a_reference.jpg``. The file is ``references.csv`` in the folder of results, or
    ``a_reference.csv`` for a single one; its lines about other targets, of earlier runs, stay.

    Args:
        album: what is coloured; a copy takes the place of none of its pictures.
        overwrite: a copy takes the place of an earlier one.

    Raises:
        UserError: the file exists and is another one.
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
        """Copy a task's reference, and remember its line.

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
        return os.path.realpath(path) not in self._taken and (self.overwrite or not os.path.exists(path))  # noqa: PTH110 - Path.exists raises where a name is too long

    def write(self) -> None:
        """Write the file of pairs, if there is anything to write.

        Raises:
            UserError: it cannot be written.
        """
        if self._choices:
            write_choices(self.file, self._choices.values())


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - without following links, unlike resolve, and without "..", unlike absolute
