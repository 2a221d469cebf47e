"""Stage 1: the target encoder E_g and the reference encoder E_c (the same network, separate weights)."""

from typing import NamedTuple

import kornia.filters
import torch
from torch import Tensor, nn

from pdnla.network.layers import EqualConv2d, ResidualDown, tanh_


class Codes(NamedTuple):
    """What an encoder's training head returns: ``code`` is ``(B, w·h·w')`` and ``gram`` ``(B, w²)``, both flat."""

    code: Tensor
    gram: Tensor


def edges(image: Tensor) -> Tensor:
    """Return the Canny edge map, 0, 0.5 or 1, ``(B, 1, H, W)``, of an image in [-1, 1], ``(B, 3, H, W)``.

    Thresholds make it a constant for gradients, and half precision would move them: it runs in float32.
    """
    # On CPUs a convolution rounds differently in a batch, which can turn an edge on or off: one image at a time.
    singly = image.is_cpu and not torch.compiler.is_compiling()
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        parts = image.float().split(1) if singly else [image.float()]
        return torch.cat([kornia.filters.canny(part, hysteresis=False)[1] for part in parts]).to(image.dtype)


class Encoder(nn.Module):
    """Four residual blocks over an image and its edges, tanh after each.

    Args:
        width: channels of the first layer, w; feature map i has ``2^i w`` channels at ``1 / 2^i`` of the size.
        hints: further channels of its input; none in the published network.
    """

    def __init__(self, width: int, hints: int = 0) -> None:
        super().__init__()
        self.stem = EqualConv2d(4 + hints, width, 1, exact=True)
        self.blocks = nn.ModuleList(ResidualDown(width << i, width << (i + 1)) for i in range(4))
        self.head = nn.Conv2d(width << 4, width, 1)

    def forward(self, image: Tensor, *hints: Tensor) -> tuple[Tensor, ...]:
        """Map an image in [-1, 1], ``(B, 3, H, W)``, to its features f1..f4, ``(B, 2^i w, H / 2^i, W / 2^i)``."""
        x = torch.cat([image, edges(image), *hints], dim=1).contiguous(memory_format=torch.channels_last)
        first, *others = self.blocks
        features = [tanh_(first(x, self.stem))]
        for block in others:
            features.append(tanh_(block(features[-1])))
        return tuple(features)

    def codes(self, deepest: Tensor) -> Codes:
        """Return the training head's code and Gram matrix from f4, ``(B, 16w, h, w')``.

        The code is shifted and scaled to [0, 1] over the whole tensor, the batch included, as published.
        """
        x = self.head(deepest)
        low, high = x.min(), x.max()
        x = (x - low) / (high - low + 1e-5)
        batch, channels, height, width = x.shape
        rows = x.reshape(batch, channels, height * width)
        gram = rows @ rows.transpose(1, 2) / (channels * height * width)
        return Codes(rows.flatten(1), gram.flatten(1))
