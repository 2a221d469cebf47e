"""Distance between the luminance of result and target in a frozen network's features."""

from torch import Tensor

from pdnla.losses.perceptual import feature_distance
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm


class ContentLoss(LossTerm):
    """:func:`~pdnla.losses.perceptual.feature_distance` of the luminance of ``out`` from the target.

    The content of the result should be that of the target, whatever the colours: the content loss of Gatys et al. (CVPR
    2016), applied to luminance only.
    """

    rows = "unpaired"
    needs = ("backbone",)

    def forward(self, batch: Supervision) -> Tensor:
        """Return the distance, a scalar in [0, 4]."""
        return feature_distance(batch.features("out_grey"), batch.features("target"))
