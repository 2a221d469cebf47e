"""The fast encoder: the first block computes the stem in bands, and accelerators detect edges for a whole batch."""

from typing import ClassVar

import kornia.filters
import torch
from torch import Tensor

from pdnla.fast.layers import Bypasses, FastEqualConv2d, FastResidualDown, tanh_
from pdnla.network.encoder import Edges, Encoder
from pdnla.network.informed import InformedEncoder


class FastEdges(Edges):
    """Edge detection for a whole batch, on accelerators and in graphs, where rounding does not depend on it."""

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, 1, H, W)``."""
        if image.is_cpu and not torch.compiler.is_compiling():
            return super().forward(image)
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            edges: Tensor = kornia.filters.canny(image.float(), hysteresis=False)[1]
            return edges.to(image.dtype)


class FastEncoder(Encoder):
    """The encoder whose first block computes the full-size stem in bands."""

    bypasses: ClassVar[Bypasses] = {"blocks": FastResidualDown, "stem": FastEqualConv2d}

    @staticmethod
    def fits(module: Encoder) -> bool:
        """Return whether the stem is a 1×1 convolution, which can be computed in bands."""
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
