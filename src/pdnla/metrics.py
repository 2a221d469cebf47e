"""How far a result's colours are from the truth's."""

import numpy as np
import torch
from skimage.color import deltaE_ciede2000
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from pdnla.color import rgb_to_lab


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
