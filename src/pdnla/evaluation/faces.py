"""Pairs of photographs of the same person, from ten people of Caltech-101 that no training uses."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pdnla.errors import UserError
from pdnla.evaluation.protocols import Case, luminance_of, spread
from pdnla.images.io import read_image


class FacePair(NamedTuple):
    """Two photographs of the same person.

    Attributes:
        target: number of the target.
        reference: number of the reference.
        centre: horizontal position of the face's centre in the target, relative to the width.
    """

    target: int
    reference: int
    centre: float


PAIRS = (
    FacePair(42, 44, 0.620),
    FacePair(44, 46, 0.338),
    FacePair(133, 135, 0.308),
    FacePair(135, 137, 0.670),
    FacePair(159, 161, 0.488),
    FacePair(161, 163, 0.498),
    FacePair(164, 166, 0.508),
    FacePair(166, 168, 0.365),
    FacePair(169, 171, 0.609),
    FacePair(171, 173, 0.631),
    FacePair(262, 264, 0.357),
    FacePair(264, 266, 0.331),
    FacePair(267, 269, 0.495),
    FacePair(276, 278, 0.645),
    FacePair(306, 308, 0.643),
    FacePair(316, 318, 0.605),
    FacePair(393, 395, 0.327),
    FacePair(395, 397, 0.591),
    FacePair(398, 400, 0.518),
    FacePair(408, 410, 0.508),
)
"""Two pairs for each of :data:`pdnla.data.held_out.PEOPLE`: the targets are the first and the middle photograph, the
reference is the photograph two numbers later.

The centres are those of the crops in ``Faces_easy``, which have the photographs' full height.
"""

MIDDLE, WIDTH, HEIGHT = 0.55, 0.30, 0.38
"""The oval of skin: the vertical position of its centre, and its axes, relative to the photograph's height."""


class Faces:
    """Faces of the held-out people; the reference is another photograph of the same person.

    The region ``skin`` of a case is an upright oval in the middle of the face.

    Args:
        root: folder ``Faces`` of Caltech-101.
        count: number of :data:`PAIRS`, evenly spaced; None for all.

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
        reference = read_image(self.path(pair.reference))
        case = Case(f"{pair.target} after {pair.reference}", luminance_of(truth), reference, truth)
        return dataclasses.replace(case, regions={"skin": oval(truth.size, pair.centre)})


def oval(size: tuple[int, int], centre: float) -> NDArray[np.bool_]:
    """Return the mask of a face's skin in a photograph, ``(H, W)``.

    Args:
        size: width and height of the photograph.
        centre: horizontal position of the face's centre, relative to the width.
    """
    width, height = size
    rows, columns = np.indices((height, width)) + 0.5
    x = (columns - centre * width) / (WIDTH / 2 * height)
    y = (rows - MIDDLE * height) / (HEIGHT / 2 * height)
    return x**2 + y**2 <= 1
