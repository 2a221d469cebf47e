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

from pdnla.network.correspondence import SIDE, Carried, Correspondence, Metric, ReferenceSpots

STRIDES = (8, 16, 32)
"""Strides of the backbone's maps that the network gets."""
SHOWN = (40, 112, 320)
"""Their channels, EfficientNet-Lite0's."""
HINTS = 7
"""Channels of :attr:`Guide.hints`."""
_CHROMA = 100.0  # a* and b* divided by this are about as large as the network's other inputs
_SHARPNESS = 40.0  # of the second opinion's attention
_RETURN = 2.0  # distance, in cells of 16 pixels, between a cell and the end of its round trip, for an agreement of 0.6


class Opinion(NamedTuple):
    """Correspondence by meaning only, for each coarse cell of a target, ``(B, C, h, w)``.

    Attributes:
        chroma: a* and b* of the reference's places that show the same.
        cosine: similarity of the most similar of them, ``(B, 1, h, w)``.
        agreement: 1 where this place's most similar place in the target is the cell itself, less with their distance,
            ``(B, 1, h, w)`` in [0, 1].
    """

    chroma: Tensor
    cosine: Tensor
    agreement: Tensor


class Guide(NamedTuple):
    """The network's input besides target and reference.

    Attributes:
        chroma: the transferred a* and b*, ``(B, 2, H, W)``, in CIELAB's units.
        hints: the transferred a* and b* over 100 and their confidence; the second opinion's a* and b* over 100, cosine
            and agreement: ``(B, HINTS, H, W)``.
        seen: the backbone's features of the target, with a mean square of 1 at each place, at 1/4, 1/8 and 1/16 of H
            and W. They are resized from the maps at :data:`STRIDES` of the larger picture that is matched.
    """

    chroma: Tensor
    hints: Tensor
    seen: tuple[Tensor, ...]

    def rows(self, which: Tensor) -> "Guide":
        """Return some of the batch."""
        return Guide(self.chroma[which], self.hints[which], tuple(level[which] for level in self.seen))


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
        carried, maps = self.correspondence.with_maps(target, spots)
        opinion, seen = second_opinion(maps, spots), shown(maps)
        resized = carried
        if carried.chroma.shape[-2:] != size:
            both = torch.cat([carried.chroma, carried.confidence], dim=1)
            both = F.interpolate(both, size, mode="bilinear", align_corners=False, antialias=True)
            resized = Carried(both[:, :2], both[:, 2:])
        return guide(resized, opinion, seen), carried


def guide(carried: Carried, opinion: Opinion, seen: tuple[Tensor, ...]) -> Guide:
    """Return a :class:`Guide` at the size of ``carried``."""
    size = carried.chroma.shape[-2:]
    second = torch.cat([opinion.chroma / _CHROMA, opinion.cosine, opinion.agreement], dim=1)
    second = F.interpolate(second, size, mode="bilinear", align_corners=False)
    levels = tuple(
        F.interpolate(level, (size[0] // stride, size[1] // stride), mode="bilinear", align_corners=False)
        for level, stride in zip(seen, (4, 8, 16), strict=True)
    )
    return Guide(carried.chroma, torch.cat([carried.chroma / _CHROMA, carried.confidence, second], dim=1), levels)


def shown(seen: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return those of the backbone's maps that the network gets, scaled to a mean square of 1 at each place."""
    return tuple(F.normalize(level, dim=1) * math.sqrt(level.shape[1]) for level in seen[-len(STRIDES) :])


@torch.no_grad()
def second_opinion(seen: tuple[Tensor, ...], reference: ReferenceSpots) -> Opinion:
    """Transfer colours by meaning only: by the two coarsest maps, to cells of 16 pixels.

    The weights are a softmax of ``40 * cosine`` over all cells of the reference; luminance has no influence.

    Args:
        seen: the backbone's maps of the target.
        reference: the encoded reference of correspondence.
    """
    deep = [level - level.mean(dim=(2, 3), keepdim=True) for level in seen[-2:]]
    grid = deep[0].shape[-2:]
    queries = torch.cat([F.normalize(_at(level, grid), dim=1) for level in deep], dim=1).flatten(2).transpose(1, 2)
    channels = [level.shape[1] for level in deep]
    keys = reference.plain[..., -sum(channels) :].split(channels, dim=-1)
    cells = torch.cat([F.normalize(part, dim=-1) for part in keys], dim=-1)
    cosines = queries @ cells.transpose(1, 2) / 2  # (B, cells of the target, of the reference)
    best = cosines.max(dim=2)
    sides = (torch.arange(side, device=cosines.device, dtype=cosines.dtype) for side in grid)
    places = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).flatten(0, 1)
    returned = cosines.argmax(dim=1).gather(1, best.indices)  # the cell of the target at the end of each round trip
    distance = (places[returned] - places).square().sum(dim=2)
    agreement = torch.exp(-distance / (2 * _RETURN**2))
    chroma = (_SHARPNESS * cosines).softmax(dim=2) @ reference.spots[..., -2:].mean(dim=2)
    return Opinion(
        chroma.transpose(1, 2).unflatten(2, grid),
        best.values.unflatten(1, grid)[:, None],
        agreement.unflatten(1, grid)[:, None],
    )


def _at(level: Tensor, grid: torch.Size) -> Tensor:
    return level if level.shape[-2:] == grid else F.interpolate(level, grid, mode="bilinear", align_corners=False)
