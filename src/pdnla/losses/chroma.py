"""Distance between the chroma of the results and the truth."""

from torch import Tensor

from pdnla.images.color import rgb_to_lab
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm


def chroma_distance(result: Tensor, truth: Tensor) -> Tensor:
    """Return the mean of ``|Δa*| + |Δb*|`` over all pixels, in units of 100, of two sRGB pictures in [-1, 1]."""
    difference = rgb_to_lab((result + 1) / 2)[:, 1:] - rgb_to_lab((truth + 1) / 2)[:, 1:]
    return difference.abs().sum(dim=1).mean() / 100


class ChromaLoss(LossTerm):
    """Chroma distance of ``out``, and ``mid`` times that of ``mid``, from the truth.

    A user's result keeps only the network's chroma, so chroma has its own term in addition to the pixels.

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
        return chroma_distance(batch.out, batch.truth) + self.mid * chroma_distance(batch.mid, batch.truth)
