"""Editing: change the colours of a result without running the network again."""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pdnla.backbones import load_backbone
from pdnla.errors import UserError
from pdnla.fast import accelerate
from pdnla.images.io import Picture, picture_from_pil
from pdnla.images.sixteen_bits import Pixels
from pdnla.inference.chroma_upscaling import ChromaPlane
from pdnla.inference.colorizer import Colorizer, WorkingColours
from pdnla.inference.correcting import REACH, Corrected, Correction, check_point, correct, match_spots, spot_at
from pdnla.inference.preprocessing import network_input
from pdnla.network.correspondence import (
    CELL,
    FINE,
    SIDE,
    Correspondence,
    ReferenceSpots,
    View,
    join_spots,
)
from pdnla.network.smoothing import guided_filter

_SURE = 0.5  # confidence at and above which correspondence counts as certain
_FADING = (0.3, 1.7)  # exponents of the strength where correspondence is certain and where it is least certain


class Source(NamedTuple):
    """The origin of a point's colour.

    Attributes:
        number: index of the reference, from 0.
        x: the place in the reference, in [0, 1] from the left.
        y: the same from the top.
        similarity: cosine of the two places in the features of the frozen backbone, in [0, 1].
        corrected: whether the colour comes from a correction.
    """

    number: int
    x: float
    y: float
    similarity: float
    corrected: bool = False


class Adjustment(NamedTuple):
    """An adjustment of the colours of a result.

    Attributes:
        saturation: factor on a* and b*; 1 does not change them.
        strength: share of the new colours, in [0, 1]. Below 1, they are blended with the target's own tint, and the
            colours that correspondence is least certain of fade first.
    """

    saturation: float = 1.0
    strength: float = 1.0


class _Seen(NamedTuple):
    """A reference as semantic correspondence uses it."""

    view: View
    code: ReferenceSpots


class Editor:
    """A coloured picture whose colours can be changed without running the network again.

    >>> editor = Editor(colorizer, target, [reference])
    >>> editor.image()                                      # the same as colorizer(target, reference)
    >>> editor.source(0.4, 0.6)                             # the place in the reference that this colour comes from
    >>> editor.correct((0.4, 0.6), (0.1, 0.8))              # the first region takes its colours from the second
    >>> editor.image(Adjustment(saturation=1.2))
    >>> editor.undo()

    Args:
        colorizer: the colorizer to use.
        target: the picture to colour.
        references: pictures in colour; corrections can take colours from each of them. The editor keeps them at the
            network's size only.
        main: index of the reference that colours the picture; None for all of them, as with
            :meth:`Colorizer.set_references`.
        side: see :class:`~pdnla.network.correspondence.Correspondence`.

    Raises:
        UserError: see :meth:`Colorizer.colorize`.
    """

    def __init__(
        self,
        colorizer: Colorizer,
        target: Image.Image | Picture,
        references: Iterable[Image.Image | Picture],
        main: int | None = 0,
        side: int = SIDE,
    ) -> None:
        self.target = target if isinstance(target, Picture) else picture_from_pil(target)
        self.main = main
        self.corrections: list[Correction] = []
        self._colorizer = colorizer
        self._device = colorizer.device
        self._side = side
        self._references: list[Tensor] = []
        encoded = []
        working: WorkingColours | None = None
        for number, reference in enumerate(references):
            picture = reference if isinstance(reference, Picture) else picture_from_pil(reference)
            if main is None:
                encoded.append(colorizer.encode(picture))
            elif number == main:
                working = colorizer.working_colours(self.target, picture)
            self._references.append(self._input(picture, grey=False))
        if encoded:
            colorizer.use(encoded)
            working = colorizer.working_colours(self.target)
        if working is None:
            raise ValueError(f"main is {main}, and there are {len(self._references)} references")
        self._working = working
        self._corrected: list[Corrected] = []
        self._references_seen: dict[int, _Seen] = {}

    def image(self, adjustment: Adjustment | None = None, size: tuple[int, int] | None = None) -> Image.Image:
        """Return the result, as :meth:`Colorizer.colorize` does.

        Args:
            adjustment: saturation and strength; None does not change the colours.
            size: width and height of a smaller preview; None for the target's own size.
        """
        target = self.target
        if size is not None and size != target.size:
            alpha = None if target.alpha is None else target.alpha.resize(size)
            target = Picture(target.resized(size).colour, alpha)
        return self._colorizer.paint(target, self._plane(adjustment or Adjustment(), target.size))

    def image_16_bits(self, adjustment: Adjustment | None = None) -> Pixels:
        """Return the result in 16 bits, as :meth:`Colorizer.colorize_16_bits` does."""
        return self._colorizer.paint_16_bits(self.target, self._plane(adjustment or Adjustment(), self.target.size))

    def correct(
        self,
        target: tuple[float, float],
        reference: tuple[float, float],
        number: int | None = None,
        reach: float = REACH,
    ) -> None:
        """Colour the region around a point of the target like the region around a point of a reference.

        The rest of the picture does not change. A later correction covers earlier ones where they overlap.

        Args:
            target: x and y in [0, 1] of the point that has the wrong colour.
            reference: x and y in [0, 1] of the point that has the right colour.
            number: index of the reference; None for the main one, or for the first one if all colour the picture.
            reach: see :class:`~pdnla.inference.correcting.Correction`.

        Raises:
            UserError: a point is outside its picture, there is no such reference, or the reach is not above 0.
        """
        number = (self.main or 0) if number is None else number
        if not 0 <= number < len(self._references):
            count = len(self._references)
            raise UserError(f"reference {number}: there are {count}; give a number from 0 to {count - 1}")
        correction = Correction(target, reference, number, reach)
        seen = self._seen(correction.number)
        with torch.inference_mode():
            corrected = correct(self._correspondence, self._view, seen.view, seen.code, correction)
        self.corrections.append(correction)
        self._corrected.append(corrected)

    def undo(self) -> Correction | None:
        """Undo the last correction and return it; None if there is none."""
        if not self.corrections:
            return None
        self._corrected.pop()
        return self.corrections.pop()

    def source(self, x: float, y: float) -> Source:
        """Return the place that the colour of a point comes from.

        Semantic correspondence finds this place. A trained network may have used other places too.

        Args:
            x: in [0, 1] from the left.
            y: in [0, 1] from the top.

        Raises:
            UserError: the point is outside the picture.
        """
        check_point((x, y))
        rows, columns = (side * CELL // FINE for side in self._view.grid)
        row, column = spot_at((x, y), rows, columns)
        for correction, corrected in zip(reversed(self.corrections), reversed(self._corrected), strict=True):
            if float(corrected.weight[0, 0, row, column]) > 0.5:
                place = corrected.places[0, :, row, column].tolist()
                return Source(
                    correction.number, place[0], place[1], float(corrected.similarity[0, 0, row, column]), True
                )
        per_cell = CELL // FINE
        cell = torch.tensor([row // per_cell * self._view.grid[1] + column // per_cell], device=self._device)
        numbers = self._given
        grids = [self._seen(number).view.grid for number in numbers]
        with torch.inference_mode():
            attention = self._correspondence.attention(self._view, cell, self._given_code)
            matched = match_spots(attention, self._given_code, grids)
        spot = row % per_cell * per_cell + column % per_cell
        place = matched.places[0, spot].tolist()
        return Source(numbers[int(matched.numbers[0, spot])], place[0], place[1], float(matched.similarity[0, spot]))

    @property
    def _given(self) -> list[int]:
        """Indices of the references that colour the picture."""
        return list(range(len(self._references))) if self.main is None else [self.main]

    @functools.cached_property
    def _given_code(self) -> ReferenceSpots:
        with torch.inference_mode():
            return join_spots([self._seen(number).code for number in self._given])

    def _plane(self, adjustment: Adjustment, size: tuple[int, int]) -> ChromaPlane:
        """Return the adjusted chroma for a picture of ``size``, width and height."""
        lightness, chroma = self._working
        with torch.inference_mode():
            confidence = None
            if adjustment.strength < 1:
                confidence = (self._confidence / _SURE).clamp(0, 1)
            for corrected in self._corrected:
                weight = _at_full_size(corrected.weight, lightness)
                ours = functional.interpolate(corrected.chroma, chroma.shape[-2:], mode="bilinear", align_corners=False)
                chroma = torch.where(weight > 0, torch.lerp(chroma, ours, weight), chroma)
                confidence = None if confidence is None else torch.maximum(confidence, weight)
            chroma = chroma * adjustment.saturation
            if confidence is None:
                return ChromaPlane.fit(lightness, chroma, size)
            exponent = _FADING[1] + (_FADING[0] - _FADING[1]) * confidence
            share = max(adjustment.strength, 0.0) ** exponent
            return ChromaPlane.fit(lightness, torch.cat([chroma * share, 1 - share], dim=1), size)

    @functools.cached_property
    def _correspondence(self) -> Correspondence:
        own = getattr(self._colorizer.network, "correspondence", None)
        return accelerate(Correspondence(load_backbone(), self._side, getattr(own, "metric", None)))

    @functools.cached_property
    def _view(self) -> View:
        with torch.inference_mode():
            return self._correspondence.view(self._input(self.target, grey=True))

    @functools.cached_property
    def _confidence(self) -> Tensor:
        with torch.inference_mode():
            return self._correspondence(self._input(self.target, grey=True), self._given_code).confidence

    def _seen(self, number: int) -> _Seen:
        if number not in self._references_seen:
            picture = self._references[number]
            with torch.inference_mode():
                seen = _Seen(*self._correspondence.view_and_spots(picture))
            self._references_seen[number] = seen
        return self._references_seen[number]

    def _input(self, picture: Picture, grey: bool) -> Tensor:
        return network_input(picture, self._colorizer.size, grey=grey).to(self._device) * 2 - 1


def _at_full_size(weight: Tensor, lightness: Tensor) -> Tensor:
    """Upscale a region's weights along edges to the size of L*, ``(1, 1, h, w)``; they stay 0 outside the region."""
    weight = functional.interpolate(weight, lightness.shape[-2:], mode="bilinear", align_corners=False)
    filtered = guided_filter(lightness / 100, weight).clamp(0, 1)
    return torch.where(weight > 0, filtered, 0.0)
