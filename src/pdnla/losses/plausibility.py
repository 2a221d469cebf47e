"""Distance between result and truth in a frozen network's coarse features."""

from collections.abc import Sequence

from torch import Tensor

from pdnla.losses.perceptual import unit
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm


class PlausibilityLoss(LossTerm):
    """Distance of ``out`` from the truth in the coarse features of a frozen network, weighted by level.

    ``sum_l w_l mean_p |x_lp / ‖x_lp‖ - y_lp / ‖y_lp‖|^2 / sum_l w_l``, in [0, 4]. The coarsest features of a network
    that names things change little with a shade and much with a colour that such a thing does not have: He et al.
    ("Deep Exemplar-based Colorization", SIGGRAPH 2018) use them for pairs whose truth is not known, and compare with
    the target's own photograph.

    Args:
        levels: weights of the backbone's levels, fine to coarse.
        weight: weight of the term.
    """

    needs = ("backbone",)

    def __init__(self, levels: Sequence[float] = (0.0, 0.0, 0.5, 1.0), weight: float = 1.0) -> None:
        super().__init__(weight)
        self.levels = tuple(levels)

    def forward(self, batch: Supervision) -> Tensor:
        """Return the distance, a scalar."""
        total = batch.out.new_zeros(())
        for weight, result, truth in zip(self.levels, batch.features("out"), batch.features("truth"), strict=True):
            if weight:
                total = total + weight * (unit(result) - unit(truth)).square().sum(dim=1).mean()
        return total / sum(self.levels)
