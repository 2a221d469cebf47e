"""Shots: detection of cuts, and a list of shots that the user can edit."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.images.greys import check_reference
from pdnla.images.io import Picture

_SMALL = (64, 36)  # pixels at which frames are compared
_GRID = (8, 6)  # fields whose histograms are compared
_BINS = 16
_STEP = 0.22  # least change at a cut: share of the pixels that change their bin within their field
_RATIO = 2.5  # how much larger it is than the changes of the frames around
_AROUND = 4  # frames on either side
_SHORTEST = 5  # frames between two cuts; a flash is none


class Shot(NamedTuple):
    """Frames between two cuts.

    Attributes:
        start: number of its first frame.
        end: number of the frame after its last.
        references: its references; none: they are chosen by content.
    """

    start: int
    end: int
    references: tuple[Path, ...] = ()


def frame_signature(picture: Picture) -> NDArray[np.float32]:
    """Return the signature by which frames are compared: histograms of luminance in fields, ``(fields, bins)``.

    Luminance is normalised by the mean and deviation of the frame, so varying exposure has no effect.
    """
    grey = np.asarray(picture.colour.convert("F").resize(_SMALL), np.float32)
    grey = (grey - grey.mean()) / max(float(grey.std()), 0.02 * max(float(grey.max()), 1e-6))
    levels = np.clip((grey + 2) * (_BINS / 4), 0, _BINS - 1e-3)
    low = np.floor(levels).astype(np.int64)
    part = levels - low
    rows, columns = np.mgrid[0 : _SMALL[1], 0 : _SMALL[0]]
    fields = rows * _GRID[1] // _SMALL[1] * _GRID[0] + columns * _GRID[0] // _SMALL[0]
    histogram = np.zeros((_GRID[0] * _GRID[1], _BINS + 1), np.float32)
    np.add.at(histogram, (fields, low), 1 - part)
    np.add.at(histogram, (fields, low + 1), part)
    return histogram / histogram.sum(axis=1, keepdims=True)


def find_cuts(signatures: Iterable[NDArray[np.float32]]) -> Iterator[int]:
    """Yield the number of each frame that follows a cut, with a delay of a few frames.

    A cut is a change between two frames that is large, and much larger than the changes around it, so motion and pans
    are not cuts. The rule is that of PySceneDetect's adaptive detector, on histograms of fields.

    Args:
        signatures: results of :func:`frame_signature`.
    """
    changes: deque[tuple[int, float]] = deque()
    last: NDArray[np.float32] | None = None
    cut = -_SHORTEST

    def decide(index: int) -> bool:
        place, change = changes[index]
        others = [value for at, value in changes if at != place and abs(at - place) <= _AROUND]
        usual = float(np.median(others)) if others else 0.0
        largest = change >= max([value for at, value in changes if abs(at - place) <= 1])
        return largest and change > _STEP and change > _RATIO * usual and place - cut >= _SHORTEST

    for number, signature in enumerate(signatures):
        if last is not None:
            changes.append((number, 0.5 * float(np.abs(signature - last).sum(axis=1).mean())))
            if len(changes) > 2 * _AROUND + 1:
                changes.popleft()
            middle = len(changes) - 1 - _AROUND
            if middle >= 0 and decide(middle):
                cut = changes[middle][0]
                yield cut
        last = signature
    for index in range(max(0, len(changes) - _AROUND), len(changes)):
        if decide(index):
            cut = changes[index][0]
            yield cut


def shots_of(cuts: Sequence[int], count: int) -> list[Shot]:
    """Return the shots between cuts of a film of ``count`` frames."""
    starts = [0, *cuts]
    return [Shot(start, end) for start, end in zip(starts, [*cuts, count], strict=True)]


def write_shots(path: Path, shots: Sequence[Shot]) -> None:
    """Write shots as a CSV: number of the first and the last frame, and references, separated by ``;``.

    Raises:
        UserError: it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = [[shot.start, shot.end - 1, ";".join(map(str, shot.references))] for shot in shots]
        csv.writer(file).writerows([["start", "end", "reference"], *rows])


def read_shots(path: Path, count: int, known: Sequence[Path]) -> list[Shot]:
    """Read a file of :func:`write_shots`, which the user may have edited.

    Args:
        path: the file.
        count: number of frames of the film.
        known: references given on the command line, which can be named without their folders.

    Raises:
        UserError: it cannot be read, shots overlap or leave frames out, or a reference is missing or cannot be used.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as CSV in UTF-8") from error
    delimiter = "\t" if "\t" in text.split("\n", 1)[0] else ";" if text.lower().startswith("start;end") else ","
    shots: list[Shot] = []
    checked = set(known)
    for line, row in enumerate(csv.reader(text.splitlines(), delimiter=delimiter), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].lower() == "start":
            continue
        if len(cells) < 2 or not cells[0].isdecimal() or not cells[1].isdecimal():
            raise UserError(
                f"{path}, line {line}: needs the numbers of a first and a last frame, such as 0,47,picture.jpg"
            )
        start, end = int(cells[0]), int(cells[1]) + 1
        due = shots[-1].end if shots else 0
        if start != due or end <= start:
            raise UserError(
                f"{path}, line {line}: goes from {start} to {end - 1} where a shot from {due} on is due; each begins"
                " where the one before ends"
            )
        references = _find_references(";".join(cells[2:]), path.parent, known)
        for name, reference in references:
            if reference is None:
                raise UserError(f"{path}, line {line}: there is no reference {name}; check its name")
            if reference not in checked:
                try:
                    check_reference(reference)
                except UserError as error:
                    raise UserError(f"{path}, line {line}: {error}") from error
                checked.add(reference)
        shots.append(Shot(start, end, tuple(reference for _, reference in references if reference is not None)))
    if not shots or shots[-1].end != count:
        last = shots[-1].end - 1 if shots else "none"
        raise UserError(f"{path}: ends at frame {last} and the film at {count - 1}; make the last shot end there")
    return shots


def _find_references(names: str, folder: Path, known: Sequence[Path]) -> list[tuple[str, Path | None]]:
    """Return the references whose names are separated by ``;``, which a name may contain too.

    Args:
        names: the names.
        folder: where the list of shots is.
        known: references that can be named without their folders.

    Returns:
        Each name with its file, or None where there is none.
    """
    parts = names.split(";")
    found: list[tuple[str, Path | None]] = []
    while parts:
        for count in range(len(parts), 0, -1):  # the longest name that exists
            name = ";".join(parts[:count]).strip()
            file = _find_reference(name, folder, known) if name else None
            if file is not None or count == 1:
                break
        if name:
            found.append((name, file))
        del parts[:count]
    return found


def _find_reference(name: str, folder: Path, known: Sequence[Path]) -> Path | None:
    files = (path for path in (Path(name), folder / name) if _is_file(path))
    return next(files, None) or next((path for path in known if name in (path.name, str(path))), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such a name is too long
        return False
