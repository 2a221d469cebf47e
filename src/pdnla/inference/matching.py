"""Which picture of one folder goes with which of another: by name, or by order where no name fits.

No torch here: ``pdnla-colorize`` imports this before it knows whether there is anything to compute.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pdnla.errors import UserError


class Pairing(NamedTuple):
    """A reference for each target, or the reason why there is none, and what is worth saying."""

    references: Sequence[Path | str]
    remark: str | None


def pair(target: Path, targets: Sequence[Path], folder: Path, references: Sequence[Path]) -> Pairing:
    """Find for each target the reference in ``folder`` of its name, whatever the suffix.

    The place below the folders comes first (b/a.jpg goes with b/a.png), then the bare name (with c/a.png).
    Where no name fits at all and there are as many references as targets, they are paired in sorted order.

    Raises:
        UserError: no name fits, and the counts differ.
    """
    by_place, by_name = defaultdict(list), defaultdict(list)
    for path in references:
        by_place[path.relative_to(folder).with_suffix("")].append(path)
        by_name[path.stem].append(path)
    found: list[Path | str] = []
    for path in targets:
        place = path.relative_to(target) if target.is_dir() else Path(path.name)
        fitting = by_place[place.with_suffix("")] or by_name[path.stem]
        if len(fitting) > 1:  # a.jpg and a.png: the one with the target's suffix, if there is one
            fitting = [choice for choice in fitting if choice.name == path.name] or fitting
        if len(fitting) == 1:
            found.append(fitting[0])
        elif fitting:
            found.append(f"{fitting[0]} and {fitting[1]} both have its name; leave one of them")
        else:
            found.append(f"there is no reference named {path.stem} in {folder}; add one")
    if any(isinstance(choice, Path) for choice in found) or any(by_name[path.stem] for path in targets):
        return Pairing(found, None)
    if len(references) != len(targets):
        raise UserError(
            f"{folder}: no reference has the name of a target, and there are {len(references)} references for"
            f" {len(targets)} targets; name each like its target, or give one picture as the reference"
        )
    order = f"{targets[0].name} with {references[0].name}" + (" and so on" if len(targets) > 1 else "")
    return Pairing(references, f"no reference has the name of a target; paired in sorted order, {order}")
