"""Detection of grey pictures, which have no colours to give. This module does not import torch."""

from collections.abc import Callable, Container, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.color import rgb2lab

from pdnla.errors import UserError
from pdnla.images.io import Openable, Picture, read_image

GREY_CHROMA = 4.0
"""A photograph with a mean chroma, sqrt(a*^2 + b*^2), below this is grey: it has no colours to learn."""

_SMALL = (32, 32)
_CHECKED = 256  # shorter side in pixels at which references are checked
_NEUTRAL = 3  # difference of two channels, of 255, up to which a mean of pixels is neutral


def read_reference(path: str | Path | Openable, side: int | None = None) -> Picture:
    """Read a picture that gives its colours.

    Args:
        path: the file, or another object that can be opened.
        side: see :func:`~pdnla.images.io.read_image`.

    Raises:
        UserError: it cannot be read, or is transparent or neutral grey all over. A faded or tinted one is accepted.
    """
    picture = read_image(path, side)
    if picture.alpha is not None and picture.alpha.getextrema()[1] == 0:
        raise UserError(f"{path}: is transparent all over and should give the colours; leave it out")
    if picture.colour.mode == "RGB":
        small = np.asarray(picture.resized(_SMALL).colour, np.int16)
        if np.ptp(small, axis=-1).max() > _NEUTRAL:
            return picture
    raise UserError(f"{path}: is grey and should give the colours; leave it out or colour it")


def check_reference(path: str | Path | Openable) -> None:
    """Raise UserError if :func:`read_reference` would; a JPEG is decoded at a fraction of its size."""
    read_reference(path, _CHECKED)


def usable_references(
    references: Sequence[Path], named: Container[Path], left_out: Callable[[str], None]
) -> tuple[Path, ...]:
    """Return the references that can be used.

    Args:
        references: the pictures.
        named: those that must be usable.
        left_out: called with a sentence for each other one that cannot be used.

    Raises:
        UserError: one of the named ones cannot be used, or none of all.
    """
    usable = []
    for path in references:
        try:
            check_reference(path)
        except UserError as error:
            if path in named:
                raise
            left_out(str(error))
        else:
            usable.append(path)
    if not usable:
        raise UserError("no REFERENCE can be used; name pictures in colour, or a folder of them, after TARGET")
    return tuple(usable)


def open_colour(photograph: Openable, side: int) -> Image.Image | None:
    """Open a photograph as sRGB, with at least ``side`` pixels on the shorter side if it has as many.

    A JPEG is decoded at a fraction of its size if that is enough.

    Returns:
        The picture, or None if it is grey (:data:`GREY_CHROMA`).

    Raises:
        UserError: it cannot be read.
    """
    picture = read_image(photograph, side)
    return None if picture.colour.mode != "RGB" or is_grey(picture.rgb(), picture.alpha) else picture.rgb()


def is_grey(rgb: Image.Image, alpha: Image.Image | None = None) -> bool:
    """Return whether the mean chroma of a picture, or of what ``alpha`` shows of it, is under :data:`GREY_CHROMA`."""
    lab = rgb2lab(np.asarray(rgb.resize(_SMALL, Image.Resampling.BOX)))
    chroma = float(np.hypot(lab[..., 1], lab[..., 2]).mean())
    if alpha is not None:  # what is hidden is grey in `rgb`
        chroma *= 255 / max(float(np.asarray(alpha.resize(_SMALL, Image.Resampling.BOX)).mean()), 1.0)
    return chroma < GREY_CHROMA
