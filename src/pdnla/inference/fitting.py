"""The fit of references to a target: the share of its content that they also show."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pdnla.backbones import load_backbone
from pdnla.network.correspondence import Correspondence, likeness

SIDE = 224
"""Pictures are compared at about the area of a square with this side; the size of matching leads to the same choice."""


class Fit:
    """Finds the reference that fits a target best, by the frozen network's features of luminance.

    Args:
        references: pictures, sRGB in [0, 1], ``(1, 3, H, W)`` each.
        device: the device.
    """

    def __init__(self, references: Sequence[Tensor], device: torch.device) -> None:
        self._correspondence = Correspondence(load_backbone(), SIDE)
        self._device = device
        self._cells = [self._describe(reference) for reference in references]

    def scores(self, target: Tensor) -> list[float]:
        """Return the mean best cosine of a target, ``(1, 3, H, W)`` in [0, 1], with each reference."""
        cells = self._describe(target)
        return [likeness(cells, reference) for reference in self._cells]

    def best(self, target: Tensor) -> int:
        """Return the number of the reference that fits a target, ``(1, 3, H, W)`` in [0, 1], best."""
        scores = self.scores(target)
        return max(range(len(scores)), key=scores.__getitem__)

    def _describe(self, picture: Tensor) -> Tensor:
        return self._correspondence.view(picture.to(self._device) * 2 - 1).cells[0]
