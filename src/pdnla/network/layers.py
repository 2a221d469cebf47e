"""The published network's building blocks: StyleGAN2's equalised layers (Karras et al. 2020) and residual block.

Feature maps are ``(B, C, H, W)``, kept in channels-last memory from end to end: convolutions are about twice
as fast in it on CPUs with wide vectors, and 1×1 convolutions and attention become plain matrix products.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAIN = math.sqrt(2)  # keeps the variance of what a leaky ReLU halves
SLOPE = 0.2


class EqualConv2d(nn.Module):
    """Convolution whose weight ~ N(0, 1) is scaled by ``1 / sqrt(in * k^2)`` at run time (Karras et al. 2018).

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the square kernel.
        stride: step of the convolution.
        padding: pixels added on every side.
        reflect: pad by reflection instead of with zeros.
        bias: add a learned bias; with ``activate`` it is the activation's.
        activate: end with ``sqrt(2) * leaky_relu(x + bias, 0.2)``.
        gain: factor on the result, which costs nothing here.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        reflect: bool = False,
        bias: bool = True,
        activate: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        # A leaky ReLU of x times a gain is that gain times the leaky ReLU of x: all factors go into the weight.
        self.gain = gain * GAIN if activate else gain
        self.scale = self.gain / math.sqrt(inputs * kernel**2)
        self.stride, self.padding, self.reflect, self.activate = stride, padding, reflect, activate

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H', W')``."""
        weight = self.weight * self.scale
        padding = self.padding
        if self.reflect:
            x, padding = F.pad(x, (padding,) * 4, mode="reflect"), 0
        bias = None if self.bias is None else self.bias * self.gain
        x = F.conv2d(x, weight, bias, self.stride, padding)
        return F.leaky_relu(x, SLOPE, inplace=True) if self.activate else x


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
    """Low-pass filter before a stride, zero padding ``before`` and ``after`` on each axis.

    A ``stride`` computes only the positions that the following 1×1 convolution of that stride would read.
    """

    kernel: Tensor

    def __init__(self, channels: int, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.channels, self.stride, self.padding = channels, stride, (before, after, before, after)
        # A constant: rebuilt, never stored, so a state dict holds learned values alone.
        self.register_buffer("kernel", blur_kernel().repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, (H + before + after - 4) // stride + 1, ...)``."""
        before, after, _, _ = self.padding
        padding = before
        if before != after:
            x, padding = F.pad(x, self.padding), 0
        return F.conv2d(x, self.kernel.to(x.dtype), None, self.stride, padding, groups=self.channels)


class ResidualDown(nn.Module):
    """StyleGAN2's residual block: half the size, ``inputs`` to ``outputs`` channels.

    ``(conv3(blur(conv3(x))) + conv1(blur(x))) / sqrt(2)``; the skip has neither bias nor activation.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = EqualConv2d(inputs, outputs, 3, padding=1, reflect=True)
        self.blur = Blur(outputs, 2, 2)
        self.conv2 = EqualConv2d(outputs, outputs, 3, stride=2, gain=math.sqrt(0.5))
        # Blurring and then striding equals blurring at the stride, for a quarter of the work.
        self.skip_blur = Blur(inputs, 1, 1, stride=2)
        self.skip = EqualConv2d(inputs, outputs, 1, bias=False, activate=False, gain=math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H/2, W/2)``; H and W even."""
        skip = self.skip(self.skip_blur(x))
        return skip.add_(self.conv2(self.blur(self.conv1(x))))


class Upsample(nn.Module):
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
        weight = (self.weight * (self.scale / 4)).transpose(0, 1)
        x = F.conv2d(x, weight, padding=1)
        return F.interpolate(x, scale_factor=2, mode="bilinear")[..., 2:-2, 2:-2]
