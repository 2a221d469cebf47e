"""Distance between the result's chroma and that of corresponding parts of the reference."""

from torch import Tensor

from pdnla.images.color import rgb_to_lab
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm
from pdnla.network.correspondence import Carried, Correspondence


class CorrespondenceLoss(LossTerm):
    """Mean of ``c (|Δa*| + |Δb*|) / 100`` from the transferred chroma, for ``out`` plus ``mid`` times that for ``mid``.

    Without a known truth, the reference's colours at corresponding places replace it, each weighted by its confidence
    c: :class:`~pdnla.network.correspondence.Correspondence`. He et al. ("Deep Exemplar-based Colorization", SIGGRAPH
    2018) likewise train towards colours that VGG features have matched. The term depends on the place of a colour;
    :class:`~pdnla.losses.HistogramLoss` does not.

    Args:
        side: the pictures are matched at about ``side``² pixels; 448, as for colouring, takes over four times as long.
        mid: weight of ``mid`` relative to ``out``.
        weight: weight of the term.
    """

    rows = "unpaired"
    needs = ("backbone",)

    def __init__(self, side: int = 224, mid: float = 0.5, *, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.side, self.mid = side, mid

    def forward(self, batch: Supervision) -> Tensor:
        """Return the distance, a scalar; 0 if no confidence is above 0."""
        carried: Carried = Correspondence(batch.needed_backbone, self.side)(batch.target, batch.reference)

        def distance(result: Tensor) -> Tensor:
            difference = rgb_to_lab((result + 1) / 2)[:, 1:] - carried.chroma
            return (carried.confidence * difference.abs().sum(dim=1, keepdim=True)).mean() / 100

        return distance(batch.out) + self.mid * distance(batch.mid)
