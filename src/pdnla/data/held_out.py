"""People that no training may use, because faces are measured on them.

In ``Faces`` of Caltech-101, runs of consecutive numbers show one person in different places. ``Faces_easy`` has the
same photographs, cropped, under the same numbers.
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
"""Ten people, each by the numbers of all photographs of them."""

_FOLDERS = ("Faces", "Faces_easy")


def is_held_out(path: Path) -> bool:
    """Return whether a photograph of Caltech-101 shows one of :data:`PEOPLE`, by its folder and number."""
    number = path.stem.rpartition("_")[2]
    return path.parent.name in _FOLDERS and number.isdigit() and any(int(number) in person for person in PEOPLE)
