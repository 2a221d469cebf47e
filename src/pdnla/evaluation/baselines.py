"""Baselines: colouring methods that need no training.

Each is a function of the target's L*, ``(H, W)``, and the reference in CIELAB, ``(3, H', W')``, to the target's
chroma, a* and b*, ``(2, H, W)``; all float32. :class:`Baseline` wraps one as a network, so that
:class:`pdnla.Colorizer` runs it like trained weights: on pictures of any size, with the target's L* kept.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree
from torch import Tensor, nn

from pdnla.images import color
from pdnla.network import Colorization

WINDOWS = (5, 11, 21)
"""Sides in pixels of the windows whose means and deviations :func:`patch_nearest` compares."""

NEAREST = 8
_REFERENCE_PIXELS = 1 << 16  # searched at most; with a quarter, the search takes half the time and is 0.9 dB worse


def grey(lightness: Tensor, reference: Tensor) -> Tensor:
    """Return zero chroma."""
    return lightness.new_zeros(2, *lightness.shape)


def mean_chroma(lightness: Tensor, reference: Tensor) -> Tensor:
    """Return the reference's mean chroma at every pixel."""
    return reference[1:].mean(dim=(1, 2)).view(2, 1, 1).expand(2, *lightness.shape)


def luminance_rank(lightness: Tensor, reference: Tensor) -> Tensor:
    """Return at each pixel the chroma of the reference pixel with the same rank in luminance.

    Global colour transfer (Welsh et al., Transferring Color to Greyscale Images, SIGGRAPH 2002) without
    neighbourhoods: the reference's luminance is mapped to the target's by rank instead of mean and deviation. Pixels of
    equal luminance share a rank, and chroma is the mean over the reference pixels with that luminance.
    """
    levels, sizes = _levels(lightness)
    reference_levels, reference_sizes = _levels(reference[0])
    chroma = reference.new_zeros(2, len(reference_sizes)).index_add_(1, reference_levels, reference[1:].flatten(1))
    chroma /= reference_sizes
    ranks = (sizes.cumsum(0) - sizes / 2) / sizes.sum()  # of the middle of each level, in [0, 1]
    ends = reference_sizes.cumsum(0) / reference_sizes.sum()
    indices = torch.searchsorted(ends, ranks).clamp_(max=len(ends) - 1)
    return chroma[:, indices[levels]].view(2, *lightness.shape)


def _levels(lightness: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of each pixel's L* among the distinct values, ``(H · W,)``, and the count of each value."""
    rounded = (lightness * 100).round()  # rounding errors must not order pixels of equal grey value
    _, levels, sizes = rounded.flatten().unique(return_inverse=True, return_counts=True)
    return levels, sizes.double()


def patch_nearest(lightness: Tensor, reference: Tensor) -> Tensor:
    """Return at each pixel the median chroma of the eight reference pixels with the most similar neighbourhoods.

    The comparison uses L*, and its mean and standard deviation in windows of three sizes. Of a larger reference, 65,536
    pixels on a regular grid are searched.
    """
    features = _neighbourhoods(reference[0])
    height, width = reference.shape[1:]
    step = max(1, int(np.ceil(np.sqrt(height * width / _REFERENCE_PIXELS))))
    grid = slice(step // 2, None, step)
    chroma = reference[1:, grid, grid].cpu().numpy().reshape(2, -1)
    tree = cKDTree(features[grid, grid].reshape(-1, features.shape[-1]))
    queries = _neighbourhoods(lightness).reshape(-1, features.shape[-1])
    nearest = min(NEAREST, chroma.shape[1])
    _, indices = tree.query(queries, k=nearest)
    median = np.median(chroma[:, indices.reshape(len(queries), nearest)], axis=2)
    return torch.from_numpy(median.astype(np.float32)).view(2, *lightness.shape).to(lightness.device)


def _neighbourhoods(lightness: Tensor) -> NDArray[np.float32]:
    """Return L* and its mean and deviation in windows of each size, ``(H, W, 1 + 2 · 3)``."""
    values = lightness.cpu().double().numpy()
    parts = [values]
    for window in WINDOWS:
        mean = uniform_filter(values, window, mode="reflect")
        variance = uniform_filter(values**2, window, mode="reflect") - mean**2
        parts += [mean, np.sqrt(np.clip(variance, 0, None))]
    return np.stack(parts, axis=-1).astype(np.float32)


ChromaFunction = Callable[[Tensor, Tensor], Tensor]

BASELINES: dict[str, ChromaFunction] = {
    function.__name__: function for function in (grey, mean_chroma, luminance_rank, patch_nearest)
}
"""The baselines by name."""


class Baseline(nn.Module):
    """Wraps a baseline with the interface of :class:`pdnla.PDNLA`."""

    def __init__(self, function: ChromaFunction) -> None:
        super().__init__()
        self.function = function

    def encode_reference(self, reference: Tensor) -> tuple[Tensor]:
        """Convert the reference, sRGB in [-1, 1], ``(B, 3, H, W)``, to CIELAB."""
        return (color.rgb_to_lab((reference + 1) / 2),)

    def chroma(self, target: Tensor, reference: Tensor | tuple[Tensor]) -> Tensor:
        """Return a* and b* of grey targets, sRGB in [-1, 1], ``(B, 3, H, W)``, as ``(B, 2, H, W)``."""
        (labs,) = reference if isinstance(reference, tuple) else self.encode_reference(reference)
        lightness = color.rgb_to_lab((target + 1) / 2)[:, 0]
        labs = labs.expand(len(target), -1, -1, -1)
        return torch.stack([self.function(*pair) for pair in zip(lightness, labs, strict=True)])

    def forward(self, target: Tensor, reference: Tensor | tuple[Tensor]) -> Colorization:
        """Colour grey targets, sRGB in [-1, 1], ``(B, 3, H, W)``; ``mid`` and ``out`` are the same."""
        lightness = color.rgb_to_lab((target + 1) / 2)[:, :1]
        rgb = color.lab_to_rgb(torch.cat([lightness, self.chroma(target, reference)], dim=1), clip=False)
        return Colorization(rgb * 2 - 1, rgb * 2 - 1)
