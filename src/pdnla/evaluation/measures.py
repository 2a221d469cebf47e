"""What is measured of every result, and of a whole set of them.

Pictures are sRGB in [0, 1], ``(1, 3, H, W)``, one at a time. What a case cannot be measured by is left out of its
figures: without a truth there is no PSNR, and the first frame of a clip has no flicker.
"""

import logging
import math
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pdnla.backbones import Backbone, load_backbone
from pdnla.errors import UserError
from pdnla.evaluation.metrics import colourfulness, fidelity, histogram_intersection
from pdnla.images import color
from pdnla.losses.contextual import contextual_similarity

log = logging.getLogger(__name__)

Figures = dict[str, float]


class Measure(NamedTuple):
    """How a measure is read.

    Attributes:
        label: its heading.
        best: ``high``, ``low``, or ``one`` where 1 is best.
        digits: after the point.
        meaning: what it is, in a few words.
    """

    label: str
    best: Literal["high", "low", "one"]
    digits: int
    meaning: str


MEASURES = {
    "psnr": Measure("PSNR", "high", 2, "against the truth, in dB over the three channels"),
    "ssim": Measure("SSIM", "high", 3, "structural similarity to the truth"),
    "ciede2000": Measure("CIEDE2000", "low", 2, "mean colour difference from the truth"),
    "chroma_error": Measure("chroma error", "low", 2, "mean distance from the truth in the a*b* plane"),
    "lpips": Measure("LPIPS", "low", 3, "perceptual distance from the truth (AlexNet)"),
    "lpd_efficientnet": Measure(
        "LPD", "low", 3, "LPIPS' distance from the truth on EfficientNet-Lite0's features, unweighted"
    ),
    "his": Measure("HIS", "high", 3, "histogram intersection of a*b* with the reference"),
    "colourfulness_ratio": Measure("colourfulness", "one", 3, "Hasler and Süsstrunk's, over the reference's"),
    "contextual": Measure("contextual", "high", 3, "contextual similarity to the reference"),
    "luminance_error": Measure("L* error", "low", 2, "mean absolute difference from the target's L*"),
    "flicker": Measure("flicker", "low", 2, "mean change of a*b* since the last frame where L* stays"),
    "fid": Measure("FID", "low", 2, "Fréchet distance between sets, Inception"),
    "frechet_efficientnet": Measure("Fréchet", "low", 2, "distance between sets, EfficientNet-Lite0's features"),
}
"""Every measure by its name in files, in the order of tables; the last two are of a set."""

STILL = 1.0
"""L* of the target may change by so much between two frames where flicker is measured: less than can be seen."""

CONTEXTUAL_LEVELS = (1, 2)
"""Of the backbone's feature maps, those whose contextual similarities are averaged: strides 8 and 16."""

_WAIT = 10.0  # seconds that a server of weights has to answer


class Seen(NamedTuple):
    """A picture and a frozen network's features of it, fine to coarse."""

    picture: Tensor
    features: tuple[Tensor, ...]


class Judge:
    """Measures results with networks loaded once.

    Args:
        device: where the networks compute.
        lpips: measure LPIPS instead of the same distance on EfficientNet-Lite0's features; see :func:`has_lpips`.
        side: pictures of more than about ``side``² pixels are made smaller before a network sees them.
    """

    def __init__(self, device: torch.device, lpips: bool = False, side: int = 256) -> None:
        self.device, self.side = device, side
        self.backbone: Backbone = load_backbone().to(device)
        self.lpips = _lpips().to(device) if lpips else None

    def look(self, picture: Tensor) -> Seen:
        """Return a picture with its features, computed in float32 on the judge's device."""
        with torch.autocast(self.device.type, enabled=False):
            return Seen(picture, self.backbone(self._reduced(picture).to(self.device) * 2 - 1))

    def figures(self, result: Seen, target: Tensor, reference: Seen, truth: Seen | None) -> Figures:
        """Measure one result.

        Args:
            result: of the target's size.
            target: grey, or a colour picture that counts as its luminance.
            reference: of any size.
            truth: of the target's size, or None.
        """
        found: Figures = {}
        if truth is not None:
            found |= {name: float(value) for name, value in fidelity(result.picture, truth.picture).items()}
            if self.lpips is not None:
                pair = (self._reduced(seen.picture).to(self.device) for seen in (result, truth))
                found["lpips"] = float(self.lpips(*pair))
                self.lpips.reset()
            else:
                found["lpd_efficientnet"] = perceptual_distance(result.features, truth.features)
        found["his"] = float(histogram_intersection(result.picture, reference.picture))
        colours = float(colourfulness(reference.picture))
        if colours > 0:
            found["colourfulness_ratio"] = float(colourfulness(result.picture)) / colours
        found["contextual"] = contextual(result.features, reference.features)
        found["luminance_error"] = luminance_error(result.picture, target)
        return {name: value for name, value in found.items() if math.isfinite(value)}  # the truth itself has no PSNR

    def _reduced(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[2:]
        scale = self.side / (height * width) ** 0.5
        if scale >= 1:
            return picture
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        return functional.interpolate(picture, size, mode="bicubic", antialias=True).clamp(0, 1)


def perceptual_distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return LPIPS' distance (Zhang et al., CVPR 2018) on given features, without its learned weights.

    The squared distance of features normalised to unit length at every position, its mean over positions, the mean of
    these over layers: in [0, 4].

    Args:
        found: feature maps ``(1, C, H, W)`` of one picture.
        wanted: those of the other.
    """
    pairs = zip(found, wanted, strict=True)
    layers = [(functional.normalize(x, dim=1) - functional.normalize(y, dim=1)).square().sum(dim=1) for x, y in pairs]
    return float(torch.stack([layer.mean() for layer in layers]).mean())


def contextual(found: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Return the mean contextual similarity of feature maps at strides 8 and 16, in (0, 1]."""
    levels = [contextual_similarity(found[level], reference[level]) for level in CONTEXTUAL_LEVELS]
    return float(torch.stack(levels).mean())


def luminance_error(result: Tensor, target: Tensor) -> float:
    """Return the mean absolute difference of two pictures' L*."""
    return float((color.rgb_to_lab(result)[:, 0] - color.rgb_to_lab(target)[:, 0]).abs().mean())


def flicker(result: Tensor, before: Tensor, target: Tensor, target_before: Tensor) -> float | None:
    """Return how much chroma changes between two frames where luminance does not.

    The mean distance in the a*b* plane of ``result`` from ``before``, the result of the last frame, over the pixels
    whose L* changes by less than :data:`STILL` between the targets.

    Returns:
        the distance, or None where no pixel stays or the frames differ in size.
    """
    if result.shape != before.shape or target.shape[2:] != target_before.shape[2:]:
        return None
    still = (color.rgb_to_lab(target)[:, 0] - color.rgb_to_lab(target_before)[:, 0]).abs() < STILL
    if not bool(still.any()):
        return None
    change = (color.rgb_to_lab(result)[:, 1:] - color.rgb_to_lab(before)[:, 1:]).norm(dim=1)
    return float(change[still].mean())


@dataclass
class Moments:
    """Sums over the feature vectors of a set of pictures: they grow by one, and add up over processes.

    Attributes:
        count: how many vectors.
        total: their sum, ``(D,)`` in float64.
        products: the sum of their outer products, ``(D, D)`` in float64.
    """

    count: int
    total: Tensor
    products: Tensor

    @classmethod
    def of(cls, vector: Tensor) -> "Moments":
        """Return those of a single vector, ``(D,)``."""
        vector = vector.double().cpu()
        return cls(1, vector, vector.outer(vector))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)


def frechet_distance(found: Moments, wanted: Moments) -> float | None:
    """Return the Fréchet distance of the normal distributions with the moments of two sets.

    ``|m - m'|² + tr(S + S' - 2 sqrt(S S'))`` (Heusel et al., NeurIPS 2017, the distance of FID). Sets smaller than
    the features are many rank methods poorly.

    Returns:
        the distance, or None if a set has under two pictures.
    """
    if found.count < 2 or wanted.count < 2:
        return None
    (mean, covariance), (other_mean, other_covariance) = (_normal(moments) for moments in (found, wanted))
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * cross
    return max(0.0, float(distance))


def _normal(moments: Moments) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased covariance."""
    mean = moments.total / moments.count
    return mean, (moments.products - moments.count * mean.outer(mean)) / (moments.count - 1)


def describe(seen: Seen) -> Tensor:
    """Return what ``frechet_efficientnet`` describes a picture by, ``(320,)``: the mean of the coarsest features."""
    return seen.features[-1].mean(dim=(2, 3))[0]


class Inception:
    """What FID describes a picture by, ``(2048,)``: torchmetrics' Inception network with torch-fidelity's weights."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.network = device, _inception().to(device)

    def __call__(self, picture: Tensor) -> Tensor:
        """Return the features of a picture."""
        features: Tensor = self.network(picture.mul(255).round().to(torch.uint8).to(self.device))
        return features.flatten()


def has_lpips(wanted: bool | str) -> bool:
    """Return whether LPIPS is to be measured: ``auto`` is where its weights are or can be downloaded.

    Raises:
        UserError: it is asked for and cannot be had, or ``wanted`` is none of auto, true and false.
    """
    return _can_have("lpips", wanted, _lpips, "the same distance on EfficientNet-Lite0's features is measured instead")


def has_fid(wanted: bool | str) -> bool:
    """Return whether FID is to be measured, as :func:`has_lpips` does."""
    return _can_have(
        "fid", wanted, _inception, "the Fréchet distance of EfficientNet-Lite0's features is measured alone"
    )


def _can_have(name: str, wanted: bool | str, load: Callable[[], object], instead: str) -> bool:
    if wanted not in (True, False, "auto"):
        raise UserError(f"measures.{name}={wanted}: must be auto, true or false")
    if wanted is False:
        return False
    try:
        load()
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        if wanted is True:
            raise UserError(f"measures.{name}=true: its weights cannot be had ({reason}); set it to false") from error
        log.info("no %s: %s (%s)", name, instead, reason)
        return False
    return True


def _lpips() -> Any:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    with _impatient():
        return LearnedPerceptualImagePatchSimilarity("alex", normalize=True)


def _inception() -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    with _impatient():
        return FrechetInceptionDistance(feature=2048).inception


@contextmanager
def _impatient() -> Iterator[None]:
    """Give up on a server that does not answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_WAIT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def means(figures: Sequence[Mapping[str, float]]) -> Figures:
    """Return the mean of each measure over the pictures that have it."""
    found: Figures = {}
    for name in MEASURES:
        values = [picture[name] for picture in figures if name in picture]
        if values:
            found[name] = sum(values) / len(values)
    return found


def best(name: str, values: Mapping[str, float]) -> list[str]:
    """Return the methods with the best value of a measure, as it is printed; several where they are equal."""
    measure = MEASURES[name]
    rounded = {method: badness(name, round(value, measure.digits)) for method, value in values.items()}
    return [method for method, value in rounded.items() if value == min(rounded.values())]


def badness(name: str, value: float) -> float:
    """Return a number that is smaller the better a value of a measure is."""
    direction = MEASURES[name].best
    return -value if direction == "high" else value if direction == "low" else abs(value - 1)
