"""Exponential moving average of the weights, which is validated and published."""

import copy

import torch
from torch import nn


def averaged_copy(network: nn.Module) -> nn.Module:
    """Return a copy of ``network`` in eval mode without gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def warmed_decay(decay: float, updates: int) -> float:
    """Return the decay after a number of updates: ``min(decay, (1 + updates) / (10 + updates))``.

    This usual warm-up keeps the random initial weights out of the average.
    """
    return min(decay, (1 + updates) / (10 + updates))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average towards the weights: ``average = decay * average + (1 - decay) * weights``."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(current)
