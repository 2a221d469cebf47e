"""Choosing references: of many pictures the one in colour that shows most of what a target shows."""

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from pdnla.data.photographs import open_colour
from pdnla.data.retrieval import build_index
from pdnla.errors import UserError
from pdnla.files import replacing

COLUMNS = ("target", "reference", "score")
"""The heading of a file of choices; the first two are those of :func:`pdnla.data.pairing.read_pairs`."""

_LOOKED_AT = 64  # pixels of the shorter side that say whether a picture is in colour


class Choice(NamedTuple):
    """A target, the reference chosen for it, and the cosine of their descriptors, in [-1, 1]."""

    target: Path
    reference: Path
    score: float


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

    Raises:
        UserError: the backbone cannot be had, or the index cannot be kept.
    """
    offered = build_index(candidates, backbone, device, workers, progress)
    asked = offered
    if list(targets) != list(candidates):
        asked = build_index(targets, backbone, device, workers, progress)
    places = [path.resolve() for path in candidates]
    coloured: dict[int, bool] = {}

    def in_colour(number: int) -> bool:
        if number not in coloured:
            coloured[number] = _in_colour(candidates[number])
        return coloured[number]

    choices: list[Choice] = []
    for target, vector, readable in zip(targets, asked.vectors, asked.readable.tolist(), strict=True):
        if not readable:
            continue
        own = target.resolve()
        cosines = (offered.vectors @ vector).masked_fill(~offered.readable, -torch.inf)
        found = 0
        for number in cosines.argsort(descending=True).tolist():
            score = float(cosines[number])
            if score < least or found == count:
                break
            if score <= most and places[number] != own and in_colour(number):
                choices.append(Choice(target, candidates[number], score))
                found += 1
    return choices


def _in_colour(path: Path) -> bool:
    try:
        return open_colour(path, _LOOKED_AT) is not None
    except UserError:
        return False


def write_choices(file: Path, choices: Iterable[Choice]) -> None:
    """Write choices as ``target,reference,score`` lines, which :func:`pdnla.data.pairing.read_pairs` reads.

    Paths are written relative to the file's folder.

    Raises:
        UserError: the file cannot be written.
    """
    folder = file.absolute().parent
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(COLUMNS)
        for target, reference, score in choices:
            writer.writerow([*(os.path.relpath(path, folder) for path in (target, reference)), f"{score:.4f}"])


def read_choices(file: Path) -> list[Choice]:
    """Return the choices that :func:`write_choices` wrote, whether or not the pictures are still there.

    Raises:
        UserError: the file holds something else.
    """
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            heading, *rows = csv.reader(lines)
        if tuple(heading) != COLUMNS:
            raise ValueError(f"its heading is not {','.join(COLUMNS)}")
        return [Choice(file.parent / t, file.parent / r, float(score)) for t, r, score in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file}: holds no chosen references ({error}); move it away") from error
