"""Total variation of the result's chroma."""

from torch import Tensor

from pdnla.images.color import rgb_to_lab
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm


def chroma_variation(image: Tensor, guide: Tensor | None = None, edges: float = 10.0) -> Tensor:
    """Return ``mean |a*_x| + |a*_y| + |b*_x| + |b*_y|`` of differences between neighbours, in units of 100.

    The anisotropic total variation (Rudin et al. 1992) of a* and b*. With a guide, a difference counts by
    ``exp(-|ΔL*| / edges)`` of the guide's own between the same neighbours, as in the edge-aware smoothness of Godard et
    al. (CVPR 2017): colours may change where the guide does, and cost most where they leave an object.

    Args:
        image: sRGB in [-1, 1], ``(B, 3, H, W)``.
        guide: the picture whose edges colours may follow, sRGB in [-1, 1], ``(B, 3, H, W)``.
        edges: the difference of L* at which a change of chroma costs 1/e of what it costs on a plain area.
    """
    chroma = rgb_to_lab((image + 1) / 2)[:, 1:] / 100
    luminance = None if guide is None else rgb_to_lab((guide + 1) / 2)[:, :1] / edges
    total = chroma.new_zeros(())
    for axis in (2, 3):
        change = chroma.diff(dim=axis).abs()
        if luminance is not None:
            change = change * luminance.diff(dim=axis).abs().neg().exp()
        total = total + change.sum(dim=1).mean()
    return total


class TotalVariationLoss(LossTerm):
    """:func:`chroma_variation` of ``out``: colours lie in patches, not in grains.

    Args:
        edges: the L* of the target's edges that chroma may follow at 1/e of the cost; None to charge all alike.
        weight: of the term in the sum of all.
    """

    def __init__(self, edges: float | None = 10.0, *, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.edges = edges

    def forward(self, batch: Supervision) -> Tensor:
        """Return the variation, a scalar."""
        if self.edges is None:
            return chroma_variation(batch.out)
        return chroma_variation(batch.out, batch.target, self.edges)
