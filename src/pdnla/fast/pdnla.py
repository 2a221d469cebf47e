"""The fast networks: a reference that is used once is never completely in memory."""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from pdnla.fast.decoder import FastDecoder
from pdnla.fast.fusion import ReferenceAttention
from pdnla.fast.layers import Bypasses
from pdnla.network.correspondence import Carried
from pdnla.network.decoder import ReferenceCode
from pdnla.network.informed import InformedInputs, InformedPDNLA
from pdnla.network.pdnla import PDNLA, Colorization, check_picture
from pdnla.network.semantic import SemanticPDNLA


class FastPDNLA(PDNLA):
    """PDNLA whose :meth:`forward` encodes the reference one level at a time and frees it after use."""

    bypasses: ClassVar[Bypasses] = {"decoder": FastDecoder}
    decoder: FastDecoder

    def forward(self, target: Tensor, reference: Tensor | ReferenceCode) -> Colorization:
        """Colour ``target`` with the colours of corresponding parts of ``reference``."""
        check_picture(target, "target")
        levels: Iterable[ReferenceAttention]
        if isinstance(reference, ReferenceCode):
            levels = self.decoder.levels_of(reference)
        else:  # one level at a time, because all levels take most of the network's memory
            check_picture(reference, "reference")
            levels = self.decoder.reference_levels(self.reference_encoder(reference))
        base, extra = self.extra_inputs(target, reference)
        decoded, mid = self.decoder.decode(list(self.target_encoder(target, *extra)), levels)
        del levels, reference, extra  # at full size, refinement needs the memory
        return Colorization(mid, self.refiner(base, mid, decoded))


class FastSemanticPDNLA(FastPDNLA, SemanticPDNLA):
    """SemanticPDNLA with :class:`FastPDNLA`'s :meth:`forward`."""


class FastInformedPDNLA(InformedPDNLA):
    """InformedPDNLA whose network is not run where its chroma has no weight.

    It colours at a size at which no reference is large, so that it needs no other :meth:`forward`.
    """

    def _carried(self, target: Tensor, inputs: InformedInputs) -> Carried:
        if torch.compiler.is_compiling() or bool(self._share(inputs.guide).any()):
            return super()._carried(target, inputs)
        return inputs.carried
