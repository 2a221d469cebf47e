"""The fast layers.

All maps are in channels-last memory: convolutions are about twice as fast in it on CPUs with wide vectors, and 1×1
convolutions and attention become plain matrix products.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.fast import native
from pdnla.fast.ops import conv3x3, lowered
from pdnla.network.layers import GAIN, SLOPE, EqualConv2d, ResidualDown, Upsample, at_least_float32

Bypasses = Mapping[str, type[nn.Module]]
"""The children, or lists of children, whose ``forward`` a fast class bypasses, and their required types."""

BAND = 1 << 24  # elements of a residual block's first convolution that are computed at a time


def in_pieces(x: Tensor) -> bool:
    """Return whether to work in place and in pieces: on a CPU without gradients."""
    return x.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def tanh_(x: Tensor) -> Tensor:
    """Compute the hyperbolic tangent of ``x`` in place."""
    return native.tanh_(x) if in_pieces(x) else x.tanh_()


def is_matrix(convolution: nn.Conv2d) -> bool:
    """Return whether a convolution multiplies each position with one matrix."""
    c = convolution
    return (c.kernel_size, c.stride, c.padding, c.groups) == ((1, 1), (1, 1), (0, 0), 1)


class Folding(nn.Module):
    """A module whose formula uses constants that are computed from its parameters.

    In training they are computed in every pass, so that gradients flow to the parameters.
    :func:`~pdnla.fast.acceleration.for_inference` computes them once and drops the parameters.
    """

    folded: Any = None

    def constants(self) -> Any:
        """Return the constants: a tensor, None, or a tuple of these."""
        raise NotImplementedError

    def folded_constants(self) -> Any:
        """Return the precomputed constants if there are any, else compute them."""
        return self.constants() if self.folded is None else self.folded

    def fold(self, dtype: torch.dtype) -> None:
        """Keep the constants in a dtype and drop the parameters that they are computed from."""
        with torch.no_grad():
            self.folded = map_constants(lambda constant: constant.to(dtype), self.constants())
        self._parameters.clear()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        if self.folded is not None:
            self.folded = map_constants(fn, self.folded)
        return super()._apply(fn, recurse)


def map_constants(function: Callable[[Tensor], Tensor], constants: Any) -> Any:
    """Apply a function to each tensor in nested tuples of tensors and None."""
    if isinstance(constants, tuple):
        return tuple(map_constants(function, constant) for constant in constants)
    return None if constants is None else function(constants)


class FastConv2d(nn.Conv2d):
    """A 3×3 convolution with stride 1 and zero padding, computed by :func:`~pdnla.fast.ops.conv3x3`."""

    @staticmethod
    def fits(module: nn.Conv2d) -> bool:
        """Return whether a convolution is of this kind."""
        given = (module.kernel_size, module.stride, module.padding, module.dilation, module.groups, module.padding_mode)
        return given == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H, W)``."""
        return conv3x3(x, self.weight, self.bias)


class FastEqualConv2d(Folding, EqualConv2d):
    """Equalised 1×1 or 3×3 convolution whose weight includes scale and gain.

    The leaky ReLU of x times a positive gain equals the gain times the leaky ReLU of x.
    """

    @staticmethod
    def fits(module: EqualConv2d) -> bool:
        """Return whether this class supports the layer's kernel and padding."""
        return (module.kernel == 1 and not module.padding) or (module.kernel == 3 and not module.exact)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H', W')``."""
        weight, bias = self.folded_constants()
        if self.kernel == 3:
            padding = (self.padding,) * 4
            reflect = self.padding_mode == "reflect"
            slope = SLOPE if self.activate else 1.0
            return conv3x3(x, weight, bias, stride=self.stride, padding=padding, reflect=reflect, slope=slope)
        kind = x.device.type
        exact = self.exact and torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if exact else contextlib.nullcontext():
            x = F.conv2d(x.float() if exact else x, weight, bias, self.stride)
        return F.leaky_relu(x, SLOPE, inplace=True) if self.activate else x

    def fold(self, dtype: torch.dtype) -> None:
        """Keep the constants, in float32 if the layer is exact."""
        super().fold(torch.promote_types(dtype, torch.float32) if self.exact else dtype)

    def constants(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of the ordinary convolution."""
        return scaled(self)


def scaled(layer: EqualConv2d, gain: float = 1.0) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of the ordinary convolution that computes ``gain`` times the layer's result."""
    gain = gain * GAIN if layer.activate else gain
    return layer.weight * (gain * layer.scale), None if layer.bias is None else layer.bias * gain


def blur_kernel(channels: int, like: Tensor) -> Tensor:
    """Return the blur's kernel for each channel, ``(C, 1, 4, 4)``."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=like.device, dtype=like.dtype) / 8
    return torch.outer(taps, taps).repeat(channels, 1, 1, 1)  # read faster than an expanded one


def fast_blur(x: Tensor, sides: int, above: int, below: int, stride: int = 1) -> Tensor:
    """Blur ``(B, C, H, W)`` with zeros around it: ``sides`` columns, and rows above and below.

    With a ``stride``, only the positions that a following 1×1 convolution with that stride reads are computed, a
    quarter of the work for 2.
    """
    if stride > 1 and above != below:
        x, above, below = F.pad(x, (0, 0, above, below)), 0, 0
    rows = max(above, below)
    slow = torch.is_grad_enabled() and stride > 1 and x.is_cpu and x.dtype.itemsize < 4
    filtered = _StridedBlur.apply if slow and not torch.compiler.is_compiling() else _strided_blur
    x = filtered(x, stride, (rows, sides))
    # Computing a few extra rows costs less than a copy of the map with other padding.
    return x if above == below else x[:, :, rows - above : x.shape[2] - (rows - below)]


def _strided_blur(x: Tensor, stride: int, padding: tuple[int, int]) -> Tensor:
    channels = x.shape[1]
    return F.conv2d(x, blur_kernel(channels, x), None, stride, padding, groups=channels)


class _StridedBlur(torch.autograd.Function):
    """:func:`_strided_blur` with a gradient in float32, because a CPU takes 14 times as long in half precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, padding: tuple[int, int]) -> Tensor:
        ctx.like, ctx.stride, ctx.padding = (x.shape, x.dtype), stride, padding
        return _strided_blur(x, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (shape, dtype), stride, padding = ctx.like, ctx.stride, ctx.padding
        sides = zip(shape[2:], gradient.shape[2:], padding, strict=True)
        beyond = [side - ((result - 1) * stride + 4 - 2 * ring) for side, result, ring in sides]
        with torch.autocast(gradient.device.type, enabled=False):
            wide = at_least_float32(gradient)
            kernel = blur_kernel(wide.shape[1], wide)
            on_x = F.conv_transpose2d(wide, kernel, None, stride, padding, beyond, groups=wide.shape[1])
        return on_x.to(dtype), None, None


class FastResidualDown(Folding, ResidualDown):
    """The residual block with a strided blur in the skip, and the sum computed within the last convolution."""

    bypasses: ClassVar[Bypasses] = {"conv1": FastEqualConv2d, "conv2": FastEqualConv2d, "skip": FastEqualConv2d}

    @staticmethod
    def fits(module: ResidualDown) -> bool:
        """Return whether the convolutions have the plain block's settings."""
        plain = ((3, 1, 1, "reflect", True), (3, 2, 0, "constant", True), (1, 2, 0, "constant", False))
        layers = (module.conv1, module.conv2, module.skip)
        given = tuple((c.kernel, c.stride, c.padding, c.padding_mode, c.activate) for c in layers)
        return given == plain and module.skip.bias is None and not any(c.exact for c in layers)

    def forward(self, x: Tensor, stem: nn.Module | None = None) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H/2, W/2)``; H and W even.

        The map between its convolutions is four times as large as its result. Without gradients it need not be kept, so
        a CPU computes it in bands of rows. ``stem`` is a 1×1 layer that is applied to x first, in bands as well.
        """
        constants = self.folded_constants()
        outputs = constants[2].shape[0]
        stem = stem or nn.Identity()
        batch, _, height, width = x.shape
        step = max(1, BAND // (2 * batch * width * outputs)) if in_pieces(x) else height
        if step >= height // 2:
            x = lowered(stem(x))
            return _branches(x, x, constants)
        result: Tensor | None = None
        for first in range(0, height // 2, step):
            last = min(first + step, height // 2)
            rows = self._band(stem, x, constants, first, last)
            if result is None:
                shape = (batch, outputs, height // 2, width // 2)
                result = torch.empty(shape, dtype=rows.dtype, memory_format=torch.channels_last)
            result[:, :, first:last] = rows
        assert result is not None
        return result

    @staticmethod
    def _band(stem: nn.Module, x: Tensor, constants: Any, first: int, last: int) -> Tensor:
        """Return the rows of the result from ``first`` up to ``last``."""
        height = x.shape[2]
        # The rows that the strided convolution reads through the blur, and the rows of x that they depend on.
        low, high = max(2 * first - 2, 0), min(2 * last + 2, height)
        start, end = max(low - 1, 0), min(high + 1, height)
        rows = lowered(stem(x[:, :, start:end]))
        own = rows[:, :, max(2 * first - 1, 0) - start : min(2 * last + 1, height) - start]
        reflected = (int(low == 0), int(high == height))
        zeros = (low - (2 * first - 2), 2 * last + 2 - high)
        return _branches(rows, own, constants, reflected, zeros, (int(first == 0), int(2 * last == height)))

    def constants(self) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None], Tensor]:
        """Return weight and bias of conv1 and conv2, and the skip's weight; the last two times 1/sqrt(2)."""
        half = math.sqrt(0.5)
        return scaled(self.conv1), scaled(self.conv2, half), scaled(self.skip, half)[0]

    def fold(self, dtype: torch.dtype) -> None:
        """Keep the constants and drop the convolutions."""
        super().fold(dtype)
        del self.conv1, self.conv2, self.skip


def _branches(
    x: Tensor,
    skipped: Tensor,
    constants: Any,
    reflected: tuple[int, int] = (1, 1),
    zeros: tuple[int, int] = (2, 2),
    skipped_zeros: tuple[int, int] = (1, 1),
) -> Tensor:
    """Compute a residual block for a band of rows.

    Args:
        x: input rows of the branch.
        skipped: input rows of the skip.
        constants: the constants of the block.
        reflected: rows of reflection above and below in the first convolution.
        zeros: rows of zeros above and below in the branch's blur.
        skipped_zeros: rows of zeros above and below in the skip's blur.
    """
    (weight1, bias1), (weight2, bias2), skip_weight = constants
    skip = F.conv2d(fast_blur(skipped, 1, *skipped_zeros, stride=2), skip_weight)
    x = conv3x3(x, weight1, bias1, padding=(1, 1, *reflected), reflect=True, slope=SLOPE)
    x = fast_blur(x, 2, *zeros)
    return conv3x3(x, weight2, bias2, stride=2, padding=(0, 0, 0, 0), slope=SLOPE, add=skip)


class FastUpsample(Folding, Upsample):
    """Upsampling as a 1×1 convolution and bilinear interpolation.

    The transposed 1×1 convolution puts each input on every second pixel with zeros in between. The blur of that is a
    quarter of the bilinear interpolation of the zero-padded map. So the channels are projected at the small size and
    then interpolated, which is exact and reads no zeros.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, 2H, 2W)``."""
        weight = self.folded_constants()
        if torch.is_grad_enabled():
            x = F.conv2d(x, weight, padding=1)
            return F.interpolate(x, scale_factor=2, mode="bilinear")[..., 2:-2, 2:-2]
        # Without padding, interpolation repeats the border pixels, whose weight with zero padding is 3/4.
        x = F.interpolate(F.conv2d(x, weight), scale_factor=2, mode="bilinear")
        for border in (x[:, :, :1], x[:, :, -1:], x[..., :1], x[..., -1:]):
            border *= 0.75
        return x

    def constants(self) -> Tensor:
        """Return the weight of the ordinary 1×1 convolution."""
        return (self.weight * (self.scale / 4)).transpose(0, 1)
