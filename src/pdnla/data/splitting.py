"""Photographs to validate with, and folds of the others, which do not depend on what else is in the folders.

A photograph's own name decides, so that two programs with different folders of photographs agree on it: one trains on
no photograph that the other validates with.
"""

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pdnla.data.held_out import same_photograph

EVERY = 97
"""About one photograph in so many is for validation."""
_LEAST = 2  # photographs to validate with


class Split(NamedTuple):
    """Photographs, each once and in order."""

    training: list[Path]
    validation: list[Path]


def split(photographs: Iterable[Path]) -> Split:
    """Set about one photograph in :data:`EVERY` apart for validation; of few, the two of the smallest numbers."""
    paths = sorted(set(photographs))
    held = {path for path in paths if _number(path) % EVERY == 0}
    if len(held) < _LEAST:
        held = set(sorted(paths, key=lambda path: (_number(path) % EVERY, _number(path), path))[:_LEAST])
    return Split([path for path in paths if path not in held], sorted(held))


def fold_of(photographs: Iterable[Path], fold: int, folds: int) -> list[Path]:
    """Return the photographs of one of several folds, about as many in each."""
    return [path for path in photographs if _number(path) // EVERY % folds == fold]


def _number(path: Path) -> int:
    """Return a photograph's number, which depends only on the names of the file and its folder."""
    return zlib.crc32(same_photograph(path).encode())
