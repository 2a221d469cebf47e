"""Upscaling of chroma from the working size to the full picture, along the edges of the full picture."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-3  # of the guided filter: variance of L*/100 below which a neighbourhood counts as flat


class ChromaPlane(NamedTuple):
    """Chroma for every pixel of a picture: slope · L*/100 + offset, clamped between a minimum and a maximum.

    Attributes:
        coefficients: slope, offset, minimum and maximum of a* and b*, on the working grid, ``(1, 8, h, w)``.
        size: width and height of the picture.
    """

    coefficients: Tensor
    size: tuple[int, int]

    @classmethod
    def fit(cls, lightness: Tensor, chroma: Tensor, size: tuple[int, int]) -> "ChromaPlane":
        """Upscale chroma from the working size to ``size``, guided by the lightness.

        The slope is that of the fast guided filter (He and Sun 2015), the local regression of chroma on
        lightness. The offset differs from the paper's, whose window means smooth the chroma: it is the one with
        which the working picture keeps its chroma exactly. Chroma stays in the range of the neighbouring working
        pixels, so grain and sharp detail of the full picture create no new colours.

        Args:
            lightness: L* at the working size, ``(1, 1, h, w)``.
            chroma: a* and b*, ``(1, 2, h, w)``.
            size: width and height of the full picture. If neither is larger than the working size, chroma is
                only resized, if at all.
        """
        height, width = min(chroma.shape[-2], size[1]), min(chroma.shape[-1], size[0])
        if (height, width) != chroma.shape[-2:]:
            lightness, chroma = _reduce(lightness, height, width), _reduce(chroma, height, width)
        if (width, height) == size:
            return cls(torch.cat([torch.zeros_like(chroma), chroma, chroma, chroma], dim=1), size)
        guide = lightness / 100
        moments = _window_mean(torch.cat([guide, guide**2, chroma, guide * chroma], dim=1))
        count = chroma.shape[1]
        guide_mean, square_mean, chroma_mean, product_mean = moments.split([1, 1, count, count], dim=1)
        variance = (square_mean - guide_mean**2).clamp(min=0)
        covariance = product_mean - guide_mean * chroma_mean
        slope = _window_mean(covariance / (variance + _EPSILON))
        offset = chroma - slope * guide
        return cls(torch.cat([slope, offset, -_window_max(-chroma), _window_max(chroma)], dim=1), size)

    def rows(self, top: int, bottom: int, lightness: Tensor) -> Tensor:
        """Return a* and b* of the rows from ``top`` up to ``bottom``, ``(1, 2, bottom - top, W)``.

        Args:
            top: the first row.
            bottom: the row after the last one.
            lightness: L* of these rows at full size, ``(1, 1, bottom - top, W)``.
        """
        slope, offset, least, most = self._interpolate(top, bottom).chunk(4, dim=1)
        return torch.addcmul(offset, slope, lightness / 100).clamp_(least, most)

    def _interpolate(self, top: int, bottom: int) -> Tensor:
        """Interpolate the coefficients between pixel centres; the result does not depend on how rows are grouped."""
        height, (full_width, full_height) = self.coefficients.shape[-2], self.size
        centres = torch.arange(top, bottom, device=self.coefficients.device) + 0.5
        position = (centres * (height / full_height) - 0.5).clamp(0, height - 1)
        above = position.floor().long()
        below = (above + 1).clamp(max=height - 1)
        weight = (position - above).unsqueeze(-1)
        rows = torch.lerp(self.coefficients[:, :, above], self.coefficients[:, :, below], weight)
        if rows.shape[-1] == full_width:
            return rows
        return functional.interpolate(rows, size=(bottom - top, full_width), mode="bilinear", align_corners=False)


def _reduce(x: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(x, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def _window_mean(x: Tensor) -> Tensor:
    """Return the mean over each pixel and its neighbours inside the picture."""
    return _window_sum(x) / _window_sum(torch.ones_like(x[:, :1]))


def _window_sum(x: Tensor) -> Tensor:
    for dim in (-2, -1):
        before, own, after = _neighbours(x, dim, 0.0)
        x = before + own + after
    return x


def _window_max(x: Tensor) -> Tensor:
    """Return the largest value among each pixel and its neighbours."""
    for dim in (-2, -1):
        before, own, after = _neighbours(x, dim, -torch.inf)
        x = torch.maximum(torch.maximum(before, own), after)
    return x


def _neighbours(x: Tensor, dim: int, outside: float) -> list[Tensor]:
    """Return the map moved by one position along a dimension, itself, and moved by one the other way."""
    padded = functional.pad(x, (1, 1) if dim == -1 else (0, 0, 1, 1), value=outside)
    return [padded.narrow(dim, start, x.shape[dim]) for start in range(3)]
