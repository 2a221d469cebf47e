"""Who is who in Caltech-101's ``Faces``: runs of consecutive numbers show one person in different places.

The runs were told by eye, in the data set's files with two photographs left out (433 of them, numbered anew);
``Faces_easy`` holds the same photographs cut to the head, under the same numbers.
"""

from collections.abc import Sequence
from pathlib import Path

FOLDERS = ("Faces", "Faces_easy")
PEOPLE = (
    (1, 21), (22, 41), (42, 46), (47, 68), (69, 89), (90, 112), (113, 132), (133, 137), (138, 158), (159, 163),
    (164, 168), (169, 173), (174, 193), (194, 214), (215, 239), (240, 261), (262, 266), (267, 285), (286, 305),
    (306, 325), (326, 345), (346, 365), (366, 387), (393, 397), (398, 417), (418, 433),
)  # fmt: skip
"""First and last number of each person's photographs."""
HELD_OUT = (
    (42, 46), (133, 137), (159, 163), (164, 168), (169, 173), (262, 266), (267, 285), (306, 325), (393, 397),
    (398, 417),
)  # fmt: skip
"""The ten people who are never trained on: what faces are measured by."""


def person(path: Path) -> tuple[int, int] | None:
    """Return the run of numbers that a photograph is of, by its folder and name; None for any other picture."""
    digits = path.stem.rpartition("_")[2]
    if path.parent.name not in FOLDERS or not digits.isdecimal():
        return None
    number = int(digits)
    return next((run for run in PEOPLE if run[0] <= number <= run[1]), None)


def held_out(path: Path) -> bool:
    """Return whether a photograph is of one of the people set apart."""
    return person(path) in HELD_OUT


def face_pairs(root: Path) -> Sequence[tuple[Path, Path]]:
    """Return target and reference of the measure: for each of the ten people, three photographs after others.

    The first photograph of the run after the second, the second after the third and the fourth after the first.

    Args:
        root: the folder that holds ``Faces``.
    """
    pairs = []
    for first, _ in HELD_OUT:
        for target, reference in ((0, 1), (1, 2), (3, 0)):
            pairs.append(tuple(root / "Faces" / f"image_{first + n:04d}.jpg" for n in (target, reference)))
    return [(target, reference) for target, reference in pairs]
