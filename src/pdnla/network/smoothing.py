"""Smoothing of chroma along the edges of luminance."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST = 1e-3  # least confidence of a spot, so that no window has the weight 0
_STRAY = 12.0  # distance in a*b* from a window's fit at which a spot's weight is 0.6
_KEPT = 6.0  # and at which a confident spot keeps 0.6 of the distance
_FILTER = 5  # side of the guided filter's windows
_EDGE = 1e-3  # variance of L*/100 under which a window counts as flat


def smooth_outliers(lightness: Tensor, chroma: Tensor, confidence: Tensor, side: int = 15, rounds: int = 3) -> Tensor:
    """Replace the chroma of outlying spots by that of their neighbourhood, ``(B, 2, h, w)``.

    A guided filter (He et al. 2013), that is, the regression of chroma on lightness in each window. The weight of a
    spot is its confidence times Welsch's weight ``exp(-r^2 / (2 s^2))`` of its distance r from the fit, in a few
    iterations. Confident spots with a small distance from the fit keep it as detail.

    Args:
        lightness: L*/100, ``(B, 1, h, w)``.
        chroma: a* and b*, ``(B, 2, h, w)``.
        confidence: ``(B, 1, h, w)`` in [0, 1].
        side: of the windows, odd; they end at the border.
        rounds: number of iterations.
    """
    weights = confidence.clamp(min=_LEAST)
    fit, squared = chroma, torch.zeros_like(confidence)
    for _ in range(rounds):
        moments = [weights, weights * lightness, weights * lightness**2, weights * chroma, weights * lightness * chroma]
        sums = window_mean(torch.cat(moments, dim=1), side, "constant")
        total, light, light2, colour, product = sums.split([1, 1, 1, 2, 2], dim=1)
        light, light2, colour, product = light / total, light2 / total, colour / total, product / total
        slope = (product - light * colour) / ((light2 - light**2).clamp(min=0) + _EDGE)
        offset = colour - slope * light
        fits = torch.cat([total * slope, total * offset, total], dim=1)
        slopes, offsets, totals = window_mean(fits, side, "constant").split([2, 2, 1], dim=1)
        fit = (slopes * lightness + offsets) / totals
        squared = (chroma - fit).square().sum(dim=1, keepdim=True)
        weights = (confidence * torch.exp(-squared / (2 * _STRAY**2))).clamp(min=_LEAST)
    return fit + confidence * torch.exp(-squared / (2 * _KEPT**2)) * (chroma - fit)


def guided_filter(lightness: Tensor, values: Tensor) -> Tensor:
    """Return the guided filter (He et al. 2013) of values, ``(B, C, H, W)``, which then follow luminance's edges.

    Args:
        lightness: the guide, L*/100, ``(B, 1, H, W)``.
        values: ``(B, C, H, W)``.
    """
    count = values.shape[1]
    moments = torch.cat([lightness, lightness.square(), values, lightness * values], dim=1)
    mean, squares, level, product = window_mean(moments, _FILTER).split([1, 1, count, count], dim=1)
    slope = (product - mean * level) / (squares - mean.square() + _EDGE)
    slopes, offsets = window_mean(torch.cat([slope, level - slope * mean], dim=1), _FILTER).split(count, dim=1)
    return slopes * lightness + offsets


def window_mean(x: Tensor, side: int, border: str = "reflect") -> Tensor:
    """Return the mean over a window of ``side`` × ``side`` around each position.

    Args:
        x: ``(B, C, H, W)``.
        side: of the window, odd.
        border: what is beyond the picture: ``reflect``, or ``constant`` for zeros, as :func:`torch.nn.functional.pad`
            calls it.
    """
    x = F.pad(x, (side // 2,) * 4, mode=border)
    return _sums(_sums(x, side, -2), side, -1) / side**2


def _sums(x: Tensor, count: int, dim: int) -> Tensor:
    """Return the sums of ``count`` successive values along a dimension, made up of sums of 1, 2, 4, ... values."""
    length = x.shape[dim] - count + 1
    total, start, size = None, 0, 1
    while True:
        if count & size:
            part = x.narrow(dim, start, length)
            total = part if total is None else total + part
            start += size
        if 2 * size > count:
            assert total is not None
            return total
        x = x.narrow(dim, 0, x.shape[dim] - size) + x.narrow(dim, size, x.shape[dim] - size)
        size *= 2
