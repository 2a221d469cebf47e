"""Stage 3: refinement at full size, from I_mid and the decoder outputs to I_out."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.network.layers import Conv3, EqualConv2d, Folding, conv3x3, in_pieces

REDUCTION = 4
_WINDOW = 16


def spatial_mean(x: Tensor) -> Tensor:
    """Return the mean over all positions, ``(B, C, 1, 1)``.

    A CPU would write a map of half precision out in float32 to add it up: windows of equal size are averaged first.
    """
    if in_pieces(x) and x.dtype.itemsize < 4:
        window = [math.gcd(side, _WINDOW) for side in x.shape[2:]]
        x = F.avg_pool2d(x, window)
    return x.mean(dim=(2, 3), keepdim=True)


class ChannelAttentionBlock(nn.Module):
    """CAB: ``x + b · sigmoid(W2·relu(W1·mean(b)))`` with ``b = conv3(PReLU(conv3(x)))``.

    The PReLU's slope belongs to the refiner, which shares one among all of its blocks.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv3(channels, channels)
        self.conv2 = Conv3(channels, channels)
        self.squeeze = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.excite = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape; ``slope`` is ``(1,)``."""
        if in_pieces(x):
            inner = self.conv1(x, slope=slope.item())
        else:
            inner = self.conv1(x)
            inner = F.prelu(inner, slope.to(inner.dtype))
        branch = self.conv2(inner)
        mean = spatial_mean(branch)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(mean)))).to(branch.dtype)
        if torch.is_grad_enabled():
            return torch.addcmul(x, branch, gate)
        return torch.addcmul(x, branch, gate, out=branch)


class ColourisationBaseBlock(nn.Module):
    """CBB: ``x + conv3(CAB(CAB(x)))``; the refiner adds another ``x``, which is done here in the same pass."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention1 = ChannelAttentionBlock(channels)
        self.attention2 = ChannelAttentionBlock(channels)
        self.conv = Conv3(channels, channels)

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Return ``CBB(x) + x``, the shape of x, ``(B, C, H, W)``; ``slope`` is ``(1,)``."""
        return self.conv(self.attention2(self.attention1(x, slope), slope), add=x, alpha=2)


class Merge(Folding):
    """``conv3([x, up_k(d)])``, where up_k is k times [bilinear ×2, 1×1 convolution to half the channels].

    Interpolation and 1×1 convolutions commute, so the product of all of up_k's convolutions runs first, at the small
    size, and only ``2 channels`` are interpolated; without doublings, up_0 is one 1×1 convolution and goes into conv3.
    The convolution of a concatenation is a sum of two, which spares writing it.
    """

    def __init__(self, channels: int, doublings: int) -> None:
        super().__init__()
        width = 2 * channels
        steps = [width << i for i in range(doublings, -1, -1)] if doublings else [width, width]
        self.projections = nn.ModuleList(nn.Conv2d(i, o, 1, bias=False) for i, o in pairwise(steps))
        self.conv = Conv3(3 * channels, channels)
        self.channels, self.doublings = channels, doublings

    def forward(self, x: Tensor, d: Tensor) -> Tensor:
        """Map x, ``(B, C, 2^k H, 2^k W)``, and d, ``(B, 2^k 2C, H, W)``, to the shape of x."""
        on_x, on_d, projection = self.folded_constants()
        if projection is not None:
            d = F.conv2d(d, projection)
            for _ in range(self.doublings):
                d = F.interpolate(d, scale_factor=2, mode="bilinear")
        return conv3x3(d, on_d, add=conv3x3(x, on_x))

    def constants(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return conv3's weights for x and for the interpolated d, and the projection of d where it is interpolated."""
        # Slices of a weight are in no layout that convolutions are fast in.
        split = self.conv.weight.split([self.channels, 2 * self.channels], dim=1)
        on_x, on_d = (part.contiguous(memory_format=torch.channels_last) for part in split)
        weights = [projection.get_parameter("weight").flatten(1) for projection in self.projections]
        projection = weights[0]
        for finer in weights[1:]:
            projection = finer @ projection
        if self.doublings:
            return on_x, on_d, projection[..., None, None]
        return on_x, torch.einsum("omhw,mi->oihw", on_d, projection), None

    def fold(self, dtype: torch.dtype) -> None:
        """Keep the constants and give up the convolutions they are computed of."""
        super().fold(dtype)
        del self.projections, self.conv


class Refiner(nn.Module):
    """Five colourisation base blocks on [I_t, I_mid], taking in d4, d3, d2 and d1 between them.

    Args:
        channel: channels c of the blocks; the decoder's last output has w = 2c.
    """

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.stem = Conv3(6, channel)
        self.stem_attention = ChannelAttentionBlock(channel)
        self.blocks = nn.ModuleList(ColourisationBaseBlock(channel) for _ in range(5))
        self.merges = nn.ModuleList(Merge(channel, k) for k in range(4))
        self.to_rgb = EqualConv2d(channel, 3, 1, activate=False, exact=True)
        self.slope = nn.Parameter(torch.full((1,), 0.25))

    def forward(self, target: Tensor, mid: Tensor, decoded: Sequence[Tensor]) -> Tensor:
        """Map I_t and I_mid, ``(B, 3, H, W)``, and d1..d4 to I_out, ``(B, 3, H, W)``."""
        x = torch.cat([target, mid.to(target.dtype)], dim=1).contiguous(memory_format=torch.channels_last)
        x = self.stem_attention(self.stem(x), self.slope)
        x = self.blocks[0](x, self.slope)
        for merge, block, d in zip(self.merges, self.blocks[1:], reversed(decoded), strict=True):
            x = block(merge(x, d), self.slope)
        return self.finish(target, mid, x)

    def finish(self, target: Tensor, mid: Tensor, x: Tensor) -> Tensor:
        """Return I_out, ``(B, 3, H, W)``, of I_t, I_mid and the last map, ``(B, c, H, W)``."""
        result: Tensor = target + self.to_rgb(x)
        return result
