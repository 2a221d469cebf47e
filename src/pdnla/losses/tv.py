"""Total variation of the result's chroma."""

from torch import Tensor, nn

from pdnla.color import rgb_to_lab
from pdnla.losses.supervision import Supervision


def chroma_variation(image: Tensor) -> Tensor:
    """Return ``mean |a*_x| + |a*_y| + |b*_x| + |b*_y|`` of differences between neighbours, in units of 100.

    The anisotropic total variation (Rudin et al. 1992) of a* and b*, of sRGB in [-1, 1], ``(B, 3, H, W)``.
    """
    chroma = rgb_to_lab((image + 1) / 2)[:, 1:] / 100
    across, down = chroma.diff(dim=3).abs(), chroma.diff(dim=2).abs()
    return across.sum(dim=1).mean() + down.sum(dim=1).mean()


class TotalVariationLoss(nn.Module):
    """:func:`chroma_variation` of ``out``: colours lie in patches, not in grains."""

    rows = "all"
    needs = ()

    def forward(self, batch: Supervision) -> Tensor:
        """Return the variation, a scalar."""
        return chroma_variation(batch.out)
