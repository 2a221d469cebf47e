"""The fast stage 3: activations, residuals and concatenations are computed within convolutions."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.fast.layers import Bypasses, FastConv2d, Folding, in_pieces, is_matrix
from pdnla.fast.ops import conv3x3
from pdnla.network.informed import GatedRefiner
from pdnla.network.refiner import ChannelAttentionBlock, ColourisationBaseBlock, Merge, Refiner

_WINDOW = 16


def spatial_mean(x: Tensor) -> Tensor:
    """Return the mean over all positions, ``(B, C, 1, 1)``.

    A CPU would first convert a map in half precision to float32; averaging windows of equal size first avoids that.
    """
    if in_pieces(x) and x.dtype.itemsize < 4:
        window = [math.gcd(side, _WINDOW) for side in x.shape[2:]]
        x = F.avg_pool2d(x, window)
    return x.mean(dim=(2, 3), keepdim=True)


class FastChannelAttentionBlock(ChannelAttentionBlock):
    """CAB with its PReLU in the first convolution's pass, and x and the gated branch added in one."""

    bypasses: ClassVar[Bypasses] = {"conv1": FastConv2d, "conv2": FastConv2d}

    @staticmethod
    def fits(module: ChannelAttentionBlock) -> bool:
        """Return whether the convolutions have no bias."""
        return module.conv1.bias is None and module.conv2.bias is None

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape; ``slope`` is ``(1,)`` or ``(C,)``."""
        if in_pieces(x) and slope.numel() == 1:
            inner = conv3x3(x, self.conv1.weight, slope=slope.item())
        else:
            inner = conv3x3(x, self.conv1.weight)
            inner = F.prelu(inner, slope.to(inner.dtype))
        branch = conv3x3(inner, self.conv2.weight)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(spatial_mean(branch))))).to(branch.dtype)
        if torch.is_grad_enabled():
            return torch.addcmul(x, branch, gate)
        return torch.addcmul(x, branch, gate, out=branch)


class FastColourisationBaseBlock(ColourisationBaseBlock):
    """CBB with a residual of ``factor`` times x, computed within the last convolution."""

    bypasses: ClassVar[Bypasses] = {"conv": FastConv2d}

    @staticmethod
    def fits(module: ColourisationBaseBlock) -> bool:
        """Return whether the convolution has no bias."""
        return module.conv.bias is None

    def forward(self, x: Tensor, slope: Tensor, factor: float = 1) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape; with the refiner's own residual, the factor is 2."""
        return conv3x3(self.attention2(self.attention1(x, slope), slope), self.conv.weight, add=x, alpha=factor)


class FastMerge(Folding, Merge):
    """Merge that projects d before interpolating it.

    Interpolation and 1×1 convolutions commute, so the product of all convolutions of up_k is applied first, at the
    small size, and only ``2 * channels`` channels are interpolated. Without doublings, up_0 is one 1×1 convolution and
    becomes part of conv. The convolution of a concatenation is the sum of two, so the concatenation is never written.
    """

    bypasses: ClassVar[Bypasses] = {"projections": nn.Conv2d, "conv": FastConv2d}

    @staticmethod
    def fits(module: Merge) -> bool:
        """Return whether all projections are 1×1 convolutions and no convolution has a bias."""
        convs = [module.conv, *module.projections]
        return all(conv.bias is None and (conv is module.conv or is_matrix(conv)) for conv in convs)

    def forward(self, x: Tensor, d: Tensor) -> Tensor:
        """Map x, ``(B, c, 2^k H, 2^k W)``, and d, ``(B, 2^k 2c, H, W)``, to the shape of x."""
        on_x, on_d, projection = self.folded_constants()
        if projection is not None:
            d = F.conv2d(d, projection)
            for _ in range(self.doublings):
                d = F.interpolate(d, scale_factor=2, mode="bilinear")
        return conv3x3(d, on_d, add=conv3x3(x, on_x))

    def constants(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return conv's weights for x and for d, and the projection of d if d is interpolated."""
        # Convolutions are slow with the memory layout of slices.
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
        """Keep the constants and drop the convolutions that they are computed from."""
        super().fold(dtype)
        del self.projections, self.conv


class FastRefiner(Refiner):
    """The refiner with its residuals computed within the blocks."""

    bypasses: ClassVar[Bypasses] = {"blocks": FastColourisationBaseBlock}

    def forward(self, target: Tensor, mid: Tensor, decoded: Sequence[Tensor]) -> Tensor:
        """Map I_t and I_mid, ``(B, 3, H, W)``, and d1..d4 to I_out, ``(B, 3, H, W)``."""
        x = torch.cat([target, mid.to(target.dtype)], dim=1).contiguous(memory_format=torch.channels_last)
        x = self.stem_attention(self.stem(x), self.slope)
        x = self.blocks[0](x, self.slope, factor=2)
        for merge, block, d in zip(self.merges, self.blocks[1:], reversed(decoded), strict=True):
            x = block(merge(x, d), self.slope, factor=2)
        return self.finish(target, mid, x)


class FastGatedRefiner(FastRefiner, GatedRefiner):
    """GatedRefiner with :class:`FastRefiner`'s :meth:`forward`."""
