"""Conversion of a picture of any size to the network's input: working size and tensors."""

import math

import torch
from torch import Tensor

from pdnla.images import color
from pdnla.images.io import Picture
from pdnla.network import STRIDE

NATIVE = "native"
"""The option for working at each picture's own size."""
_LONGEST = 8  # largest ratio of the longer working side to `size`; a longer strip is squeezed


def working_size(size: tuple[int, int], target: int | str) -> tuple[int, int]:
    """Return the width and height at which the network sees a picture of ``size``: multiples of 16.

    For ``native``, they are the nearest to its own size. Otherwise the area is about ``target``² and the aspect ratio
    is preserved as well as possible: among the sides near the ideal ones, the smallest sum of the deviation of the
    aspect ratio and a fifth of that of the area wins. Above an aspect ratio of 64, the longer side stays at 8 ×
    ``target``, and the picture is squeezed.
    """
    if isinstance(target, str):
        own = [max(1, round(side / STRIDE)) * STRIDE for side in size]
        return own[0], own[1]
    aspect = size[0] / size[1]
    width = min(target * math.sqrt(aspect), _LONGEST * target)
    height = min(target / math.sqrt(aspect), _LONGEST * target)

    def cost(sides: tuple[int, int]) -> float:
        deviation = abs(math.log(sides[0] / sides[1] / aspect))
        return deviation + 0.2 * abs(math.log(sides[0] * sides[1] / target**2))

    return min(((w, h) for w in _multiples_near(width) for h in _multiples_near(height)), key=cost)


def _multiples_near(side: float) -> list[int]:
    steps = int(side // STRIDE)
    return [max(step, 1) * STRIDE for step in range(steps - 1, steps + 3)]


def network_input(picture: Picture, size: int | str, grey: bool) -> Tensor:
    """Return ``picture`` at its working size, grey if asked, sRGB in [0, 1], ``(1, 3, h, w)``."""
    small = picture.resized(working_size(picture.size, size))
    rgb = rows_tensor(small, 0, small.size[1])
    is_grey = picture.colour.mode != "RGB"
    return color.grey(rgb) if grey and not is_grey else rgb.contiguous()


def rows_tensor(picture: Picture, top: int, bottom: int) -> Tensor:
    """Return the rows of ``picture`` from ``top`` up to ``bottom`` as sRGB in [0, 1], ``(1, 3, bottom - top, W)``."""
    rows = torch.from_numpy(picture.rows(top, bottom)).permute(2, 0, 1).unsqueeze(0)
    return rows.expand(1, 3, -1, -1)
