"""Fast semantic correspondence: blocks of cells that stay in the cache, and only what the softmax depends on."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pdnla.network.correspondence import (
    CANDIDATES,
    DISAGREEMENT,
    PENALTY,
    SHARPNESS,
    TEMPERATURE,
    Correspondence,
    ReferenceSpots,
    SpotAttention,
)

_BLOCK = 256  # cells whose attention is computed at a time, so that their logits stay in the cache
_COSINES = 1 << 22  # cosines computed at a time: large products are faster, and this bounds the memory
_GROUP = 8  # columns among which only the largest value is compared with those of other groups


class FastCorrespondence(Correspondence):
    """Correspondence in blocks of cells; colours and their squares are averaged by one product."""

    def carry(self, cells: Tensor, shades: Tensor, queries: Tensor, reference: ReferenceSpots) -> tuple[Tensor, Tensor]:
        """Transfer one reference's colours to cells of one picture."""
        chroma = reference.spots[..., -2:]
        values = torch.cat([chroma, chroma.square().sum(dim=-1, keepdim=True)], dim=-1)
        squared = _squared(reference)
        results, best_cosines = [], []
        for block, cosines in _cosines(cells, reference.features):
            attention = _attend(cosines, shades[block], queries[block], reference, squared)
            chosen = torch.cat([values[attention.cells].flatten(1, 2), attention.spot_cosines], dim=-1)
            mean, squares, similarity = (attention.weights @ chosen).split([2, 1, 1], dim=-1)
            deviation = (squares - mean.square().sum(dim=-1, keepdim=True)).clamp(min=0).sqrt()
            confidence = similarity.clamp(0, 1) * torch.exp(-deviation / DISAGREEMENT)
            results.append(torch.cat([mean, confidence], dim=-1))
            best_cosines.append(attention.best)
        return torch.cat(results), torch.cat(best_cosines)

    def attend(
        self,
        cells: Tensor,
        shades: Tensor,
        queries: Tensor,
        reference: ReferenceSpots,
        log_prior: Tensor | None = None,
    ) -> SpotAttention:
        """Return the attention of cells over one reference."""
        return _attend(cells @ reference.features.T, shades, queries, reference, _squared(reference), log_prior)


def _squared(reference: ReferenceSpots) -> Tensor:
    """Return the squared length of each spot's appearance, ``(N, spots)``."""
    return reference.spots[..., :-2].square().sum(dim=-1)


def _attend(
    cosines: Tensor,
    shades: Tensor,
    queries: Tensor,
    reference: ReferenceSpots,
    squared: Tensor,
    log_prior: Tensor | None = None,
) -> SpotAttention:
    """Return the attention of cells over one reference, from their cosines with its cells.

    The softmax over the spots is the same with the coarse attention's logits as with its logarithm, and without the
    part of the squared distance that belongs to the own spot alone.
    """
    distance = (shades[:, None] - reference.lightness).abs_()
    logits = torch.add(cosines, distance, alpha=-PENALTY).mul_(TEMPERATURE)
    if log_prior is not None:
        logits += log_prior
    values, chosen = largest(logits, min(CANDIDATES, logits.shape[1]))
    prior = values - values[:, :1]
    products = queries @ reference.spots[..., :-2][chosen].flatten(1, 2).transpose(1, 2)
    scores = (prior.unsqueeze(-1) - SHARPNESS * squared[chosen]).flatten(1).unsqueeze(1)
    weights = scores.add(products, alpha=2 * SHARPNESS).softmax(dim=-1)
    return SpotAttention(chosen, weights, cosines.gather(1, chosen), cosines.amax(dim=1))


def largest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row, ``(N, M)``, in descending order, and their columns, faster than ``topk``.

    Columns form groups. The largest values are in as many groups, those with the largest maxima.
    """
    rows, columns = x.shape
    groups = -(-columns // _GROUP)
    if groups <= count:
        values, places = x.topk(count, dim=1)
        return values, places
    if columns % _GROUP:
        x = F.pad(x, (0, groups * _GROUP - columns), value=-math.inf)
    x = x.view(rows, _GROUP, groups)
    chosen = x.amax(dim=1).topk(count, dim=1, sorted=False).indices
    values, places = x.gather(2, chosen.unsqueeze(1).expand(-1, _GROUP, -1)).flatten(1).topk(count, dim=1)
    found = places // count * groups + chosen.gather(1, places % count)
    return values, found.clamp(max=columns - 1)  # which matters where all else in a row is -inf too


def _cosines(cells: Tensor, features: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the cosines of blocks of cells, ``(N, D)``, with a reference's, ``(M, D)``, and where the blocks are."""
    most = max(_BLOCK, _COSINES // len(features) // _BLOCK * _BLOCK)
    for start in range(0, len(cells), most):
        products = cells[start : start + most] @ features.T
        for place in range(0, len(products), _BLOCK):
            yield slice(start + place, start + place + _BLOCK), products[place : place + _BLOCK]
