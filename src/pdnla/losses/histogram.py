"""Distance of the result's colours from the reference's, wherever they are."""

import torch
from torch import Tensor

from pdnla.images.color import rgb_to_lab
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm

LIMIT = 100.0


def chroma_histogram(image: Tensor, bins: int) -> Tensor:
    """Return the soft histogram over a* and b* in [-100, 100], ``(B, bins, bins)``, each summing to 1.

    A pixel counts in a bin at distance d (in bins, on each axis) by ``1 / (1 + d^2)``: HistoGAN's inverse-quadratic
    kernel (Afifi et al., CVPR 2021), whose gradient finds the reference's colours from far away.

    Args:
        image: sRGB in [-1, 1], ``(B, 3, H, W)``.
        bins: on each axis.
    """
    chroma = rgb_to_lab((image + 1) / 2)[:, 1:].flatten(2)
    centres = (torch.arange(bins, device=image.device, dtype=chroma.dtype) + 0.5) * (2 * LIMIT / bins) - LIMIT
    distance = (chroma.unsqueeze(-1) - centres) * (bins / (2 * LIMIT))
    a, b = (1 / (1 + distance.square())).unbind(1)
    counts = a.transpose(1, 2) @ b
    return counts / counts.sum(dim=(1, 2), keepdim=True)


def histogram_distance(image: Tensor, reference: Tensor, bins: int) -> Tensor:
    """Return the mean Hellinger distance ``‖sqrt(H) - sqrt(H_r)‖ / sqrt(2)`` of the histograms, in [0, 1]."""
    result, target = chroma_histogram(image, bins), chroma_histogram(reference, bins)
    squared = (result.sqrt() - target.sqrt()).square().sum(dim=(1, 2)) / 2
    return (squared + 1e-12).sqrt().mean()  # the root alone has no gradient where both agree


class HistogramLoss(LossTerm):
    """:func:`histogram_distance` between ``out`` and the reference.

    Args:
        bins: on each axis.
        weight: of the term in the sum of all.
    """

    rows = "unpaired"

    def __init__(self, bins: int = 32, *, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.bins = bins

    def forward(self, batch: Supervision) -> Tensor:
        """Return the distance, a scalar in [0, 1]."""
        return histogram_distance(batch.out, batch.reference, self.bins)
