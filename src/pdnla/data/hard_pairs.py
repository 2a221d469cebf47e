"""Pairs with a known truth, in which correspondence makes the mistakes that it makes between photographs.

The matches of a warped copy of a photograph are nearly always right, and a network that sees nothing else learns that
transferred colours are right. Here parts of the reference are missing, distractors are next to it, or it is another
photograph of the same kind of thing, recoloured so that the truth is known; and it may be exposed or lit differently,
noisy, compressed or faded. A tenth of the references are nearly the target itself: correct matches should not be
changed.
"""

import io
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import kornia.color
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pdnla.data.held_out import person
from pdnla.data.pseudo_pairs import INNER_POINTS, warp
from pdnla.errors import UserError
from pdnla.images import color
from pdnla.images.greys import open_colour
from pdnla.network import STRIDE
from pdnla.network.informed import INNER

KINDS: Mapping[str, float] = {
    "close": 0.10,  # nearly the same picture, as the frames of a film are
    "warped": 0.18,  # a warped copy, cut and mirrored
    "partial": 0.22,  # a warped copy, a third to two thirds of it replaced by another photograph
    "side_by_side": 0.10,  # side by side with another photograph
    "class": 0.18,  # another photograph of the class, recoloured by the truth
    "person": 0.08,  # another photograph of the same person, in its own colours
    "place": 0.05,  # another photograph of the same place, in its own colours
    "likeness": 0.07,  # another photograph of the class, in its own colours
    "unrelated": 0.07,  # any other photograph
}
"""The share of each kind of reference."""
FOLLOWED = ("close", "warped", "side_by_side", "class")
"""Kinds whose reference has all of the truth's colours, so that both may be recoloured in the same way."""
SIDE = INNER
"""Pictures are resized to about this many pixels squared; their sides are multiples of 16."""
MISSING = (1 / 3, 2 / 3)
"""The part of a partial reference that is replaced."""
_CLASS = 150.0  # photographs that a class counts as, at most
_SINGLE = 3.0  # times that a photograph without others of its class counts
_LIGHT = 0.12  # deviation of the logarithms of other light's red and blue
_ATTEMPTS = 64

Carry = Callable[[Tensor, Tensor], Tensor]
"""Transfers a reference's colours to a grey target, sRGB in [-1, 1], ``(1, 3, H, W)``: a* and b*, ``(1, 2, H, W)``."""


class HardPair(NamedTuple):
    """A pair of whole pictures, sRGB in [0, 1], ``(3, H, W)``; the target is the truth's luminance."""

    truth: Tensor
    reference: Tensor
    kind: str


class HardPairs:
    """Makes pairs of photographs; pair ``i`` depends only on the photographs, the seed and ``i``.

    Args:
        photographs: to train on. Those of one folder are of one class, unless it holds no other.
        carry: recolours references of the kind ``class``.
        seed: seed of all randomness.
        kinds: the share of each kind; where a photograph has no partner for its kind, it is ``partial``.
        places: folders of folders, each of which holds photographs of one place, for the kind ``place``.

    Raises:
        UserError: there are fewer than two photographs.
    """

    def __init__(
        self,
        photographs: Sequence[Path],
        carry: Carry,
        seed: int,
        kinds: Mapping[str, float] = KINDS,
        places: Sequence[Path] = (),
    ) -> None:
        if len(photographs) < 2:
            raise UserError("pairs are made of at least two photographs; name a folder of more")
        self.photographs, self.carry, self.seed = list(photographs), carry, seed
        self.kinds = dict(kinds)
        self.classes: dict[Path, list[int]] = defaultdict(list)
        self.people: dict[tuple[Path, range], list[int]] = defaultdict(list)
        for index, path in enumerate(self.photographs):
            self.classes[path.parent].append(index)
            if (run := person(path)) is not None:
                self.people[path.parent, run].append(index)
        sizes = [len(self.classes[path.parent]) for path in self.photographs]
        weights = np.array([min(n, _CLASS) / n if n > 1 else _SINGLE for n in sizes])
        self._chances = weights / weights.sum()
        faces = (people for people in self.people.values() if len(people) > 1)
        there = (found for folder, found in self.classes.items() if folder.parent in places and len(found) > 1)
        self._of_kind = {"person": sorted(chain(*faces)), "place": sorted(chain(*there))}

    def __getitem__(self, index: int) -> HardPair:
        """Make a pair.

        Raises:
            UserError: photograph after photograph is grey or unreadable.
        """
        rng = np.random.default_rng([self.seed, index])
        shares = np.array(list(self.kinds.values()))
        kind = str(rng.choice(list(self.kinds), p=shares / shares.sum()))
        if not self._of_kind.get(kind, True):
            kind = "partial"
        for _ in range(_ATTEMPTS):
            own = int(
                rng.choice(self._of_kind[kind])
                if kind in self._of_kind
                else rng.choice(len(self._chances), p=self._chances)
            )
            picture = self._open(own)
            if picture is None:
                continue
            other, kind = self._partner(own, kind, rng)
            if other is None:
                continue
            truth = change_tone(view(picture, rng, 0.5), rng)
            reference = self._reference(kind, picture, truth, other, rng)
            return HardPair(truth, degrade(reference, rng), kind)
        raise UserError(f"{_ATTEMPTS} photographs in a row were grey or could not be read; choose others")

    def _open(self, index: int) -> Image.Image | None:
        try:
            return open_colour(self.photographs[index], SIDE)
        except UserError:
            return None

    def _partner(self, own: int, kind: str, rng: np.random.Generator) -> tuple[Image.Image | None, str]:
        """Return another photograph for a kind, and the kind, which is another where there is no such partner."""
        path = self.photographs[own]
        candidates: Sequence[int] = range(len(self.photographs))
        if kind == "person":
            run = person(path)
            assert run is not None
            candidates = self.people[path.parent, run]
        elif kind in ("class", "likeness", "place"):
            if len(self.classes[path.parent]) > 1:
                candidates = self.classes[path.parent]
            else:
                kind = "partial"
        chosen = int(candidates[int(rng.integers(len(candidates)))])
        return (None if chosen == own else self._open(chosen)), kind

    def _reference(
        self, kind: str, picture: Image.Image, truth: Tensor, other: Image.Image, rng: np.random.Generator
    ) -> Tensor:
        if kind in ("person", "place", "likeness", "unrelated"):
            return view(other, rng, 0.6)
        if kind == "class":
            return recolour(view(other, rng, 0.6), truth, self.carry)
        if kind == "close":
            return trim(truth, rng)
        own = warp_and_mirror(view(picture, rng, 0.6), rng)
        if kind == "warped":
            return own
        stranger = view(other, rng, 0.5)
        return replace_part(own, stranger, rng) if kind == "partial" else join(own, stranger, rng)


def to_float(rgb: Image.Image) -> Tensor:
    """Return a picture as sRGB in [0, 1], ``(3, H, W)``."""
    return torch.from_numpy(np.asarray(rgb, dtype=np.float32) / 255).permute(2, 0, 1).contiguous()


def view(rgb: Image.Image, rng: np.random.Generator, least: float) -> Tensor:
    """Cut at least the part ``least`` of both sides from anywhere; every third time, the whole picture.

    Returns:
        sRGB in [0, 1], of about :data:`SIDE` pixels squared.
    """
    part = 1.0 if rng.random() < 1 / 3 else rng.uniform(least, 1.0)
    width, height = (part * extent for extent in rgb.size)
    left, top = rng.uniform(0, rgb.width - width), rng.uniform(0, rgb.height - height)
    size = _working_size(width, height)
    cut = rgb.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height), reducing_gap=3.0)
    return to_float(cut)


def _working_size(width: float, height: float) -> tuple[int, int]:
    factor = SIDE / math.sqrt(width * height)
    return tuple(max(1, round(side * factor / STRIDE)) * STRIDE for side in (width, height))  # type: ignore[return-value]


def change_tone(truth: Tensor, rng: np.random.Generator) -> Tensor:
    """Change the tones of every third truth: L* to a power from 0.7 to 1.4, and grain; keep the chroma."""
    if rng.random() > 1 / 3:
        return truth
    lab = color.rgb_to_lab(truth)
    lightness = 100 * (lab[:1] / 100).clamp(0, 1) ** (2.0 ** float(rng.uniform(-0.5, 0.5)))
    if rng.random() < 0.5:
        lightness = lightness + float(rng.uniform(0, 4)) * _normal(lightness.shape, rng)
    return color.lab_to_rgb(torch.cat([lightness.clamp(0, 100), lab[1:]]))


def trim(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """Cut off up to a tenth of both sides of a picture, and resize the rest to the picture's size."""
    height, width = picture.shape[-2:]
    h, w = (round(side * (1 - float(rng.uniform(0, 0.1)))) for side in (height, width))
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    part = picture[None, :, top : top + h, left : left + w]
    return torch.nn.functional.interpolate(part, (height, width), mode="bilinear", align_corners=False)[0]


def warp_and_mirror(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """Warp a picture by a thin-plate spline and mirror every other one."""
    offsets = torch.from_numpy(rng.uniform(-0.5, 0.5, (1, INNER_POINTS, 2)).astype(np.float32)) * float(rng.random())
    result = warp(picture[None], offsets)[0]
    return result.flip(-1) if rng.random() < 0.5 else result


def replace_part(own: Tensor, other: Tensor, rng: np.random.Generator) -> Tensor:
    """Replace a third to two thirds of a picture by another picture: one side of a line, or rectangles."""
    height, width = own.shape[-2:]
    stranger = torch.nn.functional.interpolate(other[None], (height, width), mode="bilinear", antialias=True)[0]
    part = float(rng.uniform(*MISSING))
    rows, columns = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * math.pi)
        along = rows * math.sin(angle) + columns * math.cos(angle)
        mask = along < along.flatten().kthvalue(max(1, int(part * height * width))).values
    else:
        mask = torch.zeros(height, width, dtype=torch.bool)
        while mask.float().mean() < part:
            h, w = (int(rng.uniform(0.2, 0.6) * side) for side in (height, width))
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            mask[top : top + h, left : left + w] = True
    return torch.where(mask, stranger, own)


def join(own: Tensor, other: Tensor, rng: np.random.Generator) -> Tensor:
    """Put two pictures side by side or one below the other, either first, in about :data:`SIDE` squared."""
    axis = int(rng.integers(-2, 0))
    size = list(own.shape[-2:])
    size[axis] = round(size[axis] * float(rng.uniform(0.5, 1.5)))
    stranger = torch.nn.functional.interpolate(other[None], size, mode="bilinear", antialias=True)[0]
    both = torch.cat([own, stranger] if rng.random() < 0.5 else [stranger, own], dim=axis)
    width, height = _working_size(both.shape[-1], both.shape[-2])
    return torch.nn.functional.interpolate(both[None], (height, width), mode="bilinear", antialias=True)[0]


def recolour(picture: Tensor, truth: Tensor, carry: Carry) -> Tensor:
    """Give a picture the colours of the corresponding parts of a truth, as strong on average as the truth's.

    Correspondence between two photographs then has its real difficulties, and the truth is known.
    """
    lab = color.rgb_to_lab(picture)
    chroma = carry((color.grey(picture) * 2 - 1)[None], (truth * 2 - 1)[None])[0]
    strength = color.rgb_to_lab(truth)[1:].square().mean().sqrt() / chroma.square().mean().sqrt().clamp(min=0.5)
    return color.lab_to_rgb(torch.cat([lab[:1], chroma * strength.clamp(0.8, 1.6)]))


def degrade(reference: Tensor, rng: np.random.Generator) -> Tensor:
    """Change a reference's light and exposure, fade and tint it, add grain, compress it: each with a probability."""
    if rng.random() < 0.3:
        reference = other_light(reference, rng)
    if rng.random() < 0.4:
        reference = (reference ** (2.0 ** float(rng.uniform(-0.7, 0.7))) * float(rng.uniform(0.8, 1.15))).clamp(0, 1)
    if rng.random() < 0.12:
        lab = color.rgb_to_lab(reference)
        tint = torch.from_numpy(rng.normal(0, 4, (2, 1, 1)).astype(np.float32))
        reference = color.lab_to_rgb(torch.cat([lab[:1], lab[1:] * float(rng.uniform(0.5, 0.9)) + tint]))
    if rng.random() < 0.3:
        reference = (reference + float(rng.uniform(0, 0.08)) * _normal(reference.shape, rng)).clamp(0, 1)
    if rng.random() < 0.3:
        encoded = io.BytesIO()
        pixels = (reference * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(encoded, "JPEG", quality=int(rng.integers(25, 90)))
        reference = to_float(Image.open(encoded))
    return reference


def other_light(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """Light a picture in warmer or colder, greener or redder colours: factors of its linear red and blue."""
    red, blue = np.exp(rng.normal(0, _LIGHT, 2))
    factors = torch.tensor([red, 1.0, blue], dtype=torch.float32).view(3, 1, 1)
    linear = kornia.color.rgb_to_linear_rgb(picture[None]) * (factors / factors.mean())
    lit: Tensor = kornia.color.linear_rgb_to_rgb(linear.clamp(0, 1))[0]
    return lit


def _normal(shape: Sequence[int], rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))
