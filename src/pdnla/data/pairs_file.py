"""Pairs files: CSV lines of ``target,reference`` and optional further columns, from people or spreadsheets.

This module does not import torch: ``pdnla-colorize`` reads pairs before it knows whether there is work to do.
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

_DELIMITERS = (",", ";", "\t")  # spreadsheets write semicolons if the decimal separator is a comma


class Choice(NamedTuple):
    """A target, the reference chosen for it, and the cosine of their descriptors, in [-1, 1]."""

    target: Path
    reference: Path
    score: float


class _Table(NamedTuple):
    """The heading of a pairs file in lower case, empty if there is none, and the lines with their numbers."""

    heading: list[str]
    lines: list[tuple[int, list[str]]]


def read_pairs(file: Path, root: Path | None = None) -> list[tuple[Path, Path]]:
    """Read a pairs file: lines of ``target,reference``; further columns are ignored.

    Paths are relative to ``root``, or to the file's own folder. A first line ``target,reference`` is a heading. Commas,
    semicolons or tabs separate columns; the encoding is UTF-8, with or without a byte-order mark.

    Raises:
        UserError: the file is missing or empty, a line has only one column, or a picture is missing.
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
    """Read a further column of a pairs file by its heading: a picture for each pair, None for an empty cell.

    Raises:
        UserError: the file is missing or empty, or a picture is missing.
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
        # File names may be invalid UTF-8.
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as lines,
    ):
        writer = csv.writer(lines)
        writer.writerow(COLUMNS)
        for target, reference, score in choices:
            writer.writerow([*(os.path.relpath(path, folder) for path in (target, reference)), f"{score:.4f}"])


def read_choices(file: Path) -> list[Choice]:
    """Read the choices that :func:`write_choices` wrote; the pictures need not exist.

    Raises:
        UserError: the file does not hold choices.
    """
    try:
        heading, lines = _read(file, file.parent)
        if tuple(heading) != COLUMNS:
            raise ValueError(f"its heading is not {','.join(COLUMNS)}")
        return [Choice(file.parent / t, file.parent / r, float(score)) for _, (t, r, score) in lines]
    except (UserError, ValueError) as error:
        raise UserError(f"{file}: does not hold chosen references ({error}); move it away") from error


def _read(file: Path, folder: Path) -> _Table:
    """Read a pairs file whose paths are relative to ``folder``.

    Raises:
        UserError: the file is missing, empty or not a text file.
    """
    try:
        # A heading may begin with a byte-order mark, and file names may be invalid UTF-8.
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
        tables = [_parse(text, delimiter) for delimiter in _DELIMITERS]
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{file}: is not a pairs file ({error}); give lines of target,reference") from error
    table = next((table for table in tables if table.heading), None)
    table = table or next((table for table in tables if _pictures_exist(table, folder)), tables[0])
    if not table.lines:
        raise UserError(f"{file}: holds no pairs; give lines of target,reference")
    return table


def _parse(text: str, delimiter: str) -> _Table:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    lines = [(number, row) for number, row in enumerate(rows, start=1) if row]
    first = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    return _Table(first, lines[1:]) if first[:2] == ["target", "reference"] else _Table([], lines)


def _pictures_exist(table: _Table, folder: Path) -> bool:
    """Return whether the pictures of the first line exist, which means that the delimiter is right."""
    return bool(table.lines) and len(table.lines[0][1]) > 1 and all(_find(folder, c) for c in table.lines[0][1][:2])


def _find(folder: Path, cell: str) -> Path | None:
    """Return the picture that a cell names, either exactly or without surrounding blanks."""
    return next((folder / name for name in (cell, cell.strip()) if os.path.isfile(folder / name)), None)  # noqa: PTH113 - Path.is_file raises where a name is too long


def _picture(file: Path, line: int, folder: Path, cell: str) -> Path:
    path = _find(folder, cell)
    if path is not None:
        return path
    if not cell.isprintable():
        raise UserError(f"{file}, line {line}: {folder / cell} is not there; save the file in UTF-8")
    raise UserError(f"{file}, line {line}: {folder / cell} is not there; paths are relative to {folder}")
