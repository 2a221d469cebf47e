"""The table of measures, which evaluation, validation, sweeps, checkpoints and dashboards read.

A new measure is an entry of :data:`MEASURES` and its function. Entries hold the functions' names, and a function is
imported at its first call, so that importing the table is cheap.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

Figures = dict[str, float]
"""Values of one picture or method, by the names of the measures."""

Place = Literal["evaluation", "validation", "sweeps"]
EVERYWHERE: tuple[Place, ...] = ("evaluation", "validation", "sweeps")
LOGGED: tuple[Place, ...] = ("evaluation", "validation")


@dataclass(frozen=True)
class Measure:
    """How a measure is computed and interpreted.

    Attributes:
        name: in files and logs.
        label: heading of its column.
        better: ``up``, ``down``, or ``one`` if 1 is best.
        digits: number of printed decimals.
        against: the other input of the function. For ``truth``, ``reference`` and ``target``, the function takes the
            result and that picture of the same case. For ``frame`` it takes the result, the previous frame's result,
            the target and the previous target; for ``frames``, the result and those of the frames before, the last one
            first. For ``set`` it maps one picture to a vector, and the measure is the
            Fréchet distance between the vectors of the results and those of the truths, or else of the references.
        function: ``module:name``. It takes sRGB in [0, 1], ``(B, 3, H, W)``, and returns ``(B,)``; a value that is
            not finite is left out.
        meaning: a short explanation.
        takes: ``picture``, ``reduced`` (at most 256² pixels) or ``features`` (EfficientNet-Lite0's feature maps).
        region: name of the region in :class:`~pdnla.evaluation.protocols.Case` that is measured; the function takes
            its pixels in one row. Cases without the region do not have the measure.
        frames: the first and the last distance from the reference, in frames of a clip, at which it is measured.
        summary: over a set of pictures: ``mean``, ``median``, or ``over_grey``, the mean divided by the mean of grey
            results.
        where: the places that compute it. Validation supports all summaries except the median.
        decides: its best value is marked in tables; False if a wrong result can reach the best value.
        weights: ``module:name`` of a function that loads weights which are not part of the package.
        stand_in: the measure that replaces it if the weights are not available.
    """

    name: str
    label: str
    better: Literal["up", "down", "one"]
    digits: int
    against: Literal["truth", "reference", "target", "frame", "frames", "set"]
    function: str
    meaning: str
    takes: Literal["picture", "reduced", "features"] = "picture"
    region: str | None = None
    frames: tuple[int, int] | None = None
    summary: Literal["mean", "median", "over_grey"] = "mean"
    where: tuple[Place, ...] = ("evaluation",)
    decides: bool = True
    weights: str | None = None
    stand_in: str | None = None

    def __call__(self, *pictures: Any) -> Any:
        """Apply the function."""
        return resolve(self.function)(*pictures)

    def badness(self, value: float) -> float:
        """Return a number that is smaller the better a value is."""
        return -value if self.better == "up" else value if self.better == "down" else abs(value - 1)


def resolve(path: str) -> Any:
    """Import ``module:name`` and return it."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


_PICTURES = "pdnla.evaluation.metrics"
_FEATURES = "pdnla.evaluation.perceptual"
_FILM = "pdnla.evaluation.film"
_SETS = "pdnla.evaluation.frechet"

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "chroma_error_ratio",
            "chroma error, of grey's",
            "down",
            2,
            "truth",
            f"{_PICTURES}:chroma_error",
            "mean chroma error over that of grey results",
            summary="over_grey",
            where=("validation", "sweeps"),
        ),
        Measure(
            "psnr",
            "PSNR",
            "up",
            2,
            "truth",
            f"{_PICTURES}:psnr",
            "against the truth, in dB over the three channels",
            where=EVERYWHERE,
        ),
        Measure(
            "ssim", "SSIM", "up", 3, "truth", f"{_PICTURES}:ssim", "structural similarity to the truth", where=LOGGED
        ),
        Measure(
            "ciede2000",
            "CIEDE2000",
            "down",
            2,
            "truth",
            f"{_PICTURES}:ciede2000",
            "mean colour difference from the truth",
            where=LOGGED,
        ),
        Measure(
            "placement_error",
            "placement",
            "down",
            2,
            "truth",
            f"{_PICTURES}:placement_error",
            "CIEDE2000 after the affine map of a*b* that fits the truth best: not the light counts, but the places",
        ),
        Measure(
            "chroma_error",
            "chroma error",
            "down",
            2,
            "truth",
            f"{_PICTURES}:chroma_error",
            "mean distance from the truth in the a*b* plane",
            where=EVERYWHERE,
        ),
        Measure(
            "chroma_error_over_grey",
            "of grey's",
            "down",
            2,
            "truth",
            f"{_PICTURES}:chroma_error_over_grey",
            "chroma error over a grey result's, the median; over 1, grey is better",
            summary="median",
        ),
        Measure(
            "opposite_hue",
            "opposite hue",
            "down",
            1,
            "truth",
            f"{_PICTURES}:opposite_hue",
            "% of pixels, coloured in both, whose hue is more than 90 degrees off the truth's; none in a grey result",
            decides=False,
        ),
        Measure(
            "ciede2000_skin",
            "skin",
            "down",
            2,
            "truth",
            f"{_PICTURES}:ciede2000",
            "CIEDE2000 in an oval in the middle of the face",
            region="skin",
        ),
        Measure(
            "placement_error_skin",
            "skin without its light",
            "down",
            2,
            "truth",
            f"{_PICTURES}:placement_error",
            "the same after the affine map of its a*b* that fits the truth best",
            region="skin",
            decides=False,
        ),
        Measure(
            "ciede2000_shown",
            "shown",
            "down",
            2,
            "truth",
            f"{_PICTURES}:ciede2000",
            "CIEDE2000 where the reference shows the same",
            region="shown",
        ),
        Measure(
            "ciede2000_missing",
            "missing",
            "down",
            2,
            "truth",
            f"{_PICTURES}:ciede2000",
            "CIEDE2000 where the reference shows something else",
            region="missing",
        ),
        Measure(
            "chroma_error_over_grey_missing",
            "missing, of grey's",
            "down",
            2,
            "truth",
            f"{_PICTURES}:chroma_error_over_grey",
            "chroma error over a grey result's where the reference shows something else, the median",
            region="missing",
            summary="median",
        ),
        Measure(
            "opposite_hue_missing",
            "missing, opposite hue",
            "down",
            1,
            "truth",
            f"{_PICTURES}:opposite_hue",
            "% of pixels of opposite hue where the reference shows something else; none in a grey result",
            region="missing",
            decides=False,
        ),
        *(
            Measure(
                f"ciede2000_{first}",
                f"frames {first} to {last}" if last < 1 << 30 else f"frames {first} on",
                "down",
                2,
                "truth",
                f"{_PICTURES}:ciede2000",
                f"CIEDE2000 {first} frames after the reference" + (f" to {last}" if last < 1 << 30 else " and later"),
                frames=(first, last),
            )
            for first, last in ((1, 12), (13, 48), (49, 1 << 30))
        ),
        Measure(
            "lpips",
            "LPIPS",
            "down",
            3,
            "truth",
            f"{_FEATURES}:lpips",
            "perceptual distance from the truth (AlexNet)",
            takes="reduced",
            weights=f"{_FEATURES}:load_lpips",
            stand_in="lpd_efficientnet",
        ),
        Measure(
            "lpd_efficientnet",
            "LPD",
            "down",
            3,
            "truth",
            f"{_FEATURES}:perceptual_distance",
            "LPIPS' distance from the truth on EfficientNet-Lite0's features, unweighted",
            takes="features",
        ),
        Measure(
            "his",
            "HIS",
            "up",
            3,
            "reference",
            f"{_PICTURES}:histogram_intersection",
            "histogram intersection of a*b* with the reference; wrong places raise it too, so it does not decide",
            where=LOGGED,
            decides=False,
        ),
        Measure(
            "colourfulness_ratio",
            "colourfulness",
            "one",
            3,
            "reference",
            f"{_PICTURES}:colourfulness_ratio",
            "Hasler and Süsstrunk's, over the reference's",
            where=LOGGED,
        ),
        Measure(
            "contextual",
            "contextual",
            "up",
            3,
            "reference",
            f"{_FEATURES}:contextual",
            "contextual similarity to the reference",
            takes="features",
        ),
        Measure(
            "luminance_error",
            "L* error",
            "down",
            2,
            "target",
            f"{_PICTURES}:luminance_error",
            "mean absolute difference from the target's L*",
        ),
        Measure(
            "flicker",
            "flicker",
            "down",
            2,
            "frame",
            f"{_PICTURES}:flicker",
            "mean change of a*b* since the last frame where L* stays",
        ),
        Measure(
            "motion_flicker",
            "flicker along motion",
            "down",
            2,
            "frame",
            f"{_FILM}:motion_flicker",
            "mean change of a*b* since the last frame along motion where L* stays",
        ),
        Measure(
            "cdc",
            "CDC, x1000",
            "down",
            2,
            "frames",
            f"{_PICTURES}:colour_distribution_change",
            "Jensen-Shannon divergence of the channels' histograms at distances of 1, 2 and 4 frames; motion has some",
            decides=False,
        ),
        Measure(
            "fid",
            "FID",
            "down",
            2,
            "set",
            f"{_SETS}:inception",
            "Fréchet distance between sets, Inception",
            weights=f"{_SETS}:load_inception",
        ),
        Measure(
            "frechet_efficientnet",
            "Fréchet",
            "down",
            2,
            "set",
            f"{_SETS}:mean_features",
            "distance between sets, EfficientNet-Lite0's features",
            takes="features",
        ),
    )
}
"""Every measure by its name, in the order of tables."""

OBJECTIVE = "chroma_error"
"""The measure that chooses a run's best checkpoint, ranks the runs of a sweep and prunes them."""


def measured(place: Place, *against: str) -> list[Measure]:
    """Return the measures of a place, restricted to some values of ``against`` if any are given."""
    return [m for m in MEASURES.values() if place in m.where and (not against or m.against in against)]


def logged(name: str) -> str:
    """Return the name under which validation logs a measure of pairs with a truth."""
    return f"val/{name}"


def compared_in_sweeps() -> tuple[str, ...]:
    """Return the logged names in a sweep's table, the objective first."""
    names = [measure.name for measure in measured("sweeps")]
    return tuple(logged(name) for name in sorted(names, key=lambda name: name != OBJECTIVE))


def summarise(figures: Sequence[Mapping[str, float]]) -> Figures:
    """Return the mean or median of each measure over the pictures that have it."""
    summary: Figures = {}
    for name, measure in MEASURES.items():
        values = [picture[name] for picture in figures if name in picture]
        if values:
            summary[name] = (
                statistics.median(values) if measure.summary == "median" else math.fsum(values) / len(values)
            )
    return summary


def best(name: str, values: Mapping[str, float]) -> list[str]:
    """Return the methods with the best value of a measure as printed; several if they are equal."""
    measure = MEASURES[name]
    rounded = {method: measure.badness(round(value, measure.digits)) for method, value in values.items()}
    return [method for method, value in rounded.items() if value == min(rounded.values())]
