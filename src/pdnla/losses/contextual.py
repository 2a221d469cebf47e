"""Contextual loss: each part of the result should have similar features in the reference."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm
from pdnla.network.layers import at_least_float32


def contextual_similarity(result: Tensor, reference: Tensor, bandwidth: float = 0.1) -> Tensor:
    """Return each result position's largest affinity to a reference position, averaged over positions, ``(B,)``.

    With features centred by the reference's mean and cosine distances ``d_ij``: ``d~_ij = d_ij / (min_k d_ik + 1e-5)``,
    ``A_ij = softmax_j((1 - d~_ij) / h)`` and ``CX = mean_i max_j A_ij``. From Mechrez et al. (ECCV 2018), in the
    direction of Zhang et al. (Deep Exemplar-based Video Colorization, CVPR 2019): the reference must contain the parts
    of the result, but the result need not contain all parts of the reference.

    Args:
        result: the result's feature map, ``(B, C, H, W)``.
        reference: the reference's, ``(B, C, H', W')``.
        bandwidth: h.

    Returns:
        Similarities in (0, 1]; 1 if each position has one match that is far nearer than all others.
    """
    result, reference = (at_least_float32(x).flatten(2) for x in (result, reference))
    centre = reference.mean(dim=2, keepdim=True)
    result, reference = functional.normalize(result - centre, dim=1), functional.normalize(reference - centre, dim=1)
    distance = 1 - result.transpose(1, 2) @ reference
    relative = distance / (distance.amin(dim=2, keepdim=True) + 1e-5)
    return torch.softmax((1 - relative) / bandwidth, dim=2).amax(dim=2).mean(dim=1)


class ContextualLoss(LossTerm):
    """``-log`` of :func:`contextual_similarity` between ``out`` and the reference, weighted over feature levels.

    Args:
        levels: a weight for each of the backbone's feature maps, fine to coarse; those of weight 0 are not compared.
            The finest maps have so many positions that their affinities cost more than the rest of a step.
        bandwidth: h.
        weight: weight of the term.
    """

    rows = "unpaired"
    needs = ("backbone",)

    def __init__(
        self, levels: Sequence[float] = (0.0, 1.0, 1.0, 0.0), bandwidth: float = 0.1, *, weight: float = 1.0
    ) -> None:
        super().__init__(weight)
        self.levels, self.bandwidth = tuple(levels), bandwidth

    def forward(self, batch: Supervision) -> Tensor:
        """Return the loss, a scalar of at least 0."""
        total = torch.zeros((), device=batch.out.device)
        pairs = zip(self.levels, batch.features("out"), batch.features("reference"), strict=True)
        for weight, result, reference in pairs:
            if weight:
                similarity = contextual_similarity(result, reference, self.bandwidth)
                total = total - weight * similarity.log().mean()
        return total / sum(self.levels)
