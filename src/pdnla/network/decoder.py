"""Stage 2: four levels of fusion and upsampling, from coarse to fine, up to I_mid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdnla.network.fusion import PyramidAveragePooling, PyramidDualModalFusion
from pdnla.network.layers import EqualConv2d, Upsample

if TYPE_CHECKING:
    from pdnla.network.correspondence import ReferenceSpots


@dataclass(frozen=True)
class ReferenceCode:
    """The encoded reference, which many targets can share.

    Attributes:
        features: f_c1..f_c4, ``(B, 2^i w, H / 2^i, W / 2^i)``.
        pooled: PAP of each, ``(B, S, 2^i w)``.
        spots: the encoded reference of semantic correspondence, in networks that use it.
    """

    features: tuple[Tensor, ...]
    pooled: tuple[Tensor, ...]
    spots: "ReferenceSpots | None" = None


class Decoder(nn.Module):
    """Fuse the encoders' features from f4 to f1 and upsample them to full size.

    Args:
        width: w; the decoder outputs d1..d4 have 8w, 4w, 2w and w channels at 1/8, 1/4, 1/2 and 1 of the size.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        sources = [width << i for i in range(1, 5)]
        coarse_to_fine = sources[::-1]
        self.pool = PyramidAveragePooling()
        self.fusions = nn.ModuleList(PyramidDualModalFusion(c, 2 * width, sources) for c in coarse_to_fine)
        self.upsamples = nn.ModuleList(Upsample(c, c // 2) for c in coarse_to_fine)
        # The last level has a bias and no skip connection.
        convs = [EqualConv2d(c, c // 2, 3, padding=1, bias=False) for c in coarse_to_fine[:-1]]
        self.convs = nn.ModuleList([*convs, EqualConv2d(width, width, 3, padding=1)])
        self.to_rgb = EqualConv2d(width, 3, 1, activate=False, exact=True)

    def encode_reference(self, features: Sequence[Tensor]) -> ReferenceCode:
        """Encode the reference for the four levels, from its features f_c1..f_c4."""
        return ReferenceCode(tuple(features), self.pooled(features))

    def pooled(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return PAP of each feature map, ``(B, S, C_j)``.

        In the published network, keys and values are 1×1 convolutions with a padding of 1. Pooling commutes with a 1×1
        convolution, so each map is padded with zeros and pooled once for all of them.
        """
        return tuple(self.pool(feature, ring=1) for feature in features)

    def forward(self, features: Sequence[Tensor], reference: ReferenceCode) -> tuple[tuple[Tensor, ...], Tensor]:
        """Map the target's features f_g1..f_g4 and the reference to d1..d4 and I_mid, ``(B, 3, H, W)``."""
        pooled = self.pooled(features)
        x = features[-1]
        skips: list[Tensor | None] = [*reversed(features[:-1]), None]
        levels = zip(self.fusions, self.upsamples, self.convs, reversed(reference.features), skips, strict=True)
        outputs = []
        for fusion, upsample, conv, r, skip in levels:
            x = upsample(fusion(x, pooled, r, reference.pooled))
            x = x if skip is None else torch.cat([x, skip], dim=1)
            x = conv(torch.tanh(x))
            outputs.append(x)
        return tuple(outputs), self.to_rgb(x)
