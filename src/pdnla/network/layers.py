"""The published network's building blocks: StyleGAN2's equalised layers (Karras et al. 2020) and residual block.

Feature maps are ``(B, C, H, W)``, kept in channels-last memory from end to end: convolutions are about twice
as fast in it on CPUs with wide vectors, and 1×1 convolutions and attention become plain matrix products.
"""

import contextlib
import copy
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.fast import native
from pdnla.images.color import at_least_float32

GAIN = math.sqrt(2)  # keeps the variance of what a leaky ReLU halves
SLOPE = 0.2
Network = TypeVar("Network", bound=nn.Module)
_BAND = 1 << 24  # elements of a residual block's first convolution made at a time


def in_pieces(x: Tensor) -> bool:
    """Return whether to work in place and a piece at a time: on a CPU, without gradients to keep results for."""
    return x.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def lowered(x: Tensor) -> Tensor:
    """Return ``x`` in the type that autocast computes its device's convolutions in, if it is on."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def tanh_(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent, in place of ``x``."""
    return native.tanh_(x) if in_pieces(x) else x.tanh_()


class Folding(nn.Module):
    """A layer whose parameters enter its formula by way of constants that are computed of them.

    In training they are computed in every pass, for gradients to flow; :func:`folded` keeps them instead.
    """

    _folded: Any = None

    def constants(self) -> Any:
        """Return the constants, a tensor, None, or a tuple of such."""
        raise NotImplementedError

    def folded_constants(self) -> Any:
        """Return the constants, kept ones if there are."""
        return self.constants() if self._folded is None else self._folded

    def fold(self, dtype: torch.dtype) -> None:
        """Keep the constants and give up the parameters that they are computed of."""
        with torch.no_grad():
            self._folded = _each(lambda constant: constant.to(dtype), self.constants())
        self._parameters.clear()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        if self._folded is not None:
            self._folded = _each(fn, self._folded)
        return super()._apply(fn, recurse)


def _each(function: Callable[[Tensor], Tensor], constants: Any) -> Any:
    if isinstance(constants, tuple):
        return tuple(_each(function, constant) for constant in constants)
    return None if constants is None else function(constants)


def folded(network: Network, dtype: torch.dtype = torch.float32, copied: bool = True) -> Network:
    """Return a copy for inference alone, which computes the same from constants computed once.

    Args:
        network: the network.
        dtype: what its convolutions' weights are kept in: that in which they will be computed.
        copied: change nothing of ``network``; else it is what is changed and returned.

    Returns:
        A network that can be called and moved. It has no parameters to train or to save where it has constants.
    """
    network = (copy.deepcopy(network) if copied else network).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, Folding):
            module.fold(dtype)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.to(dtype)
    return network


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: tuple[int, int, int, int] = (1, 1, 1, 1),
    reflect: bool = False,
    slope: float = 1.0,
    add: Tensor | None = None,
    alpha: float = 1.0,
) -> Tensor:
    """Return ``leaky_relu(conv(x, weight) + bias, slope) + alpha * add``, ``(B, O, H', W')``.

    On a CPU it is :mod:`pdnla.fast.native`'s where that can take it: a few times as fast.

    Args:
        x: ``(B, C, H, W)``.
        weight: ``(O, C, 3, 3)``.
        bias: ``(O,)``.
        stride: 1 or 2.
        padding: columns left and right, rows above and below.
        reflect: pad by reflection, not with zeros.
        slope: of negative values; 1 for no activation.
        add: a map of the result's shape.
        alpha: its factor.
    """
    placing: dict[str, Any] = {"padding": padding, "reflect": reflect, "slope": slope, "add": add, "alpha": alpha}
    if in_pieces(x):
        x = lowered(x)
        # At stride 2, torch's are as fast in half precision.
        if (stride == 1 or x.dtype is torch.float32) and native.usable(x, weight, stride):
            return native.conv3x3(x, weight, bias, stride=stride, **placing)
    elif x.is_cpu and stride == 1 and (slope == 1 or add is None) and not torch.compiler.is_compiling():
        x = lowered(x)
        # Of narrow maps, torch's are faster in half precision.
        if (x.dtype is torch.float32 or min(weight.shape[:2]) >= 32) and native.usable(x, weight):
            return native.Convolution3x3.apply(x, weight, bias, add, padding, reflect, slope, alpha)
    return native.plain3x3(x, weight, bias, stride=stride, **placing)


class Conv3(nn.Conv2d):
    """Ordinary 3×3 convolution with zeros around and without bias; see :func:`conv3x3`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor, slope: float = 1.0, add: Tensor | None = None, alpha: float = 1.0) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H, W)``."""
        return conv3x3(x, self.weight, slope=slope, add=add, alpha=alpha)


class EqualConv2d(Folding):
    """Convolution whose weight ~ N(0, 1) is scaled by ``1 / sqrt(in * k^2)`` at run time (Karras et al. 2018).

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the square kernel.
        stride: step of the convolution.
        padding: zeros added on every side.
        bias: add a learned bias; with ``activate`` it is the activation's.
        activate: end with ``sqrt(2) * leaky_relu(x + bias, 0.2)``.
        gain: factor on the result, which costs nothing here.
        exact: compute in float32 under autocast too, and return that: for what has a picture on one side, whose 256
            levels are more than bfloat16 tells apart. Of 1×1 kernels.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        activate: bool = True,
        gain: float = 1.0,
        exact: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        # A leaky ReLU of x times a gain is that gain times the leaky ReLU of x: all factors go into the weight.
        self.gain = gain * GAIN if activate else gain
        self.scale = self.gain / math.sqrt(inputs * kernel**2)
        self.stride, self.padding, self.activate, self.exact = stride, padding, activate, exact

    def forward(self, x: Tensor, reflect: tuple[int, int, int, int] | None = None, add: Tensor | None = None) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H', W')``.

        Args:
            x: the map.
            reflect: columns left and right, rows above and below, by which the map is reflected beyond its border,
                instead of ``padding``; of 3×3 kernels.
            add: a map to add to the result; of 3×3 kernels.
        """
        weight, bias = self.folded_constants()
        if weight.shape[2] == 3:
            placing: dict[str, Any] = {"stride": self.stride, "padding": reflect or (self.padding,) * 4}
            slope = SLOPE if self.activate else 1.0
            return conv3x3(x, weight, bias, **placing, reflect=reflect is not None, slope=slope, add=add)
        kind = x.device.type
        exact = self.exact and torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if exact else contextlib.nullcontext():
            x = F.conv2d(x.float() if exact else x, weight, bias, self.stride, self.padding)
        return F.leaky_relu(x, SLOPE, inplace=True) if self.activate else x

    def fold(self, dtype: torch.dtype) -> None:
        """Keep the constants, in float32 if the layer is exact."""
        super().fold(torch.promote_types(dtype, torch.float32) if self.exact else dtype)

    def constants(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of the plain convolution."""
        return self.weight * self.scale, None if self.bias is None else self.bias * self.gain


class EqualLinear(nn.Module):
    """Linear layer whose weight ~ N(0, 1) is scaled by ``1 / sqrt(in)`` at run time.

    Args:
        inputs: features in.
        outputs: features out.
        activate: end with ``sqrt(2) * leaky_relu(x + bias, 0.2)``.
    """

    def __init__(self, inputs: int, outputs: int, activate: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = GAIN if activate else 1.0
        self.scale = self.gain / math.sqrt(inputs)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``."""
        x = F.linear(x, self.weight * self.scale, self.bias * self.gain)
        return F.leaky_relu(x, SLOPE) if self.activate else x


def equalised_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of all equalised layers in ``network``."""
    layers = (module for module in network.modules() if isinstance(module, EqualConv2d | Upsample))
    return [parameter for layer in layers for parameter in layer.parameters(recurse=False)]


def blur_kernel() -> Tensor:
    """Return the 4×4 low-pass filter: the outer product of [1, 3, 3, 1], summing to 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps)
    return kernel / kernel.sum()


class Blur(nn.Module):
    """Low-pass filter before a stride.

    A ``stride`` computes only the positions that the following 1×1 convolution of that stride would read.
    """

    kernel: Tensor

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride
        # A constant: rebuilt, never stored, so a state dict holds learned values alone.
        self.register_buffer("kernel", blur_kernel().repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor, sides: int, above: int | None = None, below: int | None = None) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, (H + above + below - 4) // stride + 1, ...)``.

        Zeros are put around it: ``sides`` columns, and as many rows, or as many as are named above and below.
        """
        above, below = sides if above is None else above, sides if below is None else below
        if self.stride > 1 and above != below:
            x, above, below = F.pad(x, (0, 0, above, below)), 0, 0
        rows = max(above, below)
        filtered = _Strided.apply if self._slow_gradient(x) else _strided
        x = filtered(x, self.kernel, self.stride, (rows, sides))
        # A few rows too many cost less than a copy of the map with fewer around it.
        return x if above == below else x[:, :, rows - above : x.shape[2] - (rows - below)]

    def _slow_gradient(self, x: Tensor) -> bool:
        trained = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return trained and self.stride > 1 and x.is_cpu and x.dtype.itemsize < 4


def _strided(x: Tensor, kernel: Tensor, stride: int, padding: tuple[int, int]) -> Tensor:
    """Convolve each channel of ``(B, C, H, W)`` by its kernel of ``(C, 1, k, k)``."""
    return F.conv2d(x, kernel.to(x.dtype), None, stride, padding, groups=len(kernel))


class _Strided(torch.autograd.Function):
    """:func:`_strided`, its gradient computed in float32: a CPU takes 14 times as long in half precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: int, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.like, ctx.stride, ctx.padding = (x.shape, x.dtype), stride, padding
        return _strided(x, kernel, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensors
        (shape, dtype), stride, padding = ctx.like, ctx.stride, ctx.padding
        sides = zip(shape[2:], gradient.shape[2:], kernel.shape[2:], padding, strict=True)
        beyond = [side - ((result - 1) * stride + taps - 2 * ring) for side, result, taps, ring in sides]
        with torch.autocast(gradient.device.type, enabled=False):
            wide = at_least_float32(gradient)
            found = F.conv_transpose2d(wide, kernel.to(wide.dtype), None, stride, padding, beyond, groups=len(kernel))
        return found.to(dtype), None, None, None


class ResidualDown(nn.Module):
    """StyleGAN2's residual block: half the size, ``inputs`` to ``outputs`` channels.

    ``(conv3(blur(conv3(x))) + conv1(blur(x))) / sqrt(2)``; the skip has neither bias nor activation.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = EqualConv2d(inputs, outputs, 3)
        self.blur = Blur(outputs)
        self.conv2 = EqualConv2d(outputs, outputs, 3, stride=2, gain=math.sqrt(0.5))
        # Blurring and then striding equals blurring at the stride, for a quarter of the work.
        self.skip_blur = Blur(inputs, stride=2)
        self.skip = EqualConv2d(inputs, outputs, 1, bias=False, activate=False, gain=math.sqrt(0.5))
        self.outputs = outputs

    def forward(self, x: Tensor, stem: nn.Module | None = None) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H/2, W/2)``; H and W even.

        Between its convolutions the block is four times as large as its result. Without gradients to keep that for,
        a CPU makes it in bands of rows. ``stem`` is a layer without neighbourhood that x goes through before; then it
        is made in bands too.
        """
        stem = stem or nn.Identity()
        batch, _, height, width = x.shape
        step = max(1, _BAND // (2 * batch * width * self.outputs)) if in_pieces(x) else height
        if step >= height // 2:
            x = lowered(stem(x))
            skip = self.skip(self.skip_blur(x, 1))
            return self.conv2(self.blur(self.conv1(x, reflect=(1, 1, 1, 1)), 2), add=skip)
        bands = [(first, min(first + step, height // 2)) for first in range(0, height // 2, step)]
        result: Tensor | None = None
        for first, last in bands:
            rows = self._rows(stem, x, first, last)
            if result is None:
                shape = (batch, self.outputs, height // 2, width // 2)
                result = torch.empty(shape, dtype=rows.dtype, memory_format=torch.channels_last)
            result[:, :, first:last] = rows
        assert result is not None
        return result

    def _rows(self, stem: nn.Module, x: Tensor, first: int, last: int) -> Tensor:
        """Return the result's rows from ``first`` to before ``last``."""
        height = x.shape[2]
        # The rows that the strided convolution reads through the blur, and those that these need of x.
        low, high = max(2 * first - 2, 0), min(2 * last + 2, height)
        start, end = max(low - 1, 0), min(high + 1, height)
        x = lowered(stem(x[:, :, start:end]))
        inner = x[:, :, max(2 * first - 1, 0) - start : min(2 * last + 1, height) - start]
        skip = self.skip(self.skip_blur(inner, 1, int(first == 0), int(2 * last == height)))
        x = self.conv1(x, reflect=(1, 1, int(low == 0), int(high == height)))
        x = self.blur(x, 2, low - (2 * first - 2), 2 * last + 2 - high)
        return self.conv2(x, add=skip)


class Upsample(Folding):
    """Equalised 1×1 transposed convolution of stride 2 and a blur: twice the size, no bias, no activation.

    A 1×1 kernel puts each input on every second pixel with zeros between; the blur over it is bilinear interpolation
    of a map ringed with zeros, at a quarter of its height. So the channels are projected at the small size and
    interpolated after, which is exact and reads no zeros.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs, 1, 1))
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, 2H, 2W)``."""
        weight = self.folded_constants()
        if torch.is_grad_enabled():
            x = F.conv2d(x, weight, padding=1)
            return F.interpolate(x, scale_factor=2, mode="bilinear")[..., 2:-2, 2:-2]
        # Without the ring, interpolation repeats the border where the ring has zeros to mix in: 1 for 3/4.
        x = F.interpolate(F.conv2d(x, weight), scale_factor=2, mode="bilinear")
        for border in (x[:, :, :1], x[:, :, -1:], x[..., :1], x[..., -1:]):
            border *= 0.75
        return x

    def constants(self) -> Tensor:
        """Return the weight of the plain 1×1 convolution."""
        return (self.weight * (self.scale / 4)).transpose(0, 1)
