"""The Fréchet distance between sets of pictures, and the vectors that describe a picture."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdnla.evaluation.downloads import impatient


def mean_features(features: Sequence[Tensor]) -> Tensor:
    """Return the mean of the coarsest of a picture's feature maps: ``(320,)`` of EfficientNet-Lite0's."""
    return features[-1].mean(dim=(2, 3))[0]


def inception(picture: Tensor) -> Tensor:
    """Return FID's description of a picture in [0, 1], ``(1, 3, H, W)``: Inception's features, ``(2048,)``."""
    features: Tensor = load_inception().to(picture.device)(picture.mul(255).round().to(torch.uint8))
    return features.flatten()


@functools.cache
def load_inception() -> Any:
    """Return torchmetrics' Inception network with torch-fidelity's weights, which it downloads."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    with impatient():
        return FrechetInceptionDistance(feature=2048).inception


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


def frechet_distance(results: Moments, wanted: Moments) -> float | None:
    """Return the Fréchet distance of the normal distributions with the moments of two sets.

    ``|m - m'|² + tr(S + S' - 2 sqrt(S S'))`` (Heusel et al., NeurIPS 2017, the distance of FID). Sets smaller than
    the features are many rank methods poorly.

    Returns:
        the distance, or None if a set has under two pictures.
    """
    if results.count < 2 or wanted.count < 2:
        return None
    (mean, covariance), (other_mean, other_covariance) = (_normal(moments) for moments in (results, wanted))
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * cross
    return max(0.0, float(distance))


def _normal(moments: Moments) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased covariance."""
    mean = moments.total / moments.count
    return mean, (moments.products - moments.count * mean.outer(mean)) / (moments.count - 1)
