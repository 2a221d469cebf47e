"""Corrections: the region around a point of a target takes its colours from a region of a reference.

A correction is a pair of points, one in each picture, that show the same thing. A region is grown around each point
(:func:`grown_region`) by geodesic distance, as in Yatziv and Sapiro, "Fast Image and Video Colorization Using
Chrominance Blending" (TIP 2006); here the distance also depends on the features of semantic correspondence. Within the
target's region, the coarse matching only uses the reference's region, and luminance is shifted and scaled to that
region's mean and standard deviation, as with the swatches of Welsh et al., "Transferring Color to Greyscale Images"
(SIGGRAPH 2002). Outside the target's region, the colours do not change.
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
)
from pdnla.network.smoothing import smooth_outliers

REACH = 0.5
"""Default radius of a region, as a fraction of the side of a square with the picture's area."""
# The cost of a step is 1 plus these:
_EDGE_COST = 1500.0  # times the squared gradient of L*/100
_DIFFERENCE_COST = 30.0  # times the part of the difference of L*/100 from the point that is above _DIFFERENCE
_DIFFERENCE = 0.2
_UNLIKE_COST = 12.0  # in a cell whose content is entirely unlike that of the clicked one; less in one that is similar
_SIMILAR = 0.55  # cosine to the clicked cell at and above which a cell counts as similar
_CORE = 0.6  # fraction of the reach within which the weight is 1
_LEAST = 1e-3  # cells of the reference with at most this weight are excluded
_PULL = 12.0  # difference of the coarse logits between the clicked place of the reference and the border of its region
_EXCLUDED = -1e4  # log prior of an excluded cell
_PER_CELL = CELL // FINE


class Correction(NamedTuple):
    """Two points that show the same thing, as (x, y) in [0, 1] from the top left.

    Attributes:
        target: the point of the target that has the wrong colour.
        reference: the point of the reference that has the right colour.
        number: index of the reference, from 0.
        reach: the largest distance from the point that the region covers, as a fraction of the side of a square with
            the picture's area; edges and other content stop it earlier.
    """

    target: tuple[float, float]
    reference: tuple[float, float]
    number: int = 0
    reach: float = REACH


class Corrected(NamedTuple):
    """The result of a correction on the target's grid of spots; each tensor is ``(1, C, h, w)``.

    Attributes:
        weight: the share of the correction in the colour, in [0, 1]; 0 outside the region.
        chroma: a* and b*.
        similarity: cosine to the matched places, in [0, 1].
        places: x and y in [0, 1] of the matched place in the reference with the largest weight.
    """

    weight: Tensor
    chroma: Tensor
    similarity: Tensor
    places: Tensor


def check_point(point: tuple[float, float]) -> None:
    """Raise UserError unless a point is inside the picture: x and y in [0, 1]."""
    if not all(0 <= coordinate <= 1 for coordinate in point):
        raise UserError(f"point {point[0]:g}, {point[1]:g}: lies outside the picture; give x and y from 0 to 1")


def correct(
    correspondence: Correspondence,
    target: View,
    reference: View,
    code: ReferenceSpots,
    correction: Correction,
) -> Corrected:
    """Match the target's region of a correction with the reference's region.

    Args:
        correspondence: the semantic correspondence that matches them.
        target: its view of the target.
        reference: its view of the reference.
        code: the encoded spots of the reference.
        correction: the two points.

    Raises:
        UserError: a point is outside its picture, or the reach is not above 0.
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
    # A cell's prior is the mean weight of its spots; cells outside the region are excluded.
    prior = functional.avg_pool2d(source, _PER_CELL).flatten()
    log_prior = torch.where(prior > min(_LEAST, float(prior.max()) / 2), _PULL * (prior - 1), _EXCLUDED)
    attention = correspondence.attention(target, cells, code, compared, log_prior)
    matched = match_spots(attention, code, [reference.grid])
    rows, columns = (side * _PER_CELL for side in target.grid)
    values = torch.zeros(1, 5 * _PER_CELL**2, target.cells.shape[1], device=weight.device)
    values[0, :, cells] = torch.cat(matched[:3], dim=-1).permute(2, 1, 0).flatten(0, 1)
    spots = functional.fold(values, (rows, columns), _PER_CELL, stride=_PER_CELL)
    chroma, similarity, places = spots.split([2, 1, 2], dim=1)
    # Outside the region, chroma is the region's mean, so that windows that cross the border contain no other colours.
    trust = similarity.clamp(min=0.1) * weight
    mean_chroma = (chroma * trust).sum(dim=(2, 3), keepdim=True) / trust.sum()
    chroma = torch.where(weight > 0, chroma, mean_chroma)
    return Corrected(weight, smooth_outliers(at_spots[0], chroma, trust), similarity, places)


def grown_region(view: View, point: tuple[float, float], reach: float) -> Tensor:
    """Return the weights in [0, 1] of the spots in the region around a point, ``(1, 1, h, w)``.

    The weight depends on the geodesic distance from the point: it is 1 up to 0.6 of the reach and falls to 0 at the
    reach. The cost of a step is its length; it is higher across edges of luminance, and where the luminance or the
    content differs from that of the point.

    Args:
        view: the view of the picture in semantic correspondence.
        point: x and y in [0, 1].
        reach: the radius of the region, as a fraction of the side of a square with the picture's area.
    """
    lightness = functional.avg_pool2d(view.lightness, FINE)
    height, width = lightness.shape[-2:]
    row, column = spot_at(point, height, width)
    cell = (row // _PER_CELL) * view.grid[1] + column // _PER_CELL
    cosines = (view.cells[0] @ view.cells[0, cell]).view(1, 1, *view.grid)
    unlike = (1 - cosines / _SIMILAR).clamp(0, 1)
    unlike = functional.interpolate(unlike, (height, width), mode="bilinear", align_corners=False)
    edges = kornia.filters.sobel(lightness)
    difference = ((lightness - lightness[..., row, column]).abs() - _DIFFERENCE).clamp(min=0)
    cost = 1 + _EDGE_COST * edges.square() + _DIFFERENCE_COST * difference + _UNLIKE_COST * unlike.square()
    distances, _ = MCP_Geometric(cost[0, 0].double().cpu().numpy(), fully_connected=True).find_costs([(row, column)])
    distances = torch.from_numpy(np.asarray(distances, dtype=np.float32)).to(lightness.device)
    relative = distances / (reach * (height * width) ** 0.5)
    falling = ((1 - relative) / (1 - _CORE)).clamp(0, 1)
    return (falling**2 * (3 - 2 * falling)).view(1, 1, height, width)


class MatchedSpots(NamedTuple):
    """The colours and matched places for the spots of M cells.

    Attributes:
        chroma: a* and b*, ``(M, spots, 2)``.
        similarity: cosine to the matched places, in [0, 1], ``(M, spots, 1)``.
        places: x and y in [0, 1] of the matched place with the largest weight, ``(M, spots, 2)``.
        numbers: index of the reference that contains this place, from 0, ``(M, spots)``.
    """

    chroma: Tensor
    similarity: Tensor
    places: Tensor
    numbers: Tensor


def match_spots(attention: SpotAttention, code: ReferenceSpots, grids: Sequence[tuple[int, int]]) -> MatchedSpots:
    """Return the colours and places that an attention matches with the spots of a target.

    Args:
        attention: the attention of the spots of M cells.
        code: the encoded spots of a reference, or of several (:func:`~pdnla.network.correspondence.join_spots`).
        grids: rows and columns of the cells of each reference.
    """
    window = code.spots.shape[2]
    weights = attention.weights
    colours = code.spots[0, ..., -2:][attention.cells].flatten(1, 2)
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
    return MatchedSpots(weights @ colours, (weights @ attention.spot_cosines).clamp(0, 1), places.clamp(0, 1), numbers)


def spot_at(point: tuple[float, float], height: int, width: int) -> tuple[int, int]:
    """Return the row and the column of a point (x and y in [0, 1]) in a grid of ``height`` × ``width``."""
    return min(int(point[1] * height), height - 1), min(int(point[0] * width), width - 1)


def _exposure(lightness: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean and standard deviation, ``(1, 2)``."""
    total = weights.sum()
    mean = (lightness * weights).sum() / total
    return torch.stack([mean, ((lightness - mean).square() * weights).sum().div(total).sqrt()])[None]
