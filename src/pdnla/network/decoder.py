"""Stage 2: four levels of fusion and upsampling, coarse to fine, to I_mid."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from pdnla.network.correspondence import ReferenceSpots
from pdnla.network.fusion import PyramidDualModalFusion, ReferenceAttention, pyramid_average_pooling
from pdnla.network.layers import EqualConv2d, Upsample, tanh_


class ReferenceCode(NamedTuple):
    """Everything the network needs of a reference: its features f_c1..f_c4 and each PDMF level's share of them.

    ``spots`` is what semantic correspondence needs, in the networks that use it.
    """

    features: tuple[Tensor, ...]
    levels: tuple[ReferenceAttention, ...]
    spots: ReferenceSpots | None = None


class Decoder(nn.Module):
    """Fuse the encoders' features from f4 to f1 and bring them to full size.

    Args:
        width: w; the decoder outputs d1..d4 have 8w, 4w, 2w and w channels at 1/8, 1/4, 1/2 and 1 of the size.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        sources = [width << i for i in range(1, 5)]
        coarse_to_fine = sources[::-1]
        self.fusions = nn.ModuleList(PyramidDualModalFusion(c, 2 * width, sources) for c in coarse_to_fine)
        self.upsamples = nn.ModuleList(Upsample(c, c // 2) for c in coarse_to_fine)
        self.convs = nn.ModuleList(
            EqualConv2d(c, c // 2, 3, padding=1, bias=False)
            if c > sources[0]
            else EqualConv2d(width, width, 3, padding=1)
            for c in coarse_to_fine
        )
        self.to_rgb = EqualConv2d(width, 3, 1, activate=False, exact=True)

    @staticmethod
    def _pool(features: Sequence[Tensor]) -> list[Tensor]:
        """Pool each map once for all levels; the keys' and values' 1×1 projections pad it with a ring of zeros."""
        return [pyramid_average_pooling(f, ring=1) for f in features]

    def reference_levels(self, features: Sequence[Tensor]) -> Iterator[ReferenceAttention]:
        """Make each level's share of the reference from its features f_c1..f_c4, coarse to fine, when asked for it."""
        pooled = self._pool(features)
        left = list(features)
        del features  # so that a feature's memory is free once its level is done
        for fusion in self.fusions:
            yield cast(PyramidDualModalFusion, fusion).encode_reference(left.pop(), pooled)

    def forward(
        self, features: list[Tensor], reference: Iterable[ReferenceAttention]
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Map the target's features and the reference's levels to d1..d4 and I_mid, ``(B, 3, H, W)``.

        Args:
            features: f_g1..f_g4. The list is emptied and levels are not kept: at full size, the rest needs the memory.
            reference: the levels, coarse to fine.
        """
        pooled = self._pool(features)
        levels = iter(reference)
        x = features.pop()
        outputs = []
        for fusion, upsample, conv in zip(self.fusions, self.upsamples, self.convs, strict=True):
            x = upsample(fusion(x, pooled, next(levels)))
            x = torch.cat([x, features.pop()], dim=1) if features else x
            x = conv(tanh_(x))
            outputs.append(x)
        return tuple(outputs), self.to_rgb(x)
