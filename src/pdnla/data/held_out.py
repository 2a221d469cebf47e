"""People who must not be used in training, because the evaluation measures faces on them.

In ``Faces`` of Caltech-101, consecutive numbers show one person in different places. ``Faces_easy`` holds crops of the
same photographs under the same numbers.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from pdnla.errors import UserError

log = logging.getLogger(__name__)

PEOPLE = (
    range(42, 47),
    range(133, 138),
    range(159, 164),
    range(164, 169),
    range(169, 174),
    range(262, 267),
    range(267, 286),
    range(306, 326),
    range(393, 398),
    range(398, 418),
)
"""Ten people on whom the evaluation measures faces, each as the numbers of all photographs of that person."""

OTHERS = (
    range(1, 22),
    range(22, 42),
    range(47, 69),
    range(69, 90),
    range(90, 113),
    range(113, 133),
    range(138, 159),
    range(174, 194),
    range(194, 215),
    range(215, 240),
    range(240, 262),
    range(286, 306),
    range(326, 346),
    range(346, 366),
    range(366, 388),
    range(418, 434),
)
"""The other people with several photographs."""

_FOLDERS = ("Faces", "Faces_easy")


def person(path: Path) -> range | None:
    """Return the numbers of all photographs of the person in a photograph of Caltech-101; None if not known."""
    number = path.stem.rpartition("_")[2]
    if path.absolute().parent.name not in _FOLDERS or not number.isdecimal():
        return None
    return next((run for run in (*PEOPLE, *OTHERS) if int(number) in run), None)


def same_photograph(path: Path) -> str:
    """Return folder and name of a photograph; a crop in ``Faces_easy`` has those of its photograph in ``Faces``."""
    folder = path.absolute().parent.name
    return f"{_FOLDERS[0] if folder in _FOLDERS else folder}/{path.name}"


def is_held_out(path: Path) -> bool:
    """Return whether a photograph of Caltech-101 shows one of :data:`PEOPLE`."""
    return person(path) in PEOPLE


def without_held_out(photographs: Sequence[Path], source: object) -> list[Path]:
    """Return photographs without those that no training may use.

    Args:
        photographs: to choose from.
        source: where they come from, for the log and the error.

    Raises:
        UserError: none is left.
    """
    left = [path for path in photographs if not is_held_out(path)]
    if len(left) < len(photographs):
        log.info("%s: left out %d photographs of people whom no training may use", source, len(photographs) - len(left))
    if photographs and not left:
        raise UserError(f"{source}: all of its photographs show people whom no training may use; name another folder")
    return left
