"""Corrections: the region around a point of a target takes its colours from a region of a reference.

A correction is two points that show the same. Each is grown to a region (:func:`grown_region`) by geodesic distance, as
in Yatziv and Sapiro, "Fast Image and Video Colorization Using Chrominance Blending" (TIP 2006), but over the features
of semantic correspondence too. Within the target's region the coarse matching is constrained to the reference's
region, and luminance is brought to that region's mean and standard deviation (the swatches of Welsh et al.,
"Transferring Color to Greyscale Images", SIGGRAPH 2002). Outside the target's region the colours stay as they are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import kornia.filters
import numpy as np
import torch
from skimage.graph import MCP_Geometric
from torch import Tensor
from torch.nn import functional

from pdnla.errors import UserError
from pdnla.network.correspondence import (
    CELL,
    FINE,
    Correspondence,
    ReferenceSpots,
    SpotAttention,
    View,
    match_exposure,
    smooth_outliers,
)

REACH = 0.5
"""Default of how far a region extends, of the side of a square with the picture's area."""
_EDGE_COST = 1500.0  # of a step over an edge, by the square of its change of L*/100; a step over nothing costs 1
_SHADE, _SHADE_COST = 0.2, 30.0  # difference of L*/100 from the clicked point up to which a step costs no more
_UNLIKE_COST = 12.0  # of a step in a cell that shows nothing like the clicked one
_ALIKE = 0.55  # cosine to the clicked cell from which on a cell counts as alike
_CORE = 0.6  # share of the reach up to which the weight is 1
_LEAST = 1e-3  # weight of places outside the reference's region, of which none is taken
_PULL = 12.0  # by how much the coarse logits prefer the clicked place of the reference to the end of its region
_EXCLUDED = -1e4  # logit of a cell that is not to be matched
_PER_CELL = CELL // FINE


class Correction(NamedTuple):
    """Two points that show the same, as (x, y) in [0, 1] from the top left.

    Attributes:
        target: the point of the target whose colour is wrong.
        reference: the point of the reference whose colour it is to have.
        number: which reference, from 0 on.
        reach: how far the colour may spread, of the side of a square with the picture's area; edges and other content
            end it before.
    """

    target: tuple[float, float]
    reference: tuple[float, float]
    number: int = 0
    reach: float = REACH


class Corrected(NamedTuple):
    """What a correction gives, on the target's grid of spots, ``(1, C, h, w)``.

    Attributes:
        weight: how much of it applies, in [0, 1]; 0 outside the region.
        chroma: a* and b*.
        alike: how alike the places are that it comes from, a cosine.
        places: x and y in [0, 1] of the place in the reference that most of it comes from.
    """

    weight: Tensor
    chroma: Tensor
    alike: Tensor
    places: Tensor


def check_point(point: tuple[float, float]) -> None:
    """Raise UserError unless a point lies in the picture, ``x`` and ``y`` in [0, 1]."""
    if not all(0 <= coordinate <= 1 for coordinate in point):
        raise UserError(f"point {point[0]:g}, {point[1]:g}: lies outside the picture; give x and y from 0 to 1")


def correct(
    correspondence: Correspondence,
    target: View,
    reference: View,
    code: ReferenceSpots,
    correction: Correction,
) -> Corrected:
    """Match the region of a correction in the target with that in the reference.

    Args:
        correspondence: what matches.
        target: what it sees of the target.
        reference: what it sees of the reference.
        code: the reference's code.
        correction: the two points.

    Raises:
        UserError: a point lies outside its picture, or the reach is not above 0.
    """
    for point in (correction.target, correction.reference):
        check_point(point)
    if not correction.reach > 0:
        raise UserError(f"reach {correction.reach:g}: must be above 0; 1 is as far as the picture is wide")
    weight = grown_region(target, correction.target, correction.reach)
    source = grown_region(reference, correction.reference, correction.reach)
    at_spots = functional.avg_pool2d(target.lightness, FINE), functional.avg_pool2d(reference.lightness, FINE)
    own, new = (_exposure(lightness, region) for lightness, region in zip(at_spots, (weight, source), strict=True))
    compared = match_exposure(target.lightness, new, own)
    cells = functional.max_pool2d(weight, _PER_CELL).flatten().nonzero().flatten()
    # Weighted by the share of a cell that belongs to the region; the rest of the reference is excluded.
    prior = functional.avg_pool2d(source, _PER_CELL).flatten()
    log_prior = torch.where(prior > min(_LEAST, float(prior.max()) / 2), _PULL * (prior - 1), _EXCLUDED)
    attention = correspondence.attention(target, cells, code, compared, log_prior)
    found = carry(attention, code, [reference.grid])
    rows, columns = (side * _PER_CELL for side in target.grid)
    values = torch.zeros(1, 5 * _PER_CELL**2, target.cells.shape[1], device=weight.device)
    values[0, :, cells] = torch.cat(found[:3], dim=-1).permute(2, 1, 0).flatten(0, 1)
    spots = functional.fold(values, (rows, columns), _PER_CELL, stride=_PER_CELL)
    chroma, alike, places = spots.split([2, 1, 2], dim=1)
    # Outside the region its mean, with no weight to speak of: windows at its border see nothing else.
    trust = alike.clamp(min=0.1) * weight
    mean_chroma = (chroma * trust).sum(dim=(2, 3), keepdim=True) / trust.sum()
    chroma = torch.where(weight > 0, chroma, mean_chroma)
    return Corrected(weight, smooth_outliers(at_spots[0], chroma, trust), alike, places)


def grown_region(view: View, point: tuple[float, float], reach: float) -> Tensor:
    """Return the weights in [0, 1] of the spots that belong to a point, ``(1, 1, h, w)``.

    The weight is 1 up to 0.6 of the reach and falls to 0 at it, by the geodesic distance from the point. A step costs
    its length, more over an edge of luminance, and more where the content is unlike the point's.

    Args:
        view: what the matching sees of the picture.
        point: x and y in [0, 1].
        reach: of the side of a square with the picture's area.
    """
    lightness = functional.avg_pool2d(view.lightness, FINE)
    height, width = lightness.shape[-2:]
    row, column = spot_at(point, height, width)
    cell = (row // _PER_CELL) * view.grid[1] + column // _PER_CELL
    cosines = (view.cells[0] @ view.cells[0, cell]).view(1, 1, *view.grid)
    unlike = (1 - cosines / _ALIKE).clamp(0, 1)
    unlike = functional.interpolate(unlike, (height, width), mode="bilinear", align_corners=False)
    edges = kornia.filters.sobel(lightness)
    shade = ((lightness - lightness[..., row, column]).abs() - _SHADE).clamp(min=0)
    cost = 1 + _EDGE_COST * edges.square() + _SHADE_COST * shade + _UNLIKE_COST * unlike.square()
    distances, _ = MCP_Geometric(cost[0, 0].double().cpu().numpy(), fully_connected=True).find_costs([(row, column)])
    distances = torch.from_numpy(np.asarray(distances, dtype=np.float32)).to(lightness.device)
    relative = distances / (reach * (height * width) ** 0.5)
    falling = ((1 - relative) / (1 - _CORE)).clamp(0, 1)
    return (falling**2 * (3 - 2 * falling)).view(1, 1, height, width)


class CarriedSpots(NamedTuple):
    """What the spots of M cells are given.

    Attributes:
        chroma: a* and b*, ``(M, spots, 2)``.
        alike: how alike the places are that it comes from, a cosine, ``(M, spots, 1)``.
        places: x and y in [0, 1] of the place that most of it comes from, ``(M, spots, 2)``.
        numbers: which reference that place is in, from 0 on, ``(M, spots)``.
    """

    chroma: Tensor
    alike: Tensor
    places: Tensor
    numbers: Tensor


def carry(attention: SpotAttention, code: ReferenceSpots, grids: Sequence[tuple[int, int]]) -> CarriedSpots:
    """Return what an attention carries over.

    Args:
        attention: of the spots of some cells.
        code: the code of a reference, or of several, joined (:func:`~pdnla.network.correspondence.join_spots`).
        grids: rows and columns of the cells of each.
    """
    window = code.spots.shape[2]
    weights = attention.weights
    colours = code.spots[0, ..., -2:][attention.cells].flatten(1, 2)
    cosines = attention.cosines.repeat_interleave(window, dim=1).unsqueeze(-1)
    best = weights.argmax(dim=-1)
    cell, spot = attention.cells.gather(1, best // window), best % window
    side = round(window**0.5)
    margin = (side - _PER_CELL) // 2
    shapes = torch.tensor(grids, device=cell.device)
    ends = shapes.prod(dim=1).cumsum(0)
    numbers = torch.searchsorted(ends, cell, right=True)
    cell = cell - (ends - shapes.prod(dim=1))[numbers]
    height, width = shapes[numbers].unbind(-1)
    rows = (cell // width) * _PER_CELL + spot // side - margin
    columns = (cell % width) * _PER_CELL + spot % side - margin
    places = torch.stack([(columns + 0.5) / (width * _PER_CELL), (rows + 0.5) / (height * _PER_CELL)], dim=-1)
    return CarriedSpots(weights @ colours, (weights @ cosines).clamp(0, 1), places.clamp(0, 1), numbers)


def spot_at(point: tuple[float, float], height: int, width: int) -> tuple[int, int]:
    """Return the row and the column of a point, x and y in [0, 1], in a grid of ``height`` × ``width``."""
    return min(int(point[1] * height), height - 1), min(int(point[0] * width), width - 1)


def _exposure(lightness: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean and standard deviation, ``(1, 2)``."""
    total = weights.sum()
    mean = (lightness * weights).sum() / total
    return torch.stack([mean, ((lightness - mean).square() * weights).sum().div(total).sqrt()])[None]
