"""Total variation of the result's chroma."""

from torch import Tensor

from pdnla.images.color import rgb_to_lab
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm


def chroma_variation(image: Tensor, guide: Tensor | None = None, edges: float = 10.0) -> Tensor:
    """Return ``mean |a*_x| + |a*_y| + |b*_x| + |b*_y|`` of the differences between neighbours, in units of 100.

    The anisotropic total variation (Rudin et al. 1992) of a* and b*. With a guide, the weight of a difference is
    ``exp(-|ΔL*| / edges)`` with the guide's difference between the same neighbours, as in the edge-aware smoothness of
    Godard et al. (CVPR 2017): a change of colour costs little at the guide's edges.

    Args:
        image: sRGB in [-1, 1], ``(B, 3, H, W)``.
        guide: the picture with the edges, sRGB in [-1, 1], ``(B, 3, H, W)``.
        edges: the difference of L* at which the weight is 1/e.
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
    """:func:`chroma_variation` of ``out``, which favours areas of one colour.

    Args:
        edges: the difference of the target's L* at which the weight is 1/e; None for equal weights.
        weight: weight of the term.
    """

    def __init__(self, edges: float | None = 10.0, *, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.edges = edges

    def forward(self, batch: Supervision) -> Tensor:
        """Return the variation, a scalar."""
        if self.edges is None:
            return chroma_variation(batch.out)
        return chroma_variation(batch.out, batch.target, self.edges)
