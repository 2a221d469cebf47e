"""Measures of a frozen network's features, and LPIPS.

Features are the maps of one picture, each ``(1, C, H, W)``, fine to coarse.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pdnla.evaluation.downloads import short_timeout
from pdnla.losses.contextual import contextual_similarity

CONTEXTUAL_LEVELS = (1, 2)
"""Indices of the backbone's feature maps whose contextual similarities are averaged: strides 8 and 16."""


def perceptual_distance(features: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Return LPIPS' distance (Zhang et al., CVPR 2018) on given features, without its learned weights.

    It is the squared distance between features of unit length at every position, averaged over positions and then over
    layers, in [0, 4].

    Args:
        features: the features of the result.
        truth: the features of the truth.
    """
    pairs = zip(features, truth, strict=True)
    layers = [(functional.normalize(x, dim=1) - functional.normalize(y, dim=1)).square().sum(dim=1) for x, y in pairs]
    return torch.stack([layer.mean() for layer in layers]).mean()


def contextual(features: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
    """Return the mean contextual similarity of feature maps at strides 8 and 16, in (0, 1]."""
    levels = [contextual_similarity(features[level], reference[level]) for level in CONTEXTUAL_LEVELS]
    return torch.stack(levels).mean()


def lpips(result: Tensor, truth: Tensor) -> Tensor:
    """Return LPIPS with AlexNet of two pictures in [0, 1], ``(1, 3, H, W)``."""
    network = load_lpips().to(result.device)
    distance: Tensor = network(result, truth)
    network.reset()
    return distance


@functools.cache
def load_lpips() -> Any:
    """Return torchmetrics' LPIPS, whose weights are downloaded."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    with short_timeout():
        return LearnedPerceptualImagePatchSimilarity("alex", normalize=True)
