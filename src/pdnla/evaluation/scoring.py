"""Application of the table of measures to results."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pdnla.backbones import Backbone, load_backbone
from pdnla.evaluation.measures import MEASURES, Figures, Measure, measured


class MeasureInputs(NamedTuple):
    """The inputs of measures for one picture; see :class:`pdnla.evaluation.measures.Measure`.

    Attributes:
        picture: sRGB in [0, 1], ``(1, 3, H, W)``.
        reduced: the picture at a bounded size.
        features: a frozen network's feature maps of ``reduced``, fine to coarse.
    """

    picture: Tensor
    reduced: Tensor
    features: tuple[Tensor, ...]


class Scorer:
    """Measures results, with a frozen network loaded once.

    Args:
        device: the device.
        available: measures whose weights are not part of the package and are available.
        side: largest size of ``reduced``, about ``side``² pixels.
    """

    def __init__(self, device: torch.device, available: Collection[str] = (), side: int = 256) -> None:
        self.device, self.side = device, side
        self.backbone: Backbone = load_backbone().to(device)
        replaced = {MEASURES[name].stand_in for name in available}
        self.measures = [
            m for m in measured("evaluation") if (m.weights is None or m.name in available) and m.name not in replaced
        ]

    def view(self, picture: Tensor) -> MeasureInputs:
        """Return the inputs of measures for a picture, computed in float32 on the scorer's device."""
        reduced = self._reduced(picture).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            return MeasureInputs(picture, reduced, self.backbone(reduced * 2 - 1))

    def figures(
        self,
        result: MeasureInputs,
        target: MeasureInputs,
        reference: MeasureInputs,
        truth: MeasureInputs | None,
        regions: Mapping[str, Tensor] | None = None,
        distance: int | None = None,
    ) -> Figures:
        """Measure one result.

        Args:
            result: the result, at the target's size.
            target: the target; of a colour picture, its luminance.
            reference: the reference, of any size.
            truth: the truth at the target's size, or None.
            regions: parts of the target by name, bool ``(H, W)``.
            distance: how many frames after the reference the target comes, if it does.
        """
        others = {"truth": truth, "reference": reference, "target": target}
        figures: Figures = {}
        for measure in self._against("truth", "reference", "target"):
            if measure.frames is not None and not (distance and measure.frames[0] <= distance <= measure.frames[1]):
                continue
            other = others[measure.against]
            pair = None if other is None else _region(measure, result, other, regions or {})
            if pair is not None:
                figures[measure.name] = float(measure(*pair))
        return _finite(figures)

    def change(self, result: Tensor, target: Tensor, earlier: Sequence[tuple[Tensor, Tensor]]) -> Figures:
        """Measure the change of a result from those of the frames before.

        Args:
            result: the result.
            target: its target.
            earlier: results and targets of the frames before, the last one first.
        """
        before, target_before = earlier[0]
        pictures = (result, before, target, target_before)
        figures = {measure.name: float(measure(*pictures)) for measure in self._against("frame")}
        results = [other for other, _ in earlier]
        return _finite(figures | {measure.name: float(measure(result, results)) for measure in self._against("frames")})

    def vectors(self, picture: MeasureInputs) -> dict[str, Tensor]:
        """Return a picture's vectors for the measures of sets."""
        return {measure.name: measure(getattr(picture, measure.takes)) for measure in self._against("set")}

    def _against(self, *against: str) -> list[Measure]:
        return [measure for measure in self.measures if measure.against in against]

    def _reduced(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[2:]
        scale = self.side / (height * width) ** 0.5
        if scale >= 1:
            return picture
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        return functional.interpolate(picture, size, mode="bicubic", antialias=True).clamp(0, 1)


def _region(
    measure: Measure, result: MeasureInputs, other: MeasureInputs, regions: Mapping[str, Tensor]
) -> tuple[object, object] | None:
    """Return the inputs of a measure, the pixels of a region in one row; None if the case lacks the region."""
    if measure.region is None:
        return getattr(result, measure.takes), getattr(other, measure.takes)
    region = regions.get(measure.region)
    if region is None or not bool(region.any()):
        return None
    return result.picture[:, :, region].unsqueeze(2), other.picture[:, :, region].unsqueeze(2)


def _finite(figures: Figures) -> Figures:
    """Return the finite values: the truth itself has no finite PSNR."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}
