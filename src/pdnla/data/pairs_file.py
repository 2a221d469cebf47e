"""Pairs files: CSV lines of ``target,reference`` and optional further columns, from people or spreadsheets.

This module does not import torch: ``pdnla-colorize`` reads pairs before it knows whether there is work to do.
"""

import codecs
import csv
import io
import os
from collections.abc import Callable, Iterable
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


def read_pairs(
    file: Path, root: Path | None = None, left_out: Callable[[str], None] | None = None
) -> list[tuple[Path, Path]]:
    """Read a pairs file: lines of ``target,reference``; further columns are ignored.

    Paths are relative to ``root``, or to the file's own folder. A first line ``target,reference`` is a heading. Commas,
    semicolons or tabs separate columns; a spreadsheet's first line ``sep=;`` is ignored. The encoding is UTF-8, or
    UTF-16 with a byte-order mark.

    Args:
        file: the pairs file.
        root: folder of the pictures.
        left_out: called with a sentence for each line with only one column or without its pictures; None: such a line
            is an error.

    Raises:
        UserError: the file is missing, empty or not text; or no line is a pair or, without ``left_out``, one is not.
    """
    folder = root or file.parent
    pairs: list[tuple[Path, Path]] = []
    errors: list[UserError] = []
    for number, row in _read(file, folder).lines:
        try:
            if len(row) < 2:
                raise UserError(f"{file}, line {number}: has one column; give target,reference")
            target, reference = (_picture(file, number, folder, cell) for cell in row[:2])
            pairs.append((target, reference))
        except UserError as error:
            errors.append(error)
    for wrong in errors:
        if left_out is None or not pairs:
            raise wrong
        left_out(str(wrong))
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
        text = _decode(file.read_bytes())
        tables = [_parse(text, delimiter) for delimiter in _DELIMITERS]
    except FileNotFoundError as error:
        raise UserError(f"{file}: there is no such pairs file; check the path") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except (UnicodeError, csv.Error) as error:
        raise UserError(f"{file}: is not a pairs file ({error}); give lines of target,reference") from error
    table = next((table for table in tables if table.heading), None)
    table = table or next((table for table in tables if _pictures_exist(table, folder)), tables[0])
    if not table.lines:
        raise UserError(f"{file}: holds no pairs; give lines of target,reference")
    return table


def _decode(content: bytes) -> str:
    """Return a file's text without a byte-order mark and a spreadsheet's ``sep=;``, whose line stays and is empty.

    Raises:
        UnicodeError: it is not text.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16")
    else:  # file names may be invalid UTF-8
        text = content.decode("utf-8-sig", errors="surrogateescape")
    if "\0" in text:
        raise UnicodeError("it is not text")
    first, _, others = text.partition("\n")
    separators = {f"sep={delimiter}".strip() for delimiter in _DELIMITERS}
    return f"\n{others}" if first.strip().lower() in separators else text


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
