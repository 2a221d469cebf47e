"""Exponential moving average of the weights, which validates and is published."""

import copy

import torch
from torch import nn


def averaged_copy(network: nn.Module) -> nn.Module:
    """Return a copy of ``network`` in eval mode that takes no gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def warmed_decay(decay: float, updates: int) -> float:
    """Return the decay after so many updates: ``min(decay, (1 + updates) / (10 + updates))``.

    The usual warm-up, so that the average does not remember the random start.
    """
    return min(decay, (1 + updates) / (10 + updates))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average towards the weights: ``average = decay * average + (1 - decay) * weights``."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(current)
