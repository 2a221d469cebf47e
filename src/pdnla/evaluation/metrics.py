"""Measures of pictures: functions of sRGB in [0, 1], ``(B, 3, H, W)``, with one value per picture, ``(B,)``."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from kornia.metrics import ssim as ssim_map
from skimage.color import deltaE_ciede2000
from torch import Tensor

from pdnla.images.color import rgb_to_lab

VISIBLE_CHROMA = 8.0
"""Chroma in CIELAB units above which a pixel counts as coloured."""

STILL = 1.0
"""Largest change of the target's L* between two frames at pixels where flicker is measured; it is not visible."""

DISTANCES = (1, 2, 4)
"""Frames between those whose histograms are compared."""

_ROUNDING = 0.1  # standard deviation of a* and b* below which a picture counts as uniform


def chroma_error(result: Tensor, truth: Tensor) -> Tensor:
    """Return the mean distance in the a*b* plane, ``(B,)``, of sRGB pictures in [0, 1], ``(B, 3, H, W)``."""
    difference = rgb_to_lab(result)[:, 1:] - rgb_to_lab(truth)[:, 1:]
    return difference.norm(dim=1).mean(dim=(1, 2))


def chroma_error_over_grey(result: Tensor, truth: Tensor) -> Tensor:
    """Return the ratio of the chroma error to that of a grey result, ``(B,)``; above 1, grey is better."""
    return chroma_error(result, truth) / rgb_to_lab(truth)[:, 1:].norm(dim=1).mean(dim=(1, 2))


def opposite_hue(result: Tensor, truth: Tensor) -> Tensor:
    """Return the share of pixels with a visibly wrong hue, ``(B,)`` in percent.

    Their chroma is above :data:`VISIBLE_CHROMA` in both pictures, and their hues differ by more than 90 degrees.
    """
    chroma, true_chroma = (rgb_to_lab(picture)[:, 1:] for picture in (result, truth))
    visible = (chroma.norm(dim=1) > VISIBLE_CHROMA) & (true_chroma.norm(dim=1) > VISIBLE_CHROMA)
    return 100 * (visible & ((chroma * true_chroma).sum(dim=1) < 0)).float().mean(dim=(1, 2))


def ciede2000(result: Tensor, truth: Tensor) -> Tensor:
    """Return the mean colour difference CIEDE2000, ``(B,)``, of sRGB pictures in [0, 1], ``(B, 3, H, W)``."""
    return _mean_difference(rgb_to_lab(result), rgb_to_lab(truth))


def placement_error(result: Tensor, truth: Tensor) -> Tensor:
    """Return CIEDE2000 after the affine map of a*b* that fits the truth best, ``(B,)``, of sRGB in [0, 1].

    The map, found by least squares for each picture, removes what another light or another print changes in the whole
    picture, which no grey picture shows. What remains are colours in wrong places. A uniform result gets the truth's
    mean chroma: deviations of less than :data:`_ROUNDING`, which are rounding, hardly count.
    """
    lab, true_lab = (rgb_to_lab(image).double() for image in (result, truth))
    chroma, true_chroma = (image[:, 1:].flatten(2).mT for image in (lab, true_lab))
    mean = true_chroma.mean(dim=1, keepdim=True)
    chroma, true_chroma = chroma - chroma.mean(dim=1, keepdim=True), true_chroma - mean
    noise = chroma.shape[1] * _ROUNDING**2 * torch.eye(2, dtype=chroma.dtype, device=chroma.device)
    slope = torch.linalg.solve(chroma.mT @ chroma + noise, chroma.mT @ true_chroma)
    fitted = (chroma @ slope + mean).mT.unflatten(2, lab.shape[2:])
    return _mean_difference(torch.cat([lab[:, :1], fitted], dim=1), true_lab).to(result)


def _mean_difference(lab: Tensor, other: Tensor) -> Tensor:
    """Return the mean CIEDE2000, ``(B,)``, of pictures in CIELAB, ``(B, 3, H, W)``."""
    labs = (image.movedim(1, -1).cpu().double().numpy() for image in (lab, other))
    return torch.from_numpy(np.asarray(deltaE_ciede2000(*labs)).mean(axis=(1, 2))).to(lab)


def psnr(result: Tensor, truth: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB over the three channels, ``(B,)``, of sRGB in [0, 1]."""
    return -10 * (result - truth).square().mean(dim=(1, 2, 3)).log10()


def ssim(result: Tensor, truth: Tensor) -> Tensor:
    """Return the structural similarity, ``(B,)``, 1 is best, of sRGB pictures in [0, 1], ``(B, 3, H, W)``.

    Its window is a Gaussian of 11 pixels (Wang et al. 2004), and pictures are reflected at their borders.
    """
    return ssim_map(result, truth, window_size=11, eps=0.0).mean(dim=(1, 2, 3))


def histogram_intersection(result: Tensor, reference: Tensor, bins: int = 16) -> Tensor:
    """Return the intersection of two pictures' chroma histograms, ``(B,)`` in [0, 1], of sRGB in [0, 1].

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
    in [0, 255]: 0 for a grey picture, above 80 for a very colourful one.
    """
    red, green, blue = (image.float() * 255).flatten(2).unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue])
    spread = opponents.var(dim=2, unbiased=False).sum(dim=0).sqrt()
    return spread + 0.3 * opponents.mean(dim=2).square().sum(dim=0).sqrt()


def colourfulness_ratio(result: Tensor, reference: Tensor) -> Tensor:
    """Return the ratio of the result's colourfulness to the reference's, ``(B,)``; NaN if the reference is grey."""
    colours = colourfulness(reference)
    return torch.where(colours > 0, colourfulness(result) / colours, torch.nan)


def luminance_error(result: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of two pictures' L*, ``(B,)``, of sRGB in [0, 1]."""
    return (rgb_to_lab(result)[:, 0] - rgb_to_lab(target)[:, 0]).abs().mean(dim=(1, 2))


def flicker(result: Tensor, before: Tensor, target: Tensor, target_before: Tensor) -> float:
    """Return the change of chroma between two frames where luminance does not change.

    It is the mean distance in the a*b* plane between ``result`` and ``before``, the previous frame's result, over the
    pixels whose L* changes by less than :data:`STILL` between the targets.

    Args:
        result: sRGB in [0, 1], ``(1, 3, H, W)``.
        before: the previous frame's result.
        target: the target of ``result``.
        target_before: the previous frame's target.

    Returns:
        The distance; NaN if no pixel is still or the frames differ in size.
    """
    if result.shape != before.shape or target.shape[2:] != target_before.shape[2:]:
        return math.nan
    still = (rgb_to_lab(target)[:, 0] - rgb_to_lab(target_before)[:, 0]).abs() < STILL
    change = (rgb_to_lab(result)[:, 1:] - rgb_to_lab(before)[:, 1:]).norm(dim=1)
    return float(change[still].mean())


def colour_distribution_change(result: Tensor, earlier: Sequence[Tensor]) -> float:
    """Return a thousand times the mean Jensen-Shannon divergence of the histograms of R, G and B between frames.

    The mean goes over channels and over the distances of :data:`DISTANCES`; nats, histograms of 256 bins. Its mean over
    frames is the colour distribution consistency index CDC of Liu et al. ("Temporally Consistent Video Colorization",
    2021).

    Args:
        result: sRGB in [0, 1], ``(1, 3, H, W)``.
        earlier: the frames before, the last one first.

    Returns:
        The mean; NaN until there are frames at all distances.
    """
    if len(earlier) < max(DISTANCES):
        return math.nan
    own = _histograms(result)
    changes = []
    for distance in DISTANCES:
        other = _histograms(earlier[distance - 1])
        middle = (own + other) / 2
        changes.append((torch.xlogy(own, own / middle) + torch.xlogy(other, other / middle)).nansum(dim=1).mean() / 2)
    return 1000 * float(torch.stack(changes).mean())


def _histograms(picture: Tensor) -> Tensor:
    """Return the histogram of each channel, ``(3, 256)``."""
    values = (picture[0] * 255).round().clamp(0, 255).long().flatten(1)
    counts = torch.zeros(3, 256, dtype=torch.float64, device=picture.device)
    counts.scatter_add_(1, values, torch.ones_like(values, dtype=counts.dtype))
    return counts / values.shape[1]
