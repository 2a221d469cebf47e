"""How far a result's colours are from the truth's."""

import numpy as np
import torch
from skimage.color import deltaE_ciede2000
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from pdnla.images.color import rgb_to_lab


def chroma_error(result: Tensor, truth: Tensor) -> Tensor:
    """Return the mean distance in the a*b* plane, ``(B,)``, of sRGB pictures in [0, 1], ``(B, 3, H, W)``."""
    difference = rgb_to_lab(result)[:, 1:] - rgb_to_lab(truth)[:, 1:]
    return difference.norm(dim=1).mean(dim=(1, 2))


def ciede2000(result: Tensor, truth: Tensor) -> Tensor:
    """Return the mean colour difference CIEDE2000, ``(B,)``, of sRGB pictures in [0, 1], ``(B, 3, H, W)``."""
    labs = (rgb_to_lab(image).movedim(1, -1).cpu().double().numpy() for image in (result, truth))
    return torch.from_numpy(np.asarray(deltaE_ciede2000(*labs)).mean(axis=(1, 2))).to(result)


def fidelity(result: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Return every measure against a known truth, each ``(B,)``.

    Args:
        result: sRGB in [0, 1], ``(B, 3, H, W)``.
        truth: the same.

    Returns:
        ``psnr`` in dB, ``ssim`` (1 is best), ``ciede2000`` and ``chroma_error`` (0 is best, CIELAB units).
    """
    psnr = peak_signal_noise_ratio(result, truth, data_range=1.0, reduction="none", dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(result, truth, data_range=1.0, reduction="none")
    return {
        "psnr": psnr,
        "ssim": ssim.reshape(-1),
        "ciede2000": ciede2000(result, truth),
        "chroma_error": chroma_error(result, truth),
    }


def histogram_intersection(result: Tensor, reference: Tensor, bins: int = 16) -> Tensor:
    """Return how much of two pictures' chroma histograms is common, ``(B,)`` in [0, 1], of sRGB in [0, 1].

    ``sum(min(h, h'))`` of histograms with ``bins``² bins over a*, b* in [-100, 100], each summing to 1. The pictures
    may differ in size.
    """
    histograms = []
    for image in (result, reference):
        chroma = rgb_to_lab(image)[:, 1:].clamp(-100, 99.999)
        a, b = ((chroma + 100) * (bins / 200)).long().flatten(2).unbind(1)
        counts = torch.zeros(len(image), bins**2, device=image.device)
        counts.scatter_add_(1, a * bins + b, torch.ones_like(a, dtype=counts.dtype))
        histograms.append(counts / a.shape[1])
    return torch.minimum(*histograms).sum(dim=1)


def colourfulness(image: Tensor) -> Tensor:
    """Return Hasler and Süsstrunk's colourfulness (2003), ``(B,)``, of sRGB in [0, 1], ``(B, 3, H, W)``.

    ``sqrt(var(rg) + var(yb)) + 0.3 * sqrt(mean(rg)^2 + mean(yb)^2)`` with ``rg = R - G`` and ``yb = (R + G) / 2 - B``
    in [0, 255]: 0 for a grey picture, over 80 for a very colourful one.
    """
    red, green, blue = (image.float() * 255).flatten(2).unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue])
    spread = opponents.var(dim=2, unbiased=False).sum(dim=0).sqrt()
    return spread + 0.3 * opponents.mean(dim=2).square().sum(dim=0).sqrt()
