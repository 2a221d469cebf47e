"""Which picture of one folder goes with which of another: by name, or by order where no name fits.

No torch here: ``pdnla-colorize`` imports this before it knows whether there is anything to compute.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pdnla.errors import UserError


class Matches(NamedTuple):
    """A reference for each target, or the reason why there is none, and what the user should know of it."""

    references: Sequence[Path | str]
    remark: str | None


def match(target: Path, targets: Sequence[Path], folder: Path, references: Sequence[Path]) -> Matches:
    """Find for each target the reference in ``folder`` of its name, whatever the suffix.

    The place below the folders comes first (b/a.jpg goes with b/a.png), then the bare name (with c/a.png). Where none
    is the same, names are alike that differ in upper and lower case, or in how Unicode composes an accent (NFC, NFD).
    Where no name fits at all and there are as many references as targets, they are paired in sorted order.

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
"""What a picture below a folder is called, from the strictest rule to the most lenient."""
