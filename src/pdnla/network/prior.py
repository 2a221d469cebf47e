"""Colours that a place's content lets expect, whatever the reference, and their weight in a result.

A reference under another light gives skin, grass or a sky another colour than they usually have, and a reference that
lacks them gives them a wrong one. The frozen network's features tell what a place shows, and photographs tell which
colours that has and how much they differ. Where two estimates of a colour have independent errors, their mean, weighted
by how reliable each is, is nearer to the truth than either.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.network.guide import HINTS, SHOWN, Expected, Guide
from pdnla.network.layers import CHROMA, at_least_float32, grey_lightness
from pdnla.network.smoothing import smooth_outliers

PLACE = 8
"""Side of the places that the prior looks at, in pixels at the size of colouring."""
WIDTH = 256
"""Width of the perceptron's layers."""
SIGNS = 6
"""Number of signs that decide on the weight."""
EXPECTED = 3
"""Channels of :func:`expected_hints`."""
_CHROMA, _SPREAD = 50.0, 10.0  # a* and b*, and their spread, are divided by these
_LEAST = 1.0  # least spread
_DROPPED = 0.3  # part of the hidden features dropped in training
_NONE = -12.0  # before training, log odds of the weight
_AROUND = 9  # side of the windows whose agreement counts, in places
_WINDOW = 17  # side of the windows in which expected colours follow luminance, in pixels at the size of colouring


class ColorPrior(nn.Module):
    """Expected colours of places with given features, and their weight beside transferred colours.

    A perceptron for each place: ``h = s(A x)``, twice ``h = h + s(B h)``, and ``C h``, with s the SiLU. x is the frozen
    network's maps at strides 8, 16 and 32, the mean of the last over the picture, and mean and standard deviation of
    L*/100. The loss is the negative log-likelihood of a Laplace-like distribution in a*b*,
    ``sqrt(|c - m|² + 1) / s + 2 log s`` (``scripts/train_prior.py``); the network that uses it does not train it.

    The weight is a logistic function of the confidence of the transferred colours, the cosine of the second opinion,
    its mean agreement around the place and over the picture, the logarithm of the spread, and the distance of expected
    and transferred colours.

    Args:
        width: of the perceptron's layers.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.taken = nn.Linear(sum(SHOWN) + SHOWN[-1] + 2, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.given = nn.Linear(width, 3)
        self.trust = nn.Linear(SIGNS, 1)
        nn.init.zeros_(self.given.weight)
        nn.init.zeros_(self.given.bias)
        self.distrust()
        self.requires_grad_(False)

    def distrust(self) -> None:
        """Give expected colours no weight in results, as before training."""
        nn.init.zeros_(self.trust.weight)
        nn.init.constant_(self.trust.bias, _NONE)

    @property
    def trained(self) -> bool:
        """Whether it expects any colours."""
        return bool(self.given.weight.any())

    def forward(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Map features of places, ``(..., D)``, to expected a* and b*, ``(..., 2)``, and their spread, ``(..., 1)``."""
        x = F.silu(self.taken(places))
        for block in self.blocks:
            x = x + F.silu(block(self._dropped(x)))
        result = self.given(self._dropped(x))
        return _CHROMA * result[..., :2], _LEAST + F.softplus(result[..., 2:] + 3)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, _DROPPED, self.training and self.given.weight.requires_grad)

    def expected(self, target: Tensor, seen: tuple[Tensor, ...]) -> Expected:
        """Return the colours to expect in a grey picture.

        Args:
            target: ``(B, 3, H, W)`` in [-1, 1].
            seen: the frozen network's maps of it, see :attr:`Guide.seen <pdnla.network.guide.Guide.seen>`.
        """
        with torch.autocast(target.device.type, enabled=False):
            found = self(features_of(at_least_float32(target), tuple(map(at_least_float32, seen))))
        return Expected(*(x.permute(0, 3, 1, 2) for x in found))

    def pull(self, target: Tensor, guide: Guide, expected: Expected) -> Tensor:
        """Return the weight of the expected colours and their product with it, ``(B, 3, H, W)``; they follow luminance.

        Args:
            target: the grey picture at the size of colouring, ``(B, 3, H, W)`` in [-1, 1].
            guide: its guide.
            expected: the result of :meth:`expected` for both.
        """
        with torch.autocast(target.device.type, enabled=False):
            weight = torch.sigmoid(self.trust(signs(expected, guide)).permute(0, 3, 1, 2))
            both = F.interpolate(torch.cat([weight, expected.chroma], dim=1), target.shape[-2:], mode="bilinear")
            lightness = grey_lightness((at_least_float32(target[:, :1]) + 1) / 2)
            weight, chroma = both[:, :1], both[:, 1:]
            chroma = smooth_outliers(lightness, chroma, torch.full_like(weight, 1e-3), _WINDOW, rounds=1)
            return torch.cat([weight, weight * chroma], dim=1)


def features_of(target: Tensor, seen: tuple[Tensor, ...]) -> Tensor:
    """Return the features of a grey picture's places for :class:`ColorPrior`, ``(B, h, w, D)``.

    Args:
        target: ``(B, 3, H, W)`` in [-1, 1]; there are ``H / 8`` × ``W / 8`` places.
        seen: the frozen network's maps, with a mean square of 1 at each place, at strides 8, 16 and 32 of the picture
            that is matched.
    """
    fine, middle, coarse = seen
    lightness = grey_lightness((target[:, :1] + 1) / 2)
    size = (lightness.shape[-2] // PLACE, lightness.shape[-1] // PLACE)
    mean = F.avg_pool2d(lightness, PLACE)
    deviation = (F.avg_pool2d(lightness.square(), PLACE) - mean.square()).clamp(min=0).sqrt()
    whole = 2 * coarse.mean(dim=(2, 3), keepdim=True).expand(-1, -1, *size)
    levels = [F.interpolate(fine, size, mode="bilinear", align_corners=False, antialias=fine.shape[-1] > size[1])]
    levels += [F.interpolate(level, size, mode="bilinear", align_corners=False) for level in (middle, coarse)]
    return torch.cat([*levels, whole, 2 * mean - 1, 2 * deviation - 1], dim=1).permute(0, 2, 3, 1)


def expected_hints(expected: Expected, size: tuple[int, int]) -> Tensor:
    """Return expected a* and b* over 100 and the logarithm of a tenth of their spread, ``(B, EXPECTED, *size)``."""
    found = torch.cat([expected.chroma / CHROMA, (expected.spread / _SPREAD).log()], dim=1)
    return F.interpolate(found, size, mode="bilinear", align_corners=False)


def signs(expected: Expected, guide: Guide) -> Tensor:
    """Return the signs that decide on the weight of expected colours, ``(B, h, w, SIGNS)``; see :class:`ColorPrior`."""
    assert guide.hints.shape[1] == HINTS
    size = (expected.chroma.shape[-2], expected.chroma.shape[-1])
    hints = F.adaptive_avg_pool2d(at_least_float32(guide.hints), size)
    local = F.avg_pool2d(hints[:, -1:], _AROUND, 1, _AROUND // 2, count_include_pad=False)
    agreement = hints[:, -1:].mean(dim=(2, 3), keepdim=True).expand_as(local)
    carried = F.adaptive_avg_pool2d(at_least_float32(guide.chroma), size)
    distance = (carried - expected.chroma).square().sum(dim=1, keepdim=True).sqrt() / _SPREAD
    found = [hints[:, 2:3], hints[:, 5:6], local, agreement, (expected.spread / _SPREAD).log(), distance]
    return torch.cat(found, dim=1).permute(0, 2, 3, 1)
