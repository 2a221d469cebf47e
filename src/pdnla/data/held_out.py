"""People who must not be used in training, because the evaluation measures faces on them.

In ``Faces`` of Caltech-101, consecutive numbers show one person in different places. ``Faces_easy`` holds crops of the
same photographs under the same numbers.
"""

from pathlib import Path

PEOPLE = (
    range(42, 47),
    range(69, 90),
    range(164, 169),
    range(169, 174),
    range(194, 215),
    range(262, 267),
    range(306, 326),
    range(326, 346),
    range(393, 398),
    range(418, 434),
)
"""Ten people, each as the numbers of all photographs of that person."""

_FOLDERS = ("Faces", "Faces_easy")


def is_held_out(path: Path) -> bool:
    """Return whether a photograph of Caltech-101 shows one of :data:`PEOPLE`, by its folder and number."""
    number = path.stem.rpartition("_")[2]
    return path.parent.name in _FOLDERS and number.isdigit() and any(int(number) in person for person in PEOPLE)
