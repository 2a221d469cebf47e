"""Critics for training: for whole pictures, and for patches together with reference patches."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.network.layers import EqualConv2d, EqualLinear, ResidualDown

LARGEST_FACTOR = 16  # largest ratio of the deepest map's channels to the first map's
GRID = 4  # side of the input map of the linear layers


class _Trunk(nn.Module):
    """A 1×1 convolution and residual blocks, each halving the side, to a 4×4 map.

    Args:
        width: channels of the first map; they double with each block, up to 16 times.
        blocks: number of blocks; 5 reduce 128 pixels to 4.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        channels = [width * min(1 << i, LARGEST_FACTOR) for i in range(blocks + 1)]
        self.stem = EqualConv2d(3, width, 1)
        self.blocks = nn.ModuleList(ResidualDown(a, b) for a, b in pairwise(channels))
        self.channels = channels[-1]
        self.stride: int = 1 << blocks

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` in [-1, 1] to ``(B, channels, 4, 4)``; sides must divide by 2^blocks."""
        x = self.stem(image.to(self.stem.weight.dtype, memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        return x if x.shape[2:] == (GRID, GRID) else F.adaptive_avg_pool2d(x, GRID)


def minibatch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """Append the mean standard deviation within groups of the batch as a channel (Karras et al., ICLR 2018).

    ``(B, C, H, W)`` to ``(B, C + 1, H, W)``; groups hold ``group`` images, or the next smaller divisor of B.
    """
    batch, _, height, width = x.shape
    size = max(n for n in range(1, min(group, batch) + 1) if batch % n == 0)
    groups = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(-1, size, *x.shape[1:])
    deviation = (groups.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    plane = deviation.repeat_interleave(size).view(batch, 1, 1, 1).expand(-1, 1, height, width)
    return torch.cat([x, plane.to(x.dtype)], dim=1)


class ImageCritic(nn.Module):
    """StyleGAN2's discriminator (Karras et al., CVPR 2020): a score for a whole picture, high for photographs.

    Args:
        width: channels of the first map.
        blocks: residual blocks; 5 for crops of 128 pixels, one more for each doubling.
    """

    def __init__(self, width: int = 16, blocks: int = 5) -> None:
        super().__init__()
        self.trunk = _Trunk(width, blocks)
        self.stride = self.trunk.stride
        channels = self.trunk.channels
        self.conv = EqualConv2d(channels + 1, channels, 3, padding=1)
        self.hidden = EqualLinear(channels * GRID**2, channels, activate=True)
        self.score = EqualLinear(channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the scores, ``(B,)``, of pictures in [-1, 1], ``(B, 3, H, W)``."""
        x = self.conv(minibatch_deviation(self.trunk(image)))
        return self.score(self.hidden(x.flatten(1))).squeeze(1)


class PatchCritic(nn.Module):
    """Patch co-occurrence discriminator of the swapping autoencoder (Park et al., NeurIPS 2020).

    It scores a patch together with a few patches of a reference, high if all could come from one picture. The features
    of the reference's patches are averaged, so their order does not matter.

    Args:
        width: channels of the first map.
        blocks: residual blocks; 3 for patches of 32 pixels.
    """

    def __init__(self, width: int = 16, blocks: int = 3) -> None:
        super().__init__()
        self.trunk = _Trunk(width, blocks)
        self.stride = self.trunk.stride
        channels = self.trunk.channels
        self.feature = EqualLinear(channels * GRID**2, 2 * channels, activate=True)
        self.hidden = EqualLinear(4 * channels, 2 * channels, activate=True)
        self.score = EqualLinear(2 * channels, 1)

    def encode(self, patches: Tensor) -> Tensor:
        """Map patches in [-1, 1], ``(N, 3, S, S)``, to features, ``(N, F)``."""
        return self.feature(self.trunk(patches).flatten(1))

    def forward(self, patches: Tensor, reference: Tensor) -> Tensor:
        """Score patches together with reference patches.

        Args:
            patches: ``(B, n, 3, S, S)`` in [-1, 1].
            reference: the patches to compare with, ``(B, m, 3, S, S)``.

        Returns:
            Scores ``(B, n)``.
        """
        features = self.encode(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        others = self.encode(reference.flatten(0, 1)).unflatten(0, reference.shape[:2]).mean(dim=1, keepdim=True)
        return self.score(self.hidden(torch.cat([features, others.expand_as(features)], dim=-1))).squeeze(-1)
