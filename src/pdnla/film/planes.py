"""Y'CbCr of video: conversion of luma to a grey picture, and of a* and b* with that luma to chroma planes.

A grey film's luma is read as the sRGB value of a grey pixel. ITU-R BT.601, BT.709 and BT.2020 define the matrices,
ranges and rounding.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdnla.images import color

Plane = NDArray[Any]
"""Code values of one component, ``(H, W)``: bytes, or of more than 8 bits 16-bit words."""

WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
"""Weights of red and blue in luma, by the name of the matrix."""
_ROUNDS = 3  # after which luma is exact to a tenth of an 8-bit step


class Coding(NamedTuple):
    """The coding of values in a plane.

    Attributes:
        matrix: a key of :data:`WEIGHTS`.
        full: whether luma takes all code values; otherwise those from 16 to 235, of 8 bits.
        depth: bits per component.
    """

    matrix: str
    full: bool
    depth: int

    @property
    def luma_range(self) -> tuple[int, int]:
        """Code values of black and white."""
        return (0, (1 << self.depth) - 1) if self.full else (16 << self.depth - 8, 235 << self.depth - 8)


def grey_values(luma: Plane, coding: Coding) -> NDArray[np.float32]:
    """Return luma as sRGB in [0, 1], ``(H, W)``."""
    black, white = coding.luma_range
    return np.clip((luma.astype(np.float32) - black) / (white - black), 0, 1)


def chroma_codes(grey: Tensor, chroma: Tensor, coding: Coding) -> tuple[Plane, Plane]:
    """Return the planes Cb and Cr with which pixels of a given luma have given a* and b*.

    L* is determined for each pixel so that the colour has exactly that luma. The chroma of a colour outside RGB is
    reduced until it fits.

    Args:
        grey: luma as sRGB in [0, 1], ``(h, w)``, at the places of the chroma samples.
        chroma: a* and b* there, ``(2, h, w)``.
        coding: the coding.
    """
    red, blue = WEIGHTS[coding.matrix]
    green = 1 - red - blue
    weights = grey.new_tensor([red, green, blue]).view(3, 1, 1)
    value = grey
    for _ in range(_ROUNDS):
        rgb = color.lab_to_rgb(torch.cat([color.lightness(value[None]), chroma]), clip=False)
        value = value + grey - (weights * rgb).sum(dim=0)
    rgb = color.lab_to_rgb(torch.cat([color.lightness(value[None]), chroma]), clip=False)
    offsets = rgb - (weights * rgb).sum(dim=0)
    room = torch.where(offsets > 0, 1 - grey, grey) / offsets.abs().clamp(min=1e-6)
    offsets = offsets * room.amin(dim=0).clamp(0, 1)
    steps = (1 << coding.depth) - 1 if coding.full else 224 << coding.depth - 8
    middle = 1 << coding.depth - 1
    planes = []
    for offset, weight in ((offsets[2], blue), (offsets[0], red)):
        codes = (offset * (steps / (2 * (1 - weight))) + middle).round().clamp(0, (1 << coding.depth) - 1)
        planes.append(codes.cpu().numpy().astype(np.uint8 if coding.depth == 8 else np.uint16))
    return planes[0], planes[1]
