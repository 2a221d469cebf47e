"""Distance of the result's chroma from what corresponds in the reference, where that is sure."""

from torch import Tensor

from pdnla.images.color import rgb_to_lab
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm
from pdnla.network.correspondence import Carried, Correspondence


class CorrespondenceLoss(LossTerm):
    """Mean of ``c (|Δa*| + |Δb*|) / 100`` between ``out``, and ``mid`` times that of ``mid``, and what is carried over.

    Where no truth is known, the reference's colours at the places that a frozen network finds alike stand in for it,
    each believed by its confidence c: :class:`~pdnla.network.correspondence.Correspondence`. So He et al. ("Deep
    Exemplar-based Colorization", SIGGRAPH 2018) train towards colours that VGG's features have matched. It says where
    a colour belongs, which :class:`~pdnla.losses.HistogramLoss` does not ask.

    Args:
        side: at how many pixels squared the pictures are matched; 448, as colouring does, takes over four times as
            long.
        mid: weight of ``mid`` beside ``out``.
        weight: of the term in the sum of all.
    """

    rows = "unpaired"
    needs = ("backbone",)

    def __init__(self, side: int = 224, mid: float = 0.5, *, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.side, self.mid = side, mid

    def forward(self, batch: Supervision) -> Tensor:
        """Return the distance, a scalar; 0 where nothing of the reference is believed to correspond."""
        carried: Carried = Correspondence(batch.needed_backbone, self.side)(batch.target, batch.reference)

        def distance(result: Tensor) -> Tensor:
            difference = rgb_to_lab((result + 1) / 2)[:, 1:] - carried.chroma
            return (carried.confidence * difference.abs().sum(dim=1, keepdim=True)).mean() / 100

        return distance(batch.out) + self.mid * distance(batch.mid)
