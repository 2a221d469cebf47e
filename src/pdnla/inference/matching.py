"""Matching of the pictures in two folders by name, or by order if no name matches.

This module does not import torch: ``pdnla-colorize`` uses it before it knows whether there is work to do.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pdnla.errors import UserError


class Matches(NamedTuple):
    """A reference for each target, or the reason why there is none, and a remark for the user."""

    references: Sequence[Path | str]
    remark: str | None


def match(target: Path, targets: Sequence[Path], folder: Path, references: Sequence[Path]) -> Matches:
    """Find for each target the reference in ``folder`` with the same name, whatever the suffix.

    The path below the folders takes precedence (b/a.jpg matches b/a.png), then the bare name (c/a.png). If none is
    equal, the comparison ignores case and the Unicode form of accents (NFC, NFD). If no name matches at all and there
    are as many references as targets, they are paired in sorted order.

    Args:
        target: the folder of the targets, or the only one.
        targets: the targets.
        folder: the folder of the references.
        references: the references.

    Raises:
        UserError: no name fits, and the counts differ.
    """
    tables = []
    for name in _NAMES:
        named = defaultdict(list)
        for path in references:
            named[name(path, folder)].append(path)
        tables.append((name, named))
    top = target if target.is_dir() else target.parent
    chosen: list[Path | str] = []
    any_fits = False
    for path in targets:
        fitting = next((named[name(path, top)] for name, named in tables if name(path, top) in named), [])
        any_fits = any_fits or bool(fitting)
        if len(fitting) > 1:  # a.jpg and a.png: the one with the target's suffix, if there is one
            fitting = [choice for choice in fitting if choice.name == path.name] or fitting
        if len(fitting) == 1:
            chosen.append(fitting[0])
        elif fitting:
            chosen.append(f"{fitting[0]} and {fitting[1]} both have its name; leave one of them")
        else:
            chosen.append(f"there is no reference named {path.stem} in {folder}; add one")
    if any_fits:
        return Matches(chosen, None)
    if len(references) != len(targets):
        raise UserError(
            f"{folder}: no reference has the name of a target, and there are {len(references)} references for"
            f" {len(targets)} targets; name each like its target, or give one picture as the reference"
        )
    order = f"{targets[0].name} with {references[0].name}" + (" and so on" if len(targets) > 1 else "")
    return Matches(references, f"no reference has the name of a target; paired in sorted order, {order}")


def any_named(target: Path, references: Sequence[Path]) -> bool:
    """Return whether a reference has the name of a target, whatever its suffix, case and form of accents."""
    return _folded(target.stem) in {_folded(path.stem) for path in references}


def _place(path: Path, top: Path) -> str:
    return str(path.relative_to(top).with_suffix(""))


def _stem(path: Path, top: Path) -> str:
    return path.stem


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


_NAMES: tuple[Callable[[Path, Path], str], ...] = (
    _place,
    _stem,
    lambda path, top: _folded(_place(path, top)),
    lambda path, top: _folded(_stem(path, top)),
)
"""Keys for comparing pictures below a folder, from the strictest to the most lenient."""
