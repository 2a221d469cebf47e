"""Measures of film along motion, which OpenCV finds (the extra ``pdnla[film]``)."""

import math

from torch import Tensor

from pdnla.evaluation.metrics import STILL
from pdnla.film.motion import Finder
from pdnla.images.color import rgb_to_lab

_TRUST = 0.5  # of motion, from which on a pixel counts


def motion_flicker(result: Tensor, before: Tensor, target: Tensor, target_before: Tensor) -> float:
    """Return the change of chroma between two frames along motion, where luminance does not change.

    It is the mean distance in the a*b* plane between ``result`` and ``before`` at the place that motion comes from,
    over the pixels whose motion is trusted and whose L* changes along it by less than
    :data:`~pdnla.evaluation.metrics.STILL`.

    Args:
        result: sRGB in [0, 1], ``(1, 3, H, W)``.
        before: the previous frame's result.
        target: the target of ``result``.
        target_before: the previous frame's target.

    Returns:
        The distance; NaN if there is no such pixel or the frames differ in size.

    Raises:
        UserError: OpenCV is not installed.
    """
    if result.shape != before.shape or target.shape[2:] != target_before.shape[2:]:
        return math.nan
    lightness, lightness_before = (rgb_to_lab(picture)[0, 0].cpu().numpy() for picture in (target, target_before))
    chroma, chroma_before = (rgb_to_lab(picture)[0, 1:].permute(1, 2, 0).cpu().numpy() for picture in (result, before))
    motion = Finder().between(
        *((values * 2.55).round().clip(0, 255).astype("uint8") for values in (lightness, lightness_before))
    )
    still = (motion.trust > _TRUST) & (abs(lightness - motion.warp(lightness_before)) < STILL)
    change = ((chroma - motion.warp(chroma_before)) ** 2).sum(axis=-1) ** 0.5
    return float(change[still].mean()) if still.any() else math.nan
