"""Smoothing of chroma along the edges of luminance."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST = 1e-3  # least confidence of a spot, so that no window has the weight 0
_STRAY = 12.0  # distance in a*b* from a window's fit at which a spot's weight is 0.6
_KEPT = 6.0  # and at which a confident spot keeps 0.6 of the distance
_LIKENESS = 16.0  # factor of the squared distances of appearance
_REACH = 20  # distance in spots, across and down, at which spots still count as neighbours
_STEP = 4  # every fourth spot in both directions is compared
_BLOCK = 8  # side of the blocks of spots that are compared with the same others
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


def smooth_by_likeness(appearance: Tensor, chroma: Tensor, confidence: Tensor, rounds: int = 3) -> Tensor:
    """Replace the chroma of outlying spots by that of spots around that look alike, ``(B, 2, h, w)``.

    Non-local means (Buades et al., CVPR 2005): the weight of a spot is ``exp(-16 * d^2)`` for the distance d of its
    appearance, times its confidence and Welsch's weight as in :func:`smooth_outliers`. A small thing that looks unlike
    its surroundings therefore keeps its colour, and a stray patch that looks like them does not. Every fourth spot up
    to 20 spots away is compared, and the spot itself.

    Args:
        appearance: of each spot, ``(B, C, h, w)``; h and w are multiples of 8.
        chroma: a* and b*, ``(B, 2, h, w)``.
        confidence: ``(B, 1, h, w)`` in [0, 1].
        rounds: number of iterations.
    """
    parts = zip(appearance.split(1), chroma.split(1), confidence.split(1), strict=True)
    return torch.cat([_smooth_one(*part, rounds) for part in parts])  # one at a time, which bounds the memory


def _smooth_one(appearance: Tensor, chroma: Tensor, confidence: Tensor, rounds: int) -> Tensor:
    """Return :func:`smooth_by_likeness` of one picture."""
    size = chroma.shape[-2:]
    own, others = _blocks(appearance), _around_blocks(appearance)
    like = torch.baddbmm(-others.square().sum(dim=2).unsqueeze(1), own, others.transpose(1, 2), alpha=2)
    like = ((like - own.square().sum(dim=2, keepdim=True)) * _LIKENESS + _near(chroma.device)).exp()
    weights = confidence.clamp(min=_LEAST)
    fit, squared = chroma, torch.zeros_like(confidence)
    for _ in range(rounds):
        weighted = torch.cat([weights, weights * chroma], dim=1)
        total, colour = (_from_blocks(like @ _around_blocks(weighted), size) + weighted).split([1, 2], dim=1)
        fit = colour / total
        squared = (chroma - fit).square().sum(dim=1, keepdim=True)
        weights = (confidence * torch.exp(-squared / (2 * _STRAY**2))).clamp(min=_LEAST)
    return fit + confidence * torch.exp(-squared / (2 * _KEPT**2)) * (chroma - fit)


def _blocks(x: Tensor) -> Tensor:
    """Cut ``(1, C, h, w)`` into blocks of spots, ``(blocks, spots, C)``."""
    return F.pixel_unshuffle(x.transpose(0, 1), _BLOCK).flatten(2).permute(2, 1, 0).contiguous()


def _from_blocks(x: Tensor, size: torch.Size) -> Tensor:
    """Put blocks of spots together; the inverse of :func:`_blocks`."""
    grid = (size[0] // _BLOCK, size[1] // _BLOCK)
    return F.pixel_shuffle(x.permute(2, 1, 0).unflatten(2, grid), _BLOCK).transpose(0, 1)


def _around_blocks(x: Tensor) -> Tensor:
    """Return the spots that those of each block are compared with, ``(blocks, spots, C)``; zeros beyond the picture."""
    side, step = (_BLOCK + 2 * _REACH) // _STEP, _BLOCK // _STEP
    compared = F.pad(x[0, :, _STEP // 2 :: _STEP, _STEP // 2 :: _STEP], (_REACH // _STEP,) * 4)
    windows = compared.permute(1, 2, 0).contiguous().unfold(0, side, step).unfold(1, side, step)
    return windows.permute(0, 1, 3, 4, 2).flatten(2, 3).flatten(0, 1)


def _near(device: torch.device) -> Tensor:
    """Return 0 for the neighbours among the spots that each of a block's is compared with, else minus infinity."""
    across = torch.arange(_BLOCK, device=device)[:, None]
    distance = (across + _REACH - torch.arange(_STEP // 2, _BLOCK + 2 * _REACH, _STEP, device=device)).abs()
    far = torch.where(distance > _REACH, -torch.inf, 0.0)
    return (far[:, None, :, None] + far[None, :, None, :]).flatten(2).flatten(0, 1)


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
