"""The fast twins of the encoder: the stem in the first block's bands, edges of a batch at once on accelerators."""

from typing import ClassVar

import kornia.filters
import torch
from torch import Tensor

from pdnla.fast.layers import Bypasses, FastEqualConv2d, FastResidualDown, tanh_
from pdnla.network.encoder import Edges, Encoder
from pdnla.network.informed import InformedEncoder


class FastEdges(Edges):
    """The edge map of a whole batch where its rounding does not matter: on accelerators, and in graphs."""

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, 1, H, W)``."""
        if image.is_cpu and not torch.compiler.is_compiling():
            return super().forward(image)
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            edges: Tensor = kornia.filters.canny(image.float(), hysteresis=False)[1]
            return edges.to(image.dtype)


class FastEncoder(Encoder):
    """The encoder whose first block makes the full-size stem a band at a time."""

    bypasses: ClassVar[Bypasses] = {"blocks": FastResidualDown, "stem": FastEqualConv2d}

    @staticmethod
    def fits(module: Encoder) -> bool:
        """Return whether the stem has no neighbourhood, so that bands of it can be made."""
        return module.stem.kernel == 1

    def forward(self, image: Tensor, *extra: Tensor) -> tuple[Tensor, ...]:
        """Map an image in [-1, 1], ``(B, 3, H, W)``, to its features f1..f4, ``(B, 2^i w, H / 2^i, W / 2^i)``."""
        x = torch.cat([image, self.edges(image), *extra], dim=1).contiguous(memory_format=torch.channels_last)
        first, *others = self.blocks
        assert isinstance(first, FastResidualDown)
        features = [tanh_(first(x, self.stem))]
        for block in others:
            features.append(tanh_(block(features[-1])))
        return tuple(features)


class FastInformedEncoder(FastEncoder, InformedEncoder):
    """The informed encoder, made as :class:`FastEncoder` is."""

    def forward(self, image: Tensor, *extra: Tensor) -> tuple[Tensor, ...]:
        """Map an image in [-1, 1], ``(B, 3, H, W)``, to its features f1..f4, ``(B, 2^i w, H / 2^i, W / 2^i)``."""
        hints, *seen = extra
        x = torch.cat([image, self.edges(image), hints], dim=1).contiguous(memory_format=torch.channels_last)
        first, *others = self.blocks
        assert isinstance(first, FastResidualDown)
        features = [tanh_(first(x, self.stem))]
        for block, insight in zip(others, self.insight(seen), strict=True):
            features.append(tanh_(block(features[-1]) + insight))
        return tuple(features)
