"""Stage 3: refinement at full size, from I_mid and the decoder's outputs to I_out."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.network.layers import EqualConv2d

REDUCTION = 4
"""Reduction of channels in the gate of a CAB."""


class ChannelAttentionBlock(nn.Module):
    """CAB: ``x + b · sigmoid(W2·relu(W1·mean(b)))`` with ``b = conv2(PReLU(conv1(x)))``.

    The slope of the PReLU is a parameter of the refiner, shared by all of its blocks.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.squeeze = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.excite = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape; ``slope`` is ``(1,)``."""
        b = self.conv1(x)
        b = self.conv2(F.prelu(b, slope.to(b.dtype)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(b.mean(dim=(2, 3), keepdim=True)))))
        return x + b * gate


class ColourisationBaseBlock(nn.Module):
    """CBB: ``x + conv(CAB(CAB(x)))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention1 = ChannelAttentionBlock(channels)
        self.attention2 = ChannelAttentionBlock(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape; ``slope`` is ``(1,)``."""
        return x + self.conv(self.attention2(self.attention1(x, slope), slope))


class Merge(nn.Module):
    """``conv([x, up_k(d)])``, where up_k is k times [bilinear ×2, 1×1 convolution to half the channels].

    up_0 is a single 1×1 convolution that keeps the channels.

    Args:
        channels: channels c of x; d has ``2^k · 2c``.
        doublings: k.
    """

    def __init__(self, channels: int, doublings: int) -> None:
        super().__init__()
        width = 2 * channels
        steps = [width << i for i in range(doublings, -1, -1)] if doublings else [width, width]
        self.projections = nn.ModuleList(nn.Conv2d(i, o, 1, bias=False) for i, o in pairwise(steps))
        self.conv = nn.Conv2d(3 * channels, channels, 3, padding=1, bias=False)
        self.channels, self.doublings = channels, doublings

    def forward(self, x: Tensor, d: Tensor) -> Tensor:
        """Map x, ``(B, c, 2^k H, 2^k W)``, and d, ``(B, 2^k 2c, H, W)``, to the shape of x."""
        for projection in self.projections:
            if self.doublings:
                d = F.interpolate(d, scale_factor=2, mode="bilinear")
            d = projection(d)
        return self.conv(torch.cat([x, d], dim=1))


class Refiner(nn.Module):
    """Five colourisation base blocks on [I_t, I_mid], with d4, d3, d2 and d1 merged in between.

    Args:
        channel: channels c of the blocks; the decoder's last output has w = 2c channels.
    """

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(6, channel, 3, padding=1, bias=False)
        self.stem_attention = ChannelAttentionBlock(channel)
        self.blocks = nn.ModuleList(ColourisationBaseBlock(channel) for _ in range(5))
        self.merges = nn.ModuleList(Merge(channel, k) for k in range(4))
        self.to_rgb = EqualConv2d(channel, 3, 1, activate=False, exact=True)
        self.slope = nn.Parameter(torch.full((1,), 0.25))

    def forward(self, target: Tensor, mid: Tensor, decoded: Sequence[Tensor]) -> Tensor:
        """Map I_t and I_mid, ``(B, 3, H, W)``, and d1..d4 to I_out, ``(B, 3, H, W)``."""
        x = self.stem(torch.cat([target, mid.to(target.dtype)], dim=1))
        x = self.stem_attention(x, self.slope)
        x = self.blocks[0](x, self.slope) + x
        for merge, block, d in zip(self.merges, self.blocks[1:], reversed(decoded), strict=True):
            x = merge(x, d)
            x = block(x, self.slope) + x
        return self.finish(target, mid, x)

    def finish(self, target: Tensor, mid: Tensor, x: Tensor) -> Tensor:
        """Return I_out, ``(B, 3, H, W)``, of I_t, I_mid and the last map, ``(B, c, H, W)``."""
        result: Tensor = target + self.to_rgb(x)
        return result
