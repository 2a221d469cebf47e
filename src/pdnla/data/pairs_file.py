"""Files of pairs: CSV lines of ``target,reference``, as people and spreadsheets write them, and more columns.

No torch here: ``pdnla-colorize`` imports this before it knows whether there is anything to compute.
"""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pdnla.errors import UserError
from pdnla.files import replacing

COLUMNS = ("target", "reference", "score")
"""The heading that :func:`write_choices` writes."""

_DELIMITERS = (",", ";", "\t")  # spreadsheets write semicolons where the comma is decimal


class Choice(NamedTuple):
    """A target, the reference chosen for it, and the cosine of their descriptors, in [-1, 1]."""

    target: Path
    reference: Path
    score: float


class _Table(NamedTuple):
    """The heading of a file of pairs in lower case, empty if it has none, and its lines with their numbers."""

    heading: list[str]
    lines: list[tuple[int, list[str]]]


def read_pairs(file: Path, root: Path | None = None) -> list[tuple[Path, Path]]:
    """Read a file of pairs: a line ``target,reference`` each, and more columns that are not read.

    Paths are relative to ``root``, or to the file's own folder. A first line ``target,reference`` is a heading. Commas,
    semicolons or tabs separate columns; the encoding is UTF-8, with or without a byte-order mark.

    Raises:
        UserError: the file is missing or empty, a line has no two columns, or a picture is not there.
    """
    folder = root or file.parent
    pairs = []
    for number, row in _read(file, folder).lines:
        if len(row) < 2:
            raise UserError(f"{file}, line {number}: has one column; give target,reference")
        target, reference = (_picture(file, number, folder, cell) for cell in row[:2])
        pairs.append((target, reference))
    return pairs


def read_column(file: Path, name: str) -> list[Path | None]:
    """Read a further column of a file of pairs by its heading: a picture of each pair, None where it is empty.

    Raises:
        UserError: the file is missing or empty, or a picture is not there.
    """
    heading, lines = _read(file, file.parent)
    if name not in heading:
        return [None] * len(lines)
    column = heading.index(name)
    cells = ((number, row[column] if column < len(row) else "") for number, row in lines)
    return [_picture(file, number, file.parent, cell) if cell.strip() else None for number, cell in cells]


def write_choices(file: Path, choices: Iterable[Choice]) -> None:
    """Write choices as ``target,reference,score`` lines, which :func:`read_pairs` reads.

    Paths are written relative to the file's folder.

    Raises:
        UserError: the file cannot be written.
    """
    folder = file.absolute().parent
    with (
        replacing(file) as temporary,
        # Names may hold bytes that are no UTF-8.
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as lines,
    ):
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
        heading, lines = _read(file, file.parent)
        if tuple(heading) != COLUMNS:
            raise ValueError(f"its heading is not {','.join(COLUMNS)}")
        return [Choice(file.parent / t, file.parent / r, float(score)) for _, (t, r, score) in lines]
    except (UserError, ValueError) as error:
        raise UserError(f"{file}: holds no chosen references ({error}); move it away") from error


def _read(file: Path, folder: Path) -> _Table:
    """Read a file of pairs whose paths are relative to ``folder``.

    Raises:
        UserError: the file is missing, empty or no text.
    """
    try:
        # A heading may begin with a byte-order mark, and names may hold bytes that are no UTF-8.
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
        tables = [_parse(text, delimiter) for delimiter in _DELIMITERS]
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{file}: is no file of pairs ({error}); give lines of target,reference") from error
    table = next((table for table in tables if table.heading), None)
    table = table or next((table for table in tables if _is_there(table, folder)), tables[0])
    if not table.lines:
        raise UserError(f"{file}: holds no pairs; give lines of target,reference")
    return table


def _parse(text: str, delimiter: str) -> _Table:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    lines = [(number, row) for number, row in enumerate(rows, start=1) if row]
    first = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    return _Table(first, lines[1:]) if first[:2] == ["target", "reference"] else _Table([], lines)


def _is_there(table: _Table, folder: Path) -> bool:
    """Return whether the pictures of the first line exist, which tells how the columns are separated."""
    return bool(table.lines) and len(table.lines[0][1]) > 1 and all(_find(folder, c) for c in table.lines[0][1][:2])


def _find(folder: Path, cell: str) -> Path | None:
    """Return the picture that a cell names: exactly, or without the blanks around it, as after a comma."""
    return next((folder / name for name in (cell, cell.strip()) if os.path.isfile(folder / name)), None)  # noqa: PTH113 - Path.is_file raises where a name is too long


def _picture(file: Path, line: int, folder: Path, cell: str) -> Path:
    path = _find(folder, cell)
    if path is not None:
        return path
    if not cell.isprintable():
        raise UserError(f"{file}, line {line}: {folder / cell} is not there; save the file in UTF-8")
    raise UserError(f"{file}, line {line}: {folder / cell} is not there; paths are relative to {folder}")
