"""The published network's building blocks: StyleGAN2's equalised layers (Karras et al. 2020) and residual block.

Maps are ``(B, C, H, W)``.
"""

import contextlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAIN = math.sqrt(2)
"""Compensates for the variance that a leaky ReLU halves."""
CHROMA = 100.0
"""Inputs of networks are a* and b* divided by this: then they are about as large as the others."""
SLOPE = 0.2
"""Slope for negative values in every equalised layer."""


def at_least_float32(x: Tensor) -> Tensor:
    """Convert a tensor in half precision to float32; return any other unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def ramp(x: Tensor, start: float, end: float) -> Tensor:
    """Return 0 up to ``start``, 1 from ``end`` on, and values in proportion between them."""
    return ((x - start) / (end - start)).clamp(0, 1)


def grey_lightness(grey: Tensor) -> Tensor:
    """Return L*/100 of grey sRGB values in [0, 1], of any shape."""
    linear = torch.where(grey > 0.04045, ((grey + 0.055) / 1.055) ** 2.4, grey / 12.92)
    return torch.where(linear > 0.008856, 1.16 * linear.clamp(min=0.008856) ** (1 / 3) - 0.16, 9.033 * linear)


class EqualConv2d(nn.Module):
    """Equalised convolution: the weight ~ N(0, 1) is scaled by ``1 / sqrt(in * k^2)`` at run time (Karras et al. 2018).

    With activation: ``sqrt(2) * leaky_relu(conv(x, weight / sqrt(in * k^2)) + bias, 0.2)``; without it, only the
    convolution and the bias.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: side of the square kernel.
        stride: stride of the convolution.
        padding: rows and columns added on every side.
        padding_mode: ``constant`` for zeros, ``reflect`` for the reflected map.
        bias: add a learned bias, initially 0.
        activate: apply the activation.
        exact: compute in float32 and return float32, also under autocast: for layers whose input or output is a
            picture, because bfloat16 cannot represent its 256 levels.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        padding_mode: str = "constant",
        bias: bool = True,
        activate: bool = True,
        exact: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.kernel, self.stride, self.padding, self.padding_mode = kernel, stride, padding, padding_mode
        self.activate, self.exact = activate, exact

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H', W')``."""
        if self.padding:
            x = F.pad(x, (self.padding,) * 4, mode=self.padding_mode)
        with torch.autocast(x.device.type, enabled=False) if self.exact else contextlib.nullcontext():
            x = x.to(self.weight.dtype) if self.exact else x
            x = F.conv2d(x, self.weight * self.scale, self.bias, self.stride)
        return GAIN * F.leaky_relu(x, SLOPE) if self.activate else x


def with_more_inputs(weight: Tensor, inputs: int) -> Tensor:
    """Return the weight of an :class:`EqualConv2d` with more inputs, which has the same result whatever they are."""
    outputs, own, *kernel = weight.shape
    extended = torch.cat([weight, weight.new_zeros(outputs, inputs, *kernel)], dim=1)
    return extended * math.sqrt((own + inputs) / own)


class EqualLinear(nn.Module):
    """Equalised linear layer: the weight ~ N(0, 1) is scaled by ``1 / sqrt(in)`` at run time.

    Args:
        inputs: input features.
        outputs: output features.
        activate: apply ``sqrt(2) * leaky_relu(x + bias, 0.2)``.
    """

    def __init__(self, inputs: int, outputs: int, activate: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = 1 / math.sqrt(inputs)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``."""
        x = F.linear(x, self.weight * self.scale, self.bias)
        return GAIN * F.leaky_relu(x, SLOPE) if self.activate else x


def blur(x: Tensor, padding: int) -> Tensor:
    """Filter each channel with the outer product of [1, 3, 3, 1] / 8, with ``padding`` zeros on every side.

    ``(B, C, H, W)`` to ``(B, C, H + 2 padding - 3, W + 2 padding - 3)``.
    """
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype) / 8
    channels = x.shape[1]
    return F.conv2d(x, torch.outer(taps, taps).expand(channels, 1, 4, 4), padding=padding, groups=channels)


class ResidualDown(nn.Module):
    """StyleGAN2's residual block, which halves the size and maps ``inputs`` to ``outputs`` channels.

    ``(conv2(blur(conv1(x))) + skip(blur(x))) / sqrt(2)``, where conv2 (3×3) and skip (1×1) have stride 2. The skip
    has neither bias nor activation.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = EqualConv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")
        self.conv2 = EqualConv2d(outputs, outputs, 3, stride=2)
        self.skip = EqualConv2d(inputs, outputs, 1, stride=2, bias=False, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H/2, W/2)``; H and W even."""
        branch = self.conv2(blur(self.conv1(x), padding=2))
        return (branch + self.skip(blur(x, padding=1))) / math.sqrt(2)


class Upsample(nn.Module):
    """Equalised transposed 1×1 convolution with stride 2, then blur: doubles the size; no bias, no activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs, 1, 1))
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, 2H, 2W)``."""
        return blur(F.conv_transpose2d(x, self.weight * self.scale, stride=2), padding=2)


def equalised_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of all equalised layers in ``network``."""
    layers = (module for module in network.modules() if isinstance(module, EqualConv2d | Upsample))
    return [parameter for layer in layers for parameter in layer.parameters(recurse=False)]
