"""Distance between the pixels of the results and the truth."""

import torch
from torch import Tensor

from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm


def charbonnier(result: Tensor, truth: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Return ``mean(sqrt((result - truth)^2 + epsilon^2) - epsilon)``, a scalar.

    A smooth L1 (Charbonnier et al. 1994): about ``|d|`` above ``epsilon``, quadratic below it; 0 if both are equal.
    """
    difference = result - truth
    return (torch.sqrt(difference.square() + epsilon**2) - epsilon).mean()


class PixelLoss(LossTerm):
    """Charbonnier distance of ``out``, and ``mid`` times that of ``mid``, from the truth (sRGB in [-1, 1]).

    Args:
        mid: weight of ``mid`` relative to ``out``.
        epsilon: the difference below which the distance is quadratic.
        weight: weight of the term.
    """

    rows = "paired"

    def __init__(self, mid: float = 0.5, epsilon: float = 1e-3, *, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.mid, self.epsilon = mid, epsilon

    def forward(self, batch: Supervision) -> Tensor:
        """Return the distance, a scalar."""
        out = charbonnier(batch.out, batch.truth, self.epsilon)
        return out + self.mid * charbonnier(batch.mid, batch.truth, self.epsilon)
