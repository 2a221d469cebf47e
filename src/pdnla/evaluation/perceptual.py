"""Measures that a frozen network's features give, and LPIPS.

Features are maps of one picture, ``(1, C, H, W)`` each, fine to coarse.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pdnla.evaluation.downloads import impatient
from pdnla.losses.contextual import contextual_similarity

CONTEXTUAL_LEVELS = (1, 2)
"""Of the backbone's feature maps, those whose contextual similarities are averaged: strides 8 and 16."""


def perceptual_distance(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Return LPIPS' distance (Zhang et al., CVPR 2018) on given features, without its learned weights.

    The squared distance of features normalised to unit length at every position, its mean over positions, the mean of
    these over layers: in [0, 4].

    Args:
        features: of one picture.
        wanted: of the other.
    """
    pairs = zip(features, wanted, strict=True)
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
    """Return torchmetrics' LPIPS, whose weights it downloads."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    with impatient():
        return LearnedPerceptualImagePatchSimilarity("alex", normalize=True)
