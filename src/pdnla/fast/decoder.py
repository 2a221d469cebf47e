"""The fast twin of the decoder: a kept reference has each level's share, and features are freed once they are used."""

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
    """A reference with what each PDMF level needs of it, ``levels``, coarse to fine."""

    levels: tuple[ReferenceAttention, ...] = ()


class FastDecoder(Decoder):
    """Stage 2 with the reference's share of each level computed once."""

    bypasses: ClassVar[Bypasses] = {"fusions": FastPyramidDualModalFusion}

    def encode_reference(self, features: Sequence[Tensor]) -> FastReferenceCode:
        """Return what the four levels need of the reference, from its features f_c1..f_c4."""
        plain = super().encode_reference(features)
        return FastReferenceCode(plain.features, plain.pooled, levels=tuple(self.reference_levels(features)))

    def reference_levels(self, features: Sequence[Tensor]) -> Iterator[ReferenceAttention]:
        """Make each level's share of the reference from its features f_c1..f_c4, coarse to fine, when asked for it."""
        pooled = self.pooled(features)
        left = list(features)
        del features  # so that a feature's memory is free once its level is done
        for fusion in self.fusions:
            yield cast(FastPyramidDualModalFusion, fusion).encode_reference(left.pop(), pooled)

    def forward(self, features: Sequence[Tensor], reference: ReferenceCode) -> tuple[tuple[Tensor, ...], Tensor]:
        """Map the target's features f_g1..f_g4 and the reference to d1..d4 and I_mid, ``(B, 3, H, W)``."""
        return self.decode(list(features), self.levels_of(reference))

    def levels_of(self, reference: ReferenceCode) -> Iterable[ReferenceAttention]:
        """Return each level's share of a reference, kept or made when asked for."""
        if isinstance(reference, FastReferenceCode):
            return reference.levels
        return self.reference_levels(reference.features)

    def decode(
        self, features: list[Tensor], reference: Iterable[ReferenceAttention]
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Do what :meth:`forward` does.

        Args:
            features: f_g1..f_g4. The list is emptied and levels are not kept: at full size, the rest needs the memory.
            reference: the levels, coarse to fine.
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
