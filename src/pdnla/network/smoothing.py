"""Smoothing of chroma along the edges of luminance."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST = 1e-3  # least confidence of a spot, so that no window has the weight 0
_STRAY = 12.0  # distance in a*b* from a window's fit at which a spot's weight is 0.6
_KEPT = 6.0  # and at which a confident spot keeps 0.6 of the distance
_LIKENESS = 10.0  # factor of the squared distances of appearance
_REACH = 20  # distance in spots, across and down, at which spots still count as neighbours
_STEP = 4  # every fourth spot in both directions is compared
_BLOCK = 8  # side of the blocks of spots that are compared with the same others
_AT_ONCE = 64  # blocks at a time, so that their likeness stays in the cache
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
    weights, fit = confidence.clamp(min=_LEAST), chroma
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
        weights = _welsch(confidence, chroma - fit, _STRAY).clamp(min=_LEAST)
    return fit + _welsch(confidence, chroma - fit, _KEPT) * (chroma - fit)


def smooth_by_likeness(appearance: Tensor, chroma: Tensor, confidence: Tensor, rounds: int = 2) -> Tensor:
    """Replace the chroma of outlying spots by that of spots around that look alike, ``(B, 2, h, w)``.

    Non-local means (Buades et al., CVPR 2005): the weight of a spot is ``exp(-10 * d^2)`` for the distance d of its
    appearance, times its confidence and Welsch's weight as in :func:`smooth_outliers`. A small thing that looks unlike
    its surroundings therefore keeps its colour, and a stray patch that looks like them does not. Every fourth spot up
    to 20 spots away is compared, and then the spot itself.

    Args:
        appearance: of each spot, ``(B, C, h, w)``; h and w are multiples of 8.
        chroma: a* and b*, ``(B, 2, h, w)``.
        confidence: ``(B, 1, h, w)`` in [0, 1].
        rounds: number of iterations that find the weights of the spots compared with.
    """
    parts = zip(appearance.split(1), chroma.split(1), confidence.split(1), strict=True)
    return torch.cat([_smooth_one(*part, rounds) for part in parts])  # one at a time, which bounds the memory


def _smooth_one(appearance: Tensor, chroma: Tensor, confidence: Tensor, rounds: int) -> Tensor:
    """Return :func:`smooth_by_likeness` of one picture."""
    # The product of a query and a key is the logarithm of their likeness.
    squared = appearance.square().sum(dim=1, keepdim=True)
    one = torch.ones_like(squared)
    queries = torch.cat([2 * _LIKENESS * appearance, -_LIKENESS * squared, -_LIKENESS * one], dim=1)
    keys = _around_blocks(_compared(torch.cat([appearance, one, squared], dim=1)))
    certain, colours = _compared(confidence), _compared(chroma)
    weights = certain.clamp(min=_LEAST)
    like = _likeness(_blocks(_compared(queries), _BLOCK // _STEP), keys, _near(_STEP, chroma.device))
    for _ in range(rounds):
        sums = like @ _around_blocks(_weighted(weights, colours))
        total, colour = _from_blocks(sums, _BLOCK // _STEP, colours.shape[-2:]).split([1, 2], dim=1)
        weights = _welsch(certain, colours - colour / total, _STRAY).clamp(min=_LEAST)
    values = _around_blocks(_weighted(weights, colours))
    near = _near(1, chroma.device)
    parts = zip(*(x.split(_AT_ONCE) for x in (_blocks(queries, _BLOCK), keys, values)), strict=True)
    sums = torch.cat([_likeness(query, key, near) @ value for query, key, value in parts])
    total, colour = _from_blocks(sums, _BLOCK, chroma.shape[-2:]).split([1, 2], dim=1)
    own = _welsch(confidence, chroma - colour / total.clamp(min=_LEAST), _STRAY).clamp(min=_LEAST)
    fit = (colour + own * chroma) / (total + own)
    return fit + _welsch(confidence, chroma - fit, _KEPT) * (chroma - fit)


def _welsch(confidence: Tensor, residual: Tensor, scale: float) -> Tensor:
    """Return confidence times Welsch's weight of the distance from a fit, of which ``(B, 2, h, w)`` are a* and b*."""
    return confidence * torch.exp(-residual.square().sum(dim=1, keepdim=True) / (2 * scale**2))


def _weighted(weights: Tensor, chroma: Tensor) -> Tensor:
    """Return weights and the products of chroma with them, ``(B, 3, h, w)``, for weighted means."""
    return torch.cat([weights, weights * chroma], dim=1)


def _likeness(queries: Tensor, keys: Tensor, near: Tensor) -> Tensor:
    """Return the likeness of the spots of blocks to those around them, ``(blocks, spots, compared spots)``."""
    return (queries @ keys.transpose(1, 2)).add_(near).exp_()


def _compared(x: Tensor) -> Tensor:
    """Return every fourth spot in both directions."""
    return x[..., _STEP // 2 :: _STEP, _STEP // 2 :: _STEP]


def _blocks(x: Tensor, side: int) -> Tensor:
    """Cut ``(1, C, h, w)`` into blocks of ``side`` × ``side``, ``(blocks, side², C)``."""
    return F.pixel_unshuffle(x.transpose(0, 1), side).flatten(2).permute(2, 1, 0).contiguous()


def _from_blocks(x: Tensor, side: int, size: torch.Size) -> Tensor:
    """Put blocks together; the inverse of :func:`_blocks`."""
    grid = (size[0] // side, size[1] // side)
    return F.pixel_shuffle(x.permute(2, 1, 0).unflatten(2, grid), side).transpose(0, 1)


def _around_blocks(x: Tensor) -> Tensor:
    """Return what the spots of each block are compared with, ``(blocks, M, C)``: zeros beyond the picture.

    Args:
        x: of every fourth spot, ``(1, C, h / 4, w / 4)``.
    """
    side, step = (_BLOCK + 2 * _REACH) // _STEP, _BLOCK // _STEP
    padded = F.pad(x[0], (_REACH // _STEP,) * 4).permute(1, 2, 0).contiguous()
    return padded.unfold(0, side, step).unfold(1, side, step).permute(0, 1, 3, 4, 2).flatten(2, 3).flatten(0, 1)


def _near(step: int, device: torch.device) -> Tensor:
    """Return 0 for the neighbours among the spots that each of a block's is compared with, else minus infinity.

    Args:
        step: 1 for all spots of a block, or 4 for every fourth.
        device: of the result, ``(spots of a block, M)``.
    """
    own = torch.arange(step // 2, _BLOCK, step, device=device) + _REACH
    others = torch.arange(_STEP // 2, _BLOCK + 2 * _REACH, _STEP, device=device)
    far = torch.where((own[:, None] - others).abs() > _REACH, -torch.inf, 0.0)
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
