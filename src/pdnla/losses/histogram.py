"""Distance between the chroma histograms of result and reference, independent of place."""

import torch
from torch import Tensor

from pdnla.images.color import rgb_to_lab
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm

LIMIT = 100.0


def chroma_histogram(image: Tensor, bins: int) -> Tensor:
    """Return soft histograms over a* and b* in [-100, 100], ``(B, bins, bins)``, each with the sum 1.

    The weight of a pixel in a bin at distance d (in bins, on each axis) is ``1 / (1 + d^2)``: HistoGAN's
    inverse-quadratic kernel (Afifi et al., CVPR 2021), whose gradient reaches distant colours.

    Args:
        image: sRGB in [-1, 1], ``(B, 3, H, W)``.
        bins: number of bins on each axis.
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
    return (squared + 1e-12).sqrt().mean()  # the root has no finite gradient at 0


class HistogramLoss(LossTerm):
    """:func:`histogram_distance` between ``out`` and the reference.

    Args:
        bins: number of bins on each axis.
        weight: weight of the term.
    """

    rows = "unpaired"

    def __init__(self, bins: int = 32, *, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.bins = bins

    def forward(self, batch: Supervision) -> Tensor:
        """Return the distance, a scalar in [0, 1]."""
        return histogram_distance(batch.out, batch.reference, self.bins)
