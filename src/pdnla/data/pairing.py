"""The choice of references for unpaired pairs."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from pdnla.data.retrieval import build_index
from pdnla.errors import UserError

PAIRINGS = ("class", "nearest", "random")
NEIGHBOURS = 5


class Partners(Protocol):
    """Chooses a photograph's partner."""

    def __call__(self, photograph: int, rng: np.random.Generator) -> int:
        """Return the number of another photograph."""
        ...


class RandomPartners:
    """Any other photograph."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, photograph: int, rng: np.random.Generator) -> int:
        """Return the number of another photograph."""
        return (photograph + int(rng.integers(1, max(2, self.count)))) % self.count


class Classed(Protocol):
    """A photograph with a class, which is the folder of a :class:`~pathlib.Path`."""

    @property
    def parent(self) -> Hashable:
        """The class: equal for photographs of one class."""
        ...


class ClassPartners:
    """Another photograph of the same class, that is, folder; the only photograph of a class is its own partner."""

    def __init__(self, paths: Sequence[Classed]) -> None:
        members: dict[Hashable, list[int]] = defaultdict(list)
        for number, path in enumerate(paths):
            members[path.parent].append(number)
        if all(len(group) == 1 for group in members.values()) or len(members) == 1:
            raise UserError(
                f"data.pairing=class: the {len(paths)} photographs lie in {len(members)} folder(s), and a class is a"
                " folder with several; use data.pairing=nearest or random"
            )
        self.groups = [np.array(group) for group in members.values()]
        self.group_of = np.empty(len(paths), np.int64)
        for number, group in enumerate(self.groups):
            self.group_of[group] = number

    def __call__(self, photograph: int, rng: np.random.Generator) -> int:
        """Return the number of another photograph of the class."""
        group = self.groups[self.group_of[photograph]]
        if len(group) == 1:
            return photograph
        place = int(np.searchsorted(group, photograph))
        return int(group[(place + rng.integers(1, len(group))) % len(group)])


class NearestPartners:
    """One of the :data:`NEIGHBOURS` nearest photographs by a frozen network's features, drawn at random.

    Args:
        paths: the photographs.
        backbone: the network's name.

    Raises:
        UserError: the backbone is not available, or no photograph can be read.
    """

    def __init__(self, paths: Sequence[Path], backbone: str = "efficientnet_lite0") -> None:
        index = build_index(paths, backbone)
        if not index.readable.any():
            raise UserError(f"{paths[0].parent}: none of its {len(paths)} pictures can be read; choose another folder")
        self.nearest = index.nearest(NEIGHBOURS)[0].numpy()

    def __call__(self, photograph: int, rng: np.random.Generator) -> int:
        """Return the number of a nearest photograph."""
        return int(rng.choice(self.nearest[photograph]))


class GivenPartners:
    """The reference in a pairs file; a random one if there are several."""

    def __init__(self, references: Sequence[Sequence[int]]) -> None:
        self.references = [np.array(numbers) for numbers in references]

    def __call__(self, photograph: int, rng: np.random.Generator) -> int:
        """Return the number of the reference."""
        return int(rng.choice(self.references[photograph]))


def partners_by(pairing: str, paths: Sequence[Path], backbone: str = "efficientnet_lite0") -> Partners:
    """Return the chooser of partners with the name of a rule; ``nearest`` compares features of ``backbone``.

    Raises:
        UserError: there is no such rule, or it does not fit the photographs.
    """
    if pairing not in PAIRINGS:
        raise UserError(f"data.pairing={pairing}: is not known; use {', '.join(PAIRINGS)}")
    if len(paths) < 2:
        raise UserError(f"data.pairing={pairing}: there is one photograph, and a pair needs two")
    if pairing == "class":
        return ClassPartners(paths)
    return NearestPartners(paths, backbone) if pairing == "nearest" else RandomPartners(len(paths))
