"""Planning of a film: its references and the path of the result; nothing is decoded or written."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from pdnla.errors import UserError
from pdnla.film.source import VIDEO_SUFFIXES, is_video
from pdnla.images.io import list_images
from pdnla.inference.planning import RESULT

SETTINGS = "settings.json"
"""Name of the file in the folder of parts that exists from the first coloured frame to the last."""
_SAME_SUFFIX = frozenset([".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"])  # others take less
_OTHERS = ".mkv"  # a container that holds the film and all streams of the others


class Film(NamedTuple):
    """A film to colour.

    Attributes:
        target: a video file, or a folder of frames.
        references: the references.
        out: a video file, or a folder of frames.
        rate: frames per second of a folder of frames.
        codec: name of the encoder; None for the container's usual one.
        crf: constant rate factor; None for the default.
        shots: CSV of shots, read if it exists and written otherwise; None for none.
        size: ``size`` of :class:`~pdnla.inference.colorizer.Colorizer`; frames are not enlarged to it.
        depth: bits per channel of coloured frames in a folder.
        named: the references that were named, and not found in a folder.
    """

    target: Path
    references: tuple[Path, ...]
    out: Path
    rate: Fraction = Fraction(25)
    codec: str | None = None
    crf: int | None = None
    shots: Path | None = None
    size: int | str = 512
    depth: int = 8
    named: frozenset[Path] = frozenset()

    @property
    def to_video(self) -> bool:
        """Whether the result is a video file."""
        return is_video(self.out)

    @property
    def done(self) -> bool:
        """Whether the result exists and is complete."""
        begun = any(self.parts.glob("segment_*" if self.to_video else SETTINGS))
        return self.out.exists() and not begun and (self.to_video or any(self.out.iterdir()))

    @property
    def parts(self) -> Path:
        """The folder of finished parts, until the result is complete."""
        return self.out.with_name(f"{self.out.name}.parts")

    @property
    def review(self) -> Path:
        """The page of ``--review``."""
        return self.out.with_name(f"{self.out.stem}_review.html")


def is_film(target: Path, out: str | None, asked: bool) -> bool:
    """Return whether a target is a film: a video file, or a folder with ``--film`` or a video file as its result."""
    return is_video(target) or asked or (target.is_dir() and out is not None and is_video(Path(out)))


def plan_film(target: Path, references: Sequence[Path], out: str | None) -> Film:
    """Find the references and name the result.

    Args:
        target: a video file or a folder of frames.
        references: pictures and folders of pictures.
        out: the result, a video file or a folder of frames. None: next to the target.

    Raises:
        UserError: a path is missing, there is no reference, or the result would replace an input.
    """
    for path in (target, *references):
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder; check the path")
        if is_video(path) and path is not target:
            raise UserError(f"{path}: is a film; references are pictures, such as stills from it")
    if not target.is_dir() and not is_video(target):
        raise UserError(f"{target}: is neither a folder of frames nor a video file; leave --film and its options out")
    if not references:
        raise UserError("no REFERENCE given; name pictures in colour, or a folder of them, after TARGET")
    pictures: list[Path] = []
    for path in references:
        pictures += list_images(path) if path.is_dir() else [path]
    result = _result(target, out)
    inputs = {os.path.realpath(path) for path in (target, *references, *pictures)}
    if os.path.realpath(result) in inputs:
        raise UserError(f"{result}: is what the film is made of; choose another place with -o")
    if target.is_dir() and result.suffix.lower() in VIDEO_SUFFIXES and result.is_dir():
        raise UserError(f"{result}: is a folder; choose another name with -o")
    named = frozenset(path for path in references if not path.is_dir())
    return Film(target, tuple(dict.fromkeys(pictures)), result, named=named)


def _result(target: Path, out: str | None) -> Path:
    if target.is_dir():
        if out is not None:
            return Path(out)
        target = target if target.name not in ("", "..") else target.resolve()
        return target.with_name(f"{target.name}{RESULT}")
    suffix = target.suffix if target.suffix.lower() in _SAME_SUFFIX else _OTHERS
    if out is None:
        return target.with_name(f"{target.stem}{RESULT}{suffix}")
    path = Path(out)
    if path.is_file() and path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"{out}: is a file and no video; end the result's name in .mp4, or in / for a folder of frames")
    if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir() and not out.endswith(("/", os.sep)):
        return path
    if path.suffix and not path.is_dir() and not out.endswith(("/", os.sep)):
        raise UserError(
            f"{out}: {path.suffix} is no video; end its name in .mp4 or .mkv, or in / for a folder of frames"
        )
    return path
