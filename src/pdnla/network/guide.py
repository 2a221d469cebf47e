"""Input from a frozen network: transferred colours, signs of how reliable they are, and the target's content.

Correspondence (:mod:`pdnla.network.correspondence`) uses meaning, luminance and texture. It is sharp, and so are its
errors. A second opinion uses only meaning, over regions; it is blurred and rarely far wrong. A network with both, the
content of each place and signs of error as input can learn which to follow, or neither.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.network.correspondence import SIDE, Carried, Correspondence, Metric, Opinion, ReferenceSpots
from pdnla.network.layers import CHROMA

STRIDES = (8, 16, 32)
"""Strides of the backbone's maps that the network gets."""
SHOWN = (40, 112, 320)
"""Their channels, EfficientNet-Lite0's."""
HINTS = 7
"""Channels of :attr:`Guide.hints`."""


class Expected(NamedTuple):
    """Colours to expect at each place, whatever the reference.

    Attributes:
        chroma: a* and b*, ``(B, 2, h, w)``.
        spread: how far colours are from it on average, as a distance in a*b*, ``(B, 1, h, w)``.
    """

    chroma: Tensor
    spread: Tensor


class Guide(NamedTuple):
    """The network's input besides target and reference.

    Attributes:
        chroma: the transferred a* and b*, ``(B, 2, H, W)``, in CIELAB's units.
        hints: the transferred a* and b* over 100 and their confidence; the second opinion's a* and b* over 100, cosine
            and agreement: ``(B, HINTS, H, W)``.
        seen: the backbone's features of the target, with a mean square of 1 at each place, at 1/4, 1/8 and 1/16 of H
            and W. They are resized from the maps at :data:`STRIDES` of the larger picture that is matched.
        expected: colours to expect, in training, of a prior that has not seen the target; None: those of the network's
            own prior, if it has one.
        difference: by how much the target's L*/100 differs from that of the reference's most similar places,
            ``(B, 1, H, W)``, see :class:`~pdnla.network.correspondence.Opinion`; None: it is not known.
    """

    chroma: Tensor
    hints: Tensor
    seen: tuple[Tensor, ...]
    expected: Expected | None = None
    difference: Tensor | None = None

    def rows(self, which: Tensor) -> "Guide":
        """Return some of the batch."""
        expected = None if self.expected is None else Expected(*(x[which] for x in self.expected))
        difference = None if self.difference is None else self.difference[which]
        seen = tuple(level[which] for level in self.seen)
        return Guide(self.chroma[which], self.hints[which], seen, expected, difference)


class Guidance(nn.Module):
    """Make a :class:`Guide` of a target and a reference.

    Args:
        backbone: see :class:`~pdnla.network.correspondence.Correspondence`; with maps at strides 4, 8, 16 and 32.
        side: see :class:`~pdnla.network.correspondence.Correspondence`.
        metric: see :class:`~pdnla.network.correspondence.Correspondence`.
    """

    def __init__(self, backbone: nn.Module, side: int = SIDE, metric: Metric | None = None) -> None:
        super().__init__()
        self.correspondence = Correspondence(backbone, side, metric)

    def encode_reference(self, reference: Tensor) -> ReferenceSpots:
        """Compute all that depends only on the reference, sRGB ``(B, 3, H, W)`` in [-1, 1]."""
        spots: ReferenceSpots = self.correspondence.encode_reference(reference)
        return spots

    def forward(self, target: Tensor, reference: Tensor | ReferenceSpots, size: tuple[int, int]) -> Guide:
        """Return the guide of a target at a given size.

        Args:
            target: grey, ``(B, 3, H, W)`` in [-1, 1].
            reference: in colour, ``(B, 3, H', W')`` in [-1, 1], or its code; one serves a batch.
            size: height and width of the guide, multiples of 16.
        """
        return self.with_carried(target, reference, size)[0]

    @torch.no_grad()
    def with_carried(
        self, target: Tensor, reference: Tensor | ReferenceSpots, size: tuple[int, int]
    ) -> tuple[Guide, Carried]:
        """Return the result of :meth:`forward`, and the transferred colours at the target's own size."""
        spots = reference if isinstance(reference, ReferenceSpots) else self.encode_reference(reference)
        carried, maps, opinion = self.correspondence.match(target, spots)
        seen = shown(maps)
        resized = carried
        if carried.chroma.shape[-2:] != size:
            both = torch.cat([carried.chroma, carried.confidence], dim=1)
            both = F.interpolate(both, size, mode="bilinear", align_corners=False, antialias=True)
            resized = Carried(both[:, :2], both[:, 2:])
        return guide(resized, opinion, seen), carried


def guide(carried: Carried, opinion: Opinion, seen: tuple[Tensor, ...]) -> Guide:
    """Return a :class:`Guide` at the size of ``carried``."""
    size = carried.chroma.shape[-2:]
    second = F.interpolate(torch.cat(opinion, dim=1), size, mode="bilinear", align_corners=False)
    levels = tuple(
        F.interpolate(level, (size[0] // stride, size[1] // stride), mode="bilinear", align_corners=False)
        for level, stride in zip(seen, (4, 8, 16), strict=True)
    )
    return Guide(carried.chroma, hints_of(carried, second), levels, difference=second[:, 4:])


def hints_of(carried: Carried, opinion: Tensor) -> Tensor:
    """Return :attr:`Guide.hints`.

    Args:
        carried: the transferred colours.
        opinion: the second opinion's a*, b*, cosine, agreement and further channels at the same size,
            ``(B, 4 or more, H, W)``.
    """
    return torch.cat([carried.chroma / CHROMA, carried.confidence, opinion[:, :2] / CHROMA, opinion[:, 2:4]], dim=1)


def shown(seen: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return those of the backbone's maps that the network gets, scaled to a mean square of 1 at each place."""
    return tuple(F.normalize(level, dim=1) * math.sqrt(level.shape[1]) for level in seen[-len(STRIDES) :])
