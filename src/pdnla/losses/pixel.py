"""Distance between the pixels of the results and the truth."""

import torch
from torch import Tensor

from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm

EPSILON = 1e-3
"""The difference below which the distance is quadratic."""


def charbonnier(result: Tensor, truth: Tensor) -> Tensor:
    """Return ``mean(sqrt((result - truth)^2 + e^2) - e)``, a scalar, with e :data:`EPSILON`.

    A smooth L1 (Charbonnier et al. 1994): about ``|d|`` above e, quadratic below it; 0 if both are equal.
    """
    difference = result - truth
    return (torch.sqrt(difference.square() + EPSILON**2) - EPSILON).mean()


class PixelLoss(LossTerm):
    """Charbonnier distance of ``out``, and ``mid`` times that of ``mid``, from the truth (sRGB in [-1, 1]).

    Args:
        mid: weight of ``mid`` relative to ``out``.
        weight: weight of the term.
    """

    rows = "paired"

    def __init__(self, mid: float = 0.5, *, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.mid = mid

    def forward(self, batch: Supervision) -> Tensor:
        """Return the distance, a scalar."""
        return charbonnier(batch.out, batch.truth) + self.mid * charbonnier(batch.mid, batch.truth)
