"""Estimation of motion between two frames, with a trust for each pixel."""

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pdnla.errors import UserError
from pdnla.film.source import EXTRA, import_or_none

cv2 = import_or_none("cv2")

Map = NDArray[np.float32]
"""Values for every pixel, ``(H, W)`` or ``(H, W, C)``."""

_RETURN = 0.5  # error of forward and backward motion, in pixels, with a trust of 0.6
_PART = 0.05  # additional error per pixel of motion
_DIFFERENCE = 6.0  # smoothed difference in L* with a trust of 0.6
_SURROUNDINGS = 0.02  # weight of a pixel's surroundings
_GRAIN = 5  # side of the window that smooths grain, in pixels


def require_cv2() -> Any:
    """Return OpenCV.

    Raises:
        UserError: it is not installed.
    """
    if cv2 is None:
        raise UserError(f"film needs OpenCV; {EXTRA}")
    return cv2


class Motion(NamedTuple):
    """The position of each pixel of a frame in another frame.

    Attributes:
        places: column and row in the other frame, ``(H, W, 2)``.
        trust: trust in the position, ``(H, W)`` in [0, 1].
    """

    places: Map
    trust: Map

    def warp(self, values: Map) -> Map:
        """Return values of the other frame, ``(H, W)`` or ``(H, W, C)``, at the places."""
        warped: Map = cv2.remap(values, self.places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return warped


class Finder:
    """Finds the motion between frames by dense inverse search (Kroeger et al., ECCV 2016), OpenCV's ``DISOpticalFlow``.

    Trust is low where forward and backward motion disagree (Sundaram et al., ECCV 2010), where luminance differs, and
    outside the other frame.
    """

    def __init__(self) -> None:
        self._flow = require_cv2().DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._flow.setFinestScale(1)

    def between(self, frame: NDArray[np.uint8], other: NDArray[np.uint8]) -> Motion:
        """Return the motion from a frame to another one of the same size, both L* · 2.55, ``(H, W)``."""
        there: Map = self._flow.calc(frame, other, None)
        back: Map = self._flow.calc(other, frame, None)
        return _with_trust(frame, other, there, back)


def _with_trust(frame: NDArray[np.uint8], other: NDArray[np.uint8], there: Map, back: Map) -> Motion:
    height, width = frame.shape
    places = _grid(height, width) + there
    returned = there + cv2.remap(back, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    limit = _RETURN**2 + _PART**2 * _squared_length(there)
    warped = cv2.remap(other, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    difference = frame.astype(np.float32) - warped
    difference -= float(np.median(difference[::4, ::4]))  # the exposure of old film varies
    difference = cv2.blur(difference, (_GRAIN, _GRAIN))
    trust = np.exp(-0.5 * _squared_length(returned) / limit - 0.5 * np.square(difference / (2.55 * _DIFFERENCE)))
    x, y = places[..., 0], places[..., 1]
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    return Motion(places, (trust * inside).astype(np.float32))


def _squared_length(vectors: Map) -> Map:
    """Return the squared lengths, ``(H, W)``, of vectors ``(H, W, 2)``: faster than a sum over two values."""
    x, y = vectors[..., 0], vectors[..., 1]
    return x * x + y * y


@functools.lru_cache(maxsize=2)
def _grid(height: int, width: int) -> Map:
    """Return the column and row of each pixel, ``(H, W, 2)``."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([columns, rows], axis=-1)


def fill_gaps(chroma: Map, weight: Map) -> Map:
    """Return chroma divided by its weight; where the weight is small, the mean of increasingly large surroundings.

    Args:
        chroma: weighted a* and b*, ``(H, W, 2)``.
        weight: their weights, above 0, ``(H, W)``.
    """
    levels = [(chroma, weight)]
    while min(levels[-1][1].shape) > 2:
        levels.append((cv2.pyrDown(levels[-1][0]), cv2.pyrDown(levels[-1][1])))
    mean = levels[-1][0] / levels[-1][1][..., None]
    for values, total in reversed(levels[:-1]):
        height, width = total.shape
        wider = cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR)
        mean = (values + _SURROUNDINGS * wider) / (total + _SURROUNDINGS)[..., None]
    return np.ascontiguousarray(mean, np.float32)
