"""The Fréchet distance between sets of pictures, and the feature vectors that it compares."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdnla.evaluation.downloads import short_timeout


def mean_features(features: Sequence[Tensor]) -> Tensor:
    """Return the spatial mean of a picture's coarsest feature map, ``(320,)`` for EfficientNet-Lite0."""
    return features[-1].mean(dim=(2, 3))[0]


def inception(picture: Tensor) -> Tensor:
    """Return the feature vector of FID, ``(2048,)`` from Inception, for a picture in [0, 1], ``(1, 3, H, W)``."""
    features: Tensor = load_inception().to(picture.device)(picture.mul(255).round().to(torch.uint8))
    return features.flatten()


@functools.cache
def load_inception() -> Any:
    """Return torchmetrics' Inception network with torch-fidelity's weights, which are downloaded."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    with short_timeout():
        return FrechetInceptionDistance(feature=2048).inception


@dataclass
class Moments:
    """Sums over the feature vectors of a set of pictures, which can be added up over processes.

    Attributes:
        count: number of vectors.
        total: their sum, ``(D,)`` in float64.
        products: the sum of their outer products, ``(D, D)`` in float64.
    """

    count: int
    total: Tensor
    products: Tensor

    @classmethod
    def of(cls, vector: Tensor) -> "Moments":
        """Return the moments of a single vector, ``(D,)``."""
        vector = vector.double().cpu()
        return cls(1, vector, vector.outer(vector))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)


def frechet_distance(results: Moments, goal: Moments) -> float | None:
    """Return the Fréchet distance between the normal distributions with the moments of two sets.

    ``|m - m'|² + tr(S + S' - 2 sqrt(S S'))`` (Heusel et al., NeurIPS 2017, the distance of FID). Sets with
    fewer pictures than features rank methods poorly.

    Returns:
        The distance, or None if a set has fewer than two pictures.
    """
    if results.count < 2 or goal.count < 2:
        return None
    (mean, covariance), (other_mean, other_covariance) = (_normal(moments) for moments in (results, goal))
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * cross
    return max(0.0, float(distance))


def _normal(moments: Moments) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased covariance."""
    mean = moments.total / moments.count
    return mean, (moments.products - moments.count * mean.outer(mean)) / (moments.count - 1)
