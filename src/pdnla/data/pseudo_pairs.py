"""Pseudo-pairs: a photograph is its own truth, its grey version the target, a warped and noisy copy the reference."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from kornia.geometry.transform import get_tps_transform, warp_points_tps
from torch import Tensor

from pdnla.images import color

# Six control points in [-1, 1] coordinates: the corners, which stay, and two inner ones, which move.
CONTROL_POINTS = ((-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0), (-0.5, 0.0), (0.5, 0.0))
INNER_POINTS = 2


class Pairs(NamedTuple):
    """A batch of pairs, sRGB in [-1, 1], ``(B, 3, H, W)``: grey ``target``, colour ``reference``, ``truth``."""

    target: Tensor
    reference: Tensor
    truth: Tensor


class PseudoPairs:
    """Creates pairs from photographs on their device; each pair has a seed for all of its randomness.

    Args:
        warp: largest displacement of the two inner control points of the thin-plate spline, relative to the side
            (published: 0.25).
        noise: largest amplitude of the uniform noise on the reference, in [0, 1] sRGB; the amplitude of each reference
            is between 0 and this (published: up to 50/255).
        mirror: probability of mirroring the reference.
        recolour: probability of mixing the truth's a* and b* at random, so that only the reference shows its colours.
        recolour_strength: standard deviation of the mixing matrix around the identity.
    """

    def __init__(
        self,
        warp: float = 0.25,
        noise: float = 50 / 255,
        mirror: float = 0.5,
        recolour: float = 0.4,
        recolour_strength: float = 0.3,
    ) -> None:
        self.warp, self.noise, self.mirror = warp, noise, mirror
        self.recolour, self.recolour_strength = recolour, recolour_strength

    def __call__(self, photographs: Tensor, seeds: Sequence[int]) -> Pairs:
        """Create pairs from sRGB photographs in [0, 1], ``(B, 3, H, W)``; pair i depends only on ``seeds[i]``."""
        chance = [self._draw(seed) for seed in seeds]
        truth = self._recoloured(photographs, torch.stack([c.mixing for c in chance]))
        reference = warp(truth, torch.stack([c.offsets for c in chance]))
        mirrored = torch.tensor([c.mirrored for c in chance], device=truth.device).view(-1, 1, 1, 1)
        reference = torch.where(mirrored, reference.flip(-1), reference)
        reference = torch.stack(
            [self._noisy(image, c.amplitude, seed) for image, c, seed in zip(reference, chance, seeds, strict=True)]
        )
        return Pairs(color.grey(truth) * 2 - 1, reference * 2 - 1, truth * 2 - 1)

    def _draw(self, seed: int) -> "_Chance":
        generator = torch.Generator().manual_seed(seed)
        recoloured, mirrored, amplitude = torch.rand(3, generator=generator).tolist()
        mixing = self.recolour_strength * torch.randn(2, 2, generator=generator)
        offsets = 2 * torch.rand(INNER_POINTS, 2, generator=generator) - 1
        return _Chance(
            mixing=torch.eye(2) + mixing * (recoloured < self.recolour),
            offsets=2 * self.warp * offsets,  # the side is 2 long in [-1, 1] coordinates
            mirrored=mirrored < self.mirror,
            amplitude=self.noise * amplitude,
        )

    def _recoloured(self, images: Tensor, mixing: Tensor) -> Tensor:
        changed = (mixing != torch.eye(2)).flatten(1).any(dim=1)
        if not changed.any():
            return images
        lab = color.rgb_to_lab(images)
        chroma = torch.einsum("bij,bjhw->bihw", mixing.to(lab), lab[:, 1:])
        recoloured = color.lab_to_rgb(torch.cat([lab[:, :1], chroma], dim=1))
        return torch.where(changed.to(images.device).view(-1, 1, 1, 1), recoloured, images)

    @staticmethod
    def _noisy(image: Tensor, amplitude: float, seed: int) -> Tensor:
        generator = torch.Generator(image.device).manual_seed(seed)
        noise = 2 * torch.rand(image.shape, generator=generator, device=image.device) - 1
        return (image + amplitude * noise).clamp(0, 1)


class _Chance(NamedTuple):
    """The random choices for one pair."""

    mixing: Tensor
    offsets: Tensor
    mirrored: bool
    amplitude: float


def warp(images: Tensor, offsets: Tensor) -> Tensor:
    """Warp images by a thin-plate spline whose two inner control points move.

    Args:
        images: ``(B, C, H, W)``.
        offsets: displacement of each inner control point, ``(B, 2, 2)`` as (x, y) in [-1, 1] coordinates.

    Returns:
        The warped images, ``(B, C, H, W)``. The outside of an image is its reflection, because the network would copy
        black corners.
    """
    batch, _, height, width = images.shape
    points = torch.tensor(CONTROL_POINTS).expand(batch, -1, -1)
    moved = points.clone()
    moved[:, -INNER_POINTS:] += offsets
    kernel, affine = get_tps_transform(points, moved)
    rows = torch.linspace(-1 + 1 / height, 1 - 1 / height, height)
    columns = torch.linspace(-1 + 1 / width, 1 - 1 / width, width)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).reshape(1, -1, 2)
    grid = warp_points_tps(
        grid.expand(batch, -1, -1).to(images), points.to(images), kernel.to(images), affine.to(images)
    )
    grid = grid.view(batch, height, width, 2)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
