"""Reading of the frames of a film from a video file or a folder."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pdnla.errors import UserError
from pdnla.images.io import Picture, list_images, read_image

if TYPE_CHECKING:  # importing torch takes seconds, and --help does not need it
    from pdnla.film.planes import Plane

_CONTAINERS = (
    *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m2v", "vob", "ts", "m2ts", "mts"),
    *("mxf", "wmv", "flv", "ogv", "3gp", "dv", "nut", "y4m"),
)
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _CONTAINERS)
"""Suffixes of video files, in lower case."""
EXTRA = 'install it with: pip install "pdnla[film]"'


def import_or_none(name: str) -> Any:
    """Return a module of the extra ``pdnla[film]``, or None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def is_video(path: Path) -> bool:
    """Return whether a path has the suffix of a video file."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a film.

    Attributes:
        number: its number, from 0.
        picture: the frame, upright; of a video, luminance only.
        time: its time stamp in units of the source's time base.
        luma: the code values of the video's luminance plane, upright, ``(H, W)``; None in a folder.
        path: its file in a folder.
        duration: how long it is shown, in the same units as ``time``, as stored; 0 if that is unknown.
    """

    number: int
    picture: Picture
    time: int
    luma: "Plane | None" = None
    path: Path | None = None
    duration: int = 0


class FrameSource(Protocol):
    """A source of frames.

    Attributes:
        path: the file or folder.
        size: width and height of an upright frame.
        aspect: width of a pixel over its height.
        time_base: seconds in a unit of a time stamp.
        rate: frames per second that it was made with; a film may show some longer.
        count: about how many frames it has, if that is known before they are read, else 0.
        remarks: sentences for the user; reading the frames may add some.
    """

    path: Path
    size: tuple[int, int]
    aspect: Fraction
    time_base: Fraction
    rate: Fraction
    count: int
    remarks: list[str]

    def frames(self, start: int = 0, times: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield the frames from number ``start`` on.

        Args:
            start: the first.
            times: the time stamps of all frames, if they are known, for seeking in a video.
        """
        ...

    def signature(self) -> dict[str, Any]:
        """Return values that change if the source changes."""
        ...


class FolderSource:
    """The pictures of a folder, in natural order.

    Args:
        path: the folder.
        rate: frames per second.

    Raises:
        UserError: there is no picture.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self.rate = path, rate
        self.paths = list_images(path)
        self.count = len(self.paths)
        self.size = read_image(self.paths[0]).size
        self.aspect = Fraction(1)
        self.time_base = 1 / rate
        self.remarks: list[str] = []

    def frames(self, start: int = 0, times: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield the frames from number ``start`` on.

        Raises:
            UserError: one cannot be read, or has another size than the first.
        """
        for number, path in enumerate(self.paths[start:], start):
            picture = read_image(path)
            if picture.size != self.size:
                (width, height), (first_width, first_height) = picture.size, self.size
                raise UserError(
                    f"{path}: has {width}×{height} pixels and the first frame {first_width}×{first_height}; frames of"
                    " one film have one size, so put it into another folder"
                )
            yield Frame(number, Picture(picture.colour), number, path=path, duration=1)

    def signature(self) -> dict[str, Any]:
        """Return the names and sizes of the files."""
        return {"files": [[path.name, path.stat().st_size] for path in self.paths], "rate": str(self.rate)}
