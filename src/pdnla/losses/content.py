"""Distance of the result's luminance from the target's in a frozen network's features."""

from torch import Tensor

from pdnla.losses.perceptual import feature_distance
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm


class ContentLoss(LossTerm):
    """:func:`~pdnla.losses.perceptual.feature_distance` of the luminance of ``out`` from the target.

    What the result shows is what the target shows, whatever its colours: the content loss of Gatys et al. (CVPR 2016)
    on luminance alone.
    """

    rows = "unpaired"
    needs = ("backbone",)

    def forward(self, batch: Supervision) -> Tensor:
        """Return the distance, a scalar in [0, 4]."""
        return feature_distance(batch.features("out_grey"), batch.features("target"))
