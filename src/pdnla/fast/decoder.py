"""The fast decoder: it encodes the reference per level, and frees features after use."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from pdnla.fast.fusion import FastPyramidDualModalFusion, ReferenceAttention
from pdnla.fast.layers import Bypasses, tanh_
from pdnla.network.decoder import Decoder, ReferenceCode


@dataclass(frozen=True)
class FastReferenceCode(ReferenceCode):
    """An encoded reference with ``levels``, the part for each level of PDMF, coarse to fine."""

    levels: tuple[ReferenceAttention, ...] = ()


class FastDecoder(Decoder):
    """Stage 2 with a reference that is encoded once for each level."""

    bypasses: ClassVar[Bypasses] = {"fusions": FastPyramidDualModalFusion}

    def encode_reference(self, features: Sequence[Tensor]) -> FastReferenceCode:
        """Encode the reference for the four levels, from its features f_c1..f_c4."""
        plain = super().encode_reference(features)
        return FastReferenceCode(plain.features, plain.pooled, levels=tuple(self.reference_levels(features)))

    def reference_levels(self, features: Sequence[Tensor]) -> Iterator[ReferenceAttention]:
        """Yield the encoded reference of each level, coarse to fine, from the features f_c1..f_c4."""
        pooled = self.pooled(features)
        remaining = list(features)
        del features  # frees the memory of a feature after its level
        for fusion in self.fusions:
            yield cast(FastPyramidDualModalFusion, fusion).encode_reference(remaining.pop(), pooled)

    def forward(self, features: Sequence[Tensor], reference: ReferenceCode) -> tuple[tuple[Tensor, ...], Tensor]:
        """Map the target's features f_g1..f_g4 and the reference to d1..d4 and I_mid, ``(B, 3, H, W)``."""
        return self.decode(list(features), self.levels_of(reference))

    def levels_of(self, reference: ReferenceCode) -> Iterable[ReferenceAttention]:
        """Return the encoded reference of each level, either kept or computed on demand."""
        if isinstance(reference, FastReferenceCode):
            return reference.levels
        return self.reference_levels(reference.features)

    def decode(
        self, features: list[Tensor], reference: Iterable[ReferenceAttention]
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Decode like :meth:`forward`.

        Args:
            features: f_g1..f_g4. The list is emptied, because later layers at full size need the memory.
            reference: the encoded reference of each level, coarse to fine.
        """
        pooled = self.pooled(features)
        levels = iter(reference)
        x = features.pop()
        outputs = []
        for fusion, upsample, conv in zip(self.fusions, self.upsamples, self.convs, strict=True):
            x = upsample(fusion(x, pooled, next(levels)))
            x = torch.cat([x, features.pop()], dim=1) if features else x
            x = conv(tanh_(x))
            outputs.append(x)
        return tuple(outputs), self.to_rgb(x)
