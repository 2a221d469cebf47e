"""Distance between result and truth in a frozen network's features."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm
from pdnla.network.layers import at_least_float32


def feature_distance(result: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Return ``mean_l mean_p |x_lp / ‖x_lp‖ - y_lp / ‖y_lp‖|^2`` over levels l and their positions p, in [0, 4].

    The distance of LPIPS (Zhang et al., CVPR 2018) without learned weights, and with a mean over levels, not a sum.

    Args:
        result: feature maps, fine to coarse, each ``(B, C, H, W)``.
        truth: the same shapes.
    """
    levels = [(unit(x) - unit(y)).square().sum(dim=1).mean() for x, y in zip(result, truth, strict=True)]
    return sum(levels[1:], levels[0]) / len(levels)


def unit(features: Tensor) -> Tensor:
    """Return features of unit length at each position, in at least float32."""
    return functional.normalize(at_least_float32(features), dim=1)


class PerceptualLoss(LossTerm):
    """:func:`feature_distance` of ``out`` from the truth, for pairs with a known truth (Johnson et al., ECCV 2016)."""

    rows = "paired"
    needs = ("backbone",)

    def forward(self, batch: Supervision) -> Tensor:
        """Return the distance, a scalar."""
        return feature_distance(batch.features("out"), batch.features("truth"))
