"""Pairs of photographs of one person, of the ten people of Caltech-101 that no training uses."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pdnla.errors import UserError
from pdnla.evaluation.protocols import Case, grey, spread
from pdnla.images.io import read_image


class FacePair(NamedTuple):
    """A photograph and another of the same person.

    Attributes:
        target: number of the photograph that is coloured.
        reference: number of the other.
        centre: where the face's middle is in the target, as a part of its width.
    """

    target: int
    reference: int
    centre: float


PAIRS = (
    FacePair(42, 44, 0.620),
    FacePair(44, 46, 0.338),
    FacePair(69, 71, 0.478),
    FacePair(79, 81, 0.616),
    FacePair(164, 166, 0.508),
    FacePair(166, 168, 0.365),
    FacePair(169, 171, 0.609),
    FacePair(171, 173, 0.631),
    FacePair(194, 196, 0.639),
    FacePair(204, 206, 0.613),
    FacePair(262, 264, 0.357),
    FacePair(264, 266, 0.331),
    FacePair(306, 308, 0.643),
    FacePair(316, 318, 0.605),
    FacePair(326, 328, 0.497),
    FacePair(336, 338, 0.489),
    FacePair(393, 395, 0.327),
    FacePair(395, 397, 0.591),
    FacePair(418, 420, 0.361),
    FacePair(426, 428, 0.489),
)
"""Two pairs of each of :data:`pdnla.data.held_out.PEOPLE`: the first photograph and the middle one, each after the
second next.

The centres are the crops' of ``Faces_easy``, which are as high as the photographs.
"""

MIDDLE, WIDTH, HEIGHT = 0.55, 0.30, 0.38
"""The oval that is skin: the height of its middle, its axes; all as parts of the photograph's height."""


class Faces:
    """Faces of the people set apart, each after another photograph of the same person.

    The cases' region ``skin`` is an upright oval in the middle of the face.

    Args:
        root: Caltech-101's folder ``Faces``.
        count: so many of :data:`PAIRS`, evenly spread; None for all.

    Raises:
        UserError: the folder lacks a photograph.
    """

    def __init__(self, root: str | Path, count: int | None = None) -> None:
        self.root = Path(root)
        self.pairs = [PAIRS[i] for i in spread(len(PAIRS), count)]
        for pair in self.pairs:
            for path in (self.path(pair.target), self.path(pair.reference)):
                if not path.is_file():
                    raise UserError(f"{path}: there is no such file; give the folder Faces of Caltech-101")

    def path(self, number: int) -> Path:
        """Return the file of a photograph."""
        return self.root / f"image_{number:04d}.jpg"

    def __len__(self) -> int:
        """Return how many pairs there are."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Case:
        """Read a pair.

        Raises:
            UserError: a photograph cannot be read.
        """
        pair = self.pairs[index]
        truth = read_image(self.path(pair.target)).rgb()
        case = Case(f"{pair.target} after {pair.reference}", grey(truth), read_image(self.path(pair.reference)), truth)
        return dataclasses.replace(case, regions={"skin": oval(truth.size, pair.centre)})


def oval(size: tuple[int, int], centre: float) -> NDArray[np.bool_]:
    """Return the pixels of a face's skin in a photograph of a size (width, height), ``(H, W)``.

    Args:
        size: of the photograph.
        centre: where the face's middle is, as a part of the width.
    """
    width, height = size
    rows, columns = np.indices((height, width)) + 0.5
    x = (columns - centre * width) / (WIDTH / 2 * height)
    y = (rows - MIDDLE * height) / (HEIGHT / 2 * height)
    return x**2 + y**2 <= 1
