"""Which pictures are grey and have no colours to give. Nothing here needs torch."""

import numpy as np
from PIL import Image
from skimage.color import rgb2lab

from pdnla.images.io import Openable, read_image

GREY_CHROMA = 4.0
"""A photograph with a mean chroma, sqrt(a*^2 + b*^2), below this is grey: it has no colours to learn."""


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
    small = (32, 32)
    lab = rgb2lab(np.asarray(rgb.resize(small, Image.Resampling.BOX)))
    chroma = float(np.hypot(lab[..., 1], lab[..., 2]).mean())
    if alpha is not None:  # what is hidden is grey in `rgb`
        chroma *= 255 / max(float(np.asarray(alpha.resize(small, Image.Resampling.BOX)).mean()), 1.0)
    return chroma < GREY_CHROMA
