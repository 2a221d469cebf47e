"""Stage 1: the target encoder E_g and the reference encoder E_c (the same network, separate weights)."""

from typing import NamedTuple

import kornia.filters
import torch
from torch import Tensor, nn

from pdnla.network.layers import EqualConv2d, ResidualDown


class Codes(NamedTuple):
    """The output of an encoder's training head: ``code``, ``(B, w·h·w')``, and ``gram``, ``(B, w²)``, both flat."""

    code: Tensor
    gram: Tensor


class Edges(nn.Module):
    """Canny's edge map, 0, 0.5 or 1, of an image in [-1, 1].

    It has no gradient, because of its thresholds, and runs in float32, because half precision would shift them. It
    processes one image at a time, because on CPUs a convolution rounds differently in a batch, which can change an
    edge.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, 1, H, W)``."""
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            maps = [kornia.filters.canny(one, hysteresis=False)[1] for one in image.float().split(1)]
            return torch.cat(maps).to(image.dtype)


class Encoder(nn.Module):
    """Four residual blocks over an image and its edges, tanh after each.

    Args:
        width: channels of the first layer, w; feature map i has ``2^i w`` channels at ``1 / 2^i`` of the size.
        extra: number of extra input channels; 0 in the published network.
    """

    def __init__(self, width: int, extra: int = 0) -> None:
        super().__init__()
        self.edges = Edges()
        self.stem = EqualConv2d(4 + extra, width, 1, exact=True)
        self.blocks = nn.ModuleList(ResidualDown(width << i, width << (i + 1)) for i in range(4))
        self.head = nn.Conv2d(width << 4, width, 1)

    def forward(self, image: Tensor, *extra: Tensor) -> tuple[Tensor, ...]:
        """Map an image in [-1, 1], ``(B, 3, H, W)``, to its features f1..f4, ``(B, 2^i w, H / 2^i, W / 2^i)``.

        Args:
            image: the image.
            extra: maps of the image's size, with ``extra`` channels in total.
        """
        x = self.stem(torch.cat([image, self.edges(image), *extra], dim=1))
        features = []
        for block in self.blocks:
            x = torch.tanh(block(x))
            features.append(x)
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
