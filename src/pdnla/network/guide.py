"""Input from a frozen network: carried-over colours, signs of how reliable they are, and the target's content.

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
_CHROMA = 100.0  # a* and b* over this are about as large as the network's other inputs
_SHARPNESS = 40.0  # of the second opinion's attention
_RETURN = 2.0  # cells (of 16 pixels) from home at which a round trip counts 0.6


class Opinion(NamedTuple):
    """Correspondence by meaning alone for each coarse cell of a target, ``(B, C, h, w)``.

    Attributes:
        chroma: a* and b* of the reference's places that show the same.
        cosine: how alike the likest of them is, ``(B, 1, h, w)``.
        agreement: whether its own likest place in the target is here, ``(B, 1, h, w)`` in [0, 1].
    """

    chroma: Tensor
    cosine: Tensor
    agreement: Tensor


class Guide(NamedTuple):
    """The network's input besides target and reference.

    Attributes:
        chroma: the carried-over a* and b*, ``(B, 2, H, W)``, in CIELAB's units.
        hints: those and the second opinion's, in hundreds; confidence, cosine and agreement: ``(B, HINTS, H, W)``.
        seen: the backbone's features of the target, each place's of unit mean square, at strides 4, 8 and 16 of H and
            W, from those of :data:`STRIDES` (which have more pixels to see the picture by).
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
        backbone: as :class:`~pdnla.network.correspondence.Correspondence`'s, with maps at strides 4, 8, 16 and 32.
        side: as :class:`~pdnla.network.correspondence.Correspondence`'s.
        metric: as :class:`~pdnla.network.correspondence.Correspondence`'s.
    """

    def __init__(self, backbone: nn.Module, side: int = SIDE, metric: Metric | None = None) -> None:
        super().__init__()
        self.correspondence = Correspondence(backbone, side, metric)

    def encode_reference(self, reference: Tensor) -> ReferenceSpots:
        """Compute all that depends on the reference alone, sRGB ``(B, 3, H, W)`` in [-1, 1]."""
        spots: ReferenceSpots = self.correspondence.encode_reference(reference)
        return spots

    def forward(self, target: Tensor, reference: Tensor | ReferenceSpots, size: tuple[int, int]) -> Guide:
        """Return the guide of a target, at another size than its own if need be.

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
        """Do what :meth:`forward` does and return the transferred colours at the target's own size too."""
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
    """Put together what was computed of a whole picture, at the size of ``carried``: see :class:`Guide`."""
    size = carried.chroma.shape[-2:]
    told = torch.cat([opinion.chroma / _CHROMA, opinion.cosine, opinion.agreement], dim=1)
    told = F.interpolate(told, size, mode="bilinear", align_corners=False)
    levels = tuple(
        F.interpolate(level, (size[0] // stride, size[1] // stride), mode="bilinear", align_corners=False)
        for level, stride in zip(seen, (4, 8, 16), strict=True)
    )
    return Guide(carried.chroma, torch.cat([carried.chroma / _CHROMA, carried.confidence, told], dim=1), levels)


def shown(seen: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the maps that the network is shown, at every place of unit mean square over the channels."""
    return tuple(F.normalize(level, dim=1) * math.sqrt(level.shape[1]) for level in seen[-len(STRIDES) :])


@torch.no_grad()
def second_opinion(seen: tuple[Tensor, ...], reference: ReferenceSpots) -> Opinion:
    """Carry colours over by meaning alone: by the two coarsest maps, to cells of 16 pixels.

    A softmax of ``40 * cosine`` over all of the reference's cells, whatever their luminance.

    Args:
        seen: the backbone's maps of the target.
        reference: what correspondence knows of the reference.
    """
    deep = [level - level.mean(dim=(2, 3), keepdim=True) for level in seen[-2:]]
    grid = deep[0].shape[-2:]
    queries = torch.cat([F.normalize(_at(level, grid), dim=1) for level in deep], dim=1).flatten(2).transpose(1, 2)
    channels = [level.shape[1] for level in deep]
    keys = reference.plain[..., -sum(channels) :].split(channels, dim=-1)
    keys_of_all = torch.cat([F.normalize(part, dim=-1) for part in keys], dim=-1)
    colours = reference.spots[..., -2:].mean(dim=2)
    rows = zip(queries, keys_of_all.expand(len(queries), -1, -1), colours.expand(len(queries), -1, -1), strict=True)
    places = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij"), dim=-1).flatten(0, 1)
    results = []
    for query, key, colour in rows:
        cosines = query @ key.T / 2  # (cells of the target, of the reference)
        best = cosines.max(dim=1)
        home = places.to(cosines.device, cosines.dtype)
        away = home[cosines.argmax(dim=0)[best.indices]] - home
        agreement = torch.exp(-away.square().sum(dim=1) / (2 * _RETURN**2))
        chroma = (_SHARPNESS * cosines).softmax(dim=1) @ colour
        results.append(torch.cat([chroma, best.values[:, None], agreement[:, None]], dim=1))
    told = torch.stack(results).transpose(1, 2).unflatten(2, grid)
    return Opinion(told[:, :2], told[:, 2:3], told[:, 3:])


def _at(level: Tensor, grid: torch.Size) -> Tensor:
    return level if level.shape[-2:] == grid else F.interpolate(level, grid, mode="bilinear", align_corners=False)
