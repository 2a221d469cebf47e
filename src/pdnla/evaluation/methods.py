"""The colouring methods: weights and baselines, all run by :class:`pdnla.Colorizer`, as for users."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from pdnla.backbones import load_backbone
from pdnla.errors import UserError
from pdnla.evaluation.baselines import BASELINES, Baseline
from pdnla.evaluation.protocols import TRUTH, Case, luminance_of
from pdnla.images.io import Picture, read_image
from pdnla.inference.colorizer import Colorizer

WARP = "semantic_warp"
"""Name of semantic correspondence, both as a baseline and as weights of the package."""

BASELINE_NAMES = (*BASELINES, WARP)
BASELINE_SIZE = 256
"""Input size of baselines that compare single pixels; larger ones would take minutes."""


class Method:
    """Colours pictures and keeps the encoded reference until another one comes.

    Args:
        colorizer: the colorizer.
    """

    def __init__(self, colorizer: Colorizer) -> None:
        self.colorizer = colorizer
        self._reference: Picture | None = None

    def __call__(self, target: Picture, reference: Picture) -> Image.Image:
        """Return ``target`` in the colours of ``reference``, in mode RGB at its own size."""
        if reference is not self._reference:
            self.colorizer.set_reference(reference)
            self._reference = reference
        return self.colorizer.colorize(target).convert("RGB")

    def of_case(self, case: Case) -> Image.Image | None:
        """Return the target of a case in colour, or None if the method does not apply to it."""
        return self(case.target, case.reference)


class FilmMethod(Method):
    """Colours the frames of a clip as film, with stable colours; it does not colour other pictures.

    The cases of a clip must come in order, beginning with its first.

    Args:
        colorizer: the colorizer.
    """

    def __init__(self, colorizer: Colorizer) -> None:
        super().__init__(colorizer)
        self._frames: Iterator[Image.Image] = iter(())

    def of_case(self, case: Case) -> Image.Image | None:
        """Return the next frame of a clip in colour; None for a picture of no clip."""
        if not case.later:
            return None
        if not case.follows:
            from pdnla.film.colouring import colour_shot

            self.colorizer.set_reference(case.reference)
            before = None if case.distance is None else case.reference
            self._frames = colour_shot(_readable(case.later), self.colorizer, before)
        return next(self._frames).convert("RGB")


class FlowMethod:
    """Carries the colours of the first frame along motion from frame to frame, and nothing else."""

    def __init__(self) -> None:
        self._before: Any = None

    def of_case(self, case: Case) -> Image.Image | None:
        """Return the next frame of a clip in colour; None if its reference is not a frame of it."""
        if case.distance is None:
            return None
        from pdnla.film.colouring import transfer_colours

        before = self._before if case.follows else case.reference
        self._before = transfer_colours(case.target, before)
        return self._before.rgb()


def _readable(paths: Sequence[Path]) -> Iterator[Picture]:
    """Yield the grey pictures of those files that can be read; the others are no cases either."""
    for path in paths:
        try:
            picture = read_image(path)
        except UserError:
            continue
        yield luminance_of(picture.colour) if picture.colour.mode == "RGB" else Picture(picture.colour)


def film_name(method: str) -> str:
    """Return the name of a method that colours clips as film."""
    return f"{method}, film"


FLOW = "flow"
"""Name of :class:`FlowMethod`."""


def load_methods(
    weights: Mapping[str, str],
    baselines: Sequence[str],
    size: int | str,
    device: torch.device,
    precision: str,
    film: bool = False,
) -> dict[str, Method | FlowMethod]:
    """Return every method by its name.

    Args:
        weights: files that :func:`pdnla.load_network` reads, by the names of the methods.
        baselines: names, of :data:`BASELINE_NAMES`.
        size: working size of weights and of the semantic warp, about ``size``² pixels, or ``native``.
        device: the device of all methods.
        precision: ``float32``, ``bfloat16`` or ``auto`` for the weights; baselines compute in float32.
        film: add the weights and the semantic warp for clips as film, and plain propagation.

    Raises:
        UserError: weights cannot be read, or there is no such baseline.
    """
    methods = {name: Colorizer(path, device, precision, size) for name, path in weights.items()}
    for name in baselines:
        if name in methods:  # the same, named as weights
            continue
        network, side = _baseline(name), size if name == WARP else BASELINE_SIZE
        methods[name] = Colorizer(network, device, "float32", side)
    results: dict[str, Method | FlowMethod] = {}
    for name, colorizer in methods.items():
        results[name] = Method(colorizer)
        if film and (name in weights or name == WARP):
            results[film_name(name)] = FilmMethod(copy.copy(colorizer))  # with references of its own
    if film:
        results[FLOW] = FlowMethod()
    return results


def _baseline(name: str) -> nn.Module:
    if name == WARP:
        from pdnla.network.semantic import SemanticWarp

        return SemanticWarp(load_backbone())
    return Baseline(BASELINES[name])


def check_baselines(names: Sequence[str]) -> None:
    """Raise :class:`UserError` if a name is not that of a baseline, or occurs twice."""
    for name in names:
        if name not in BASELINE_NAMES:
            raise UserError(f"baselines: {name} is not known; choose from {', '.join(BASELINE_NAMES)}")
    if len(set(names)) < len(names):
        raise UserError("baselines: one is named twice; name each once")


def name_weights(weights: str | Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Return files of weights by the names of their methods.

    Args:
        weights: one file, several, or files by name. The default name is that of the file without its suffix; if two
            are equal, the folder's name is added.

    Raises:
        UserError: two methods have the same name.
    """
    if isinstance(weights, Mapping):
        named = {str(name): str(path) for name, path in weights.items()}
    else:
        paths = [weights] if isinstance(weights, str) else [str(path) for path in weights or ()]
        stems = [Path(path).stem for path in paths]
        names = [
            stem if stems.count(stem) == 1 else f"{Path(path).absolute().parent.name}/{stem}"
            for stem, path in zip(stems, paths, strict=True)
        ]
        if len(set(names)) < len(names):
            raise UserError("weights: two files have the same name and folder; give weights={one: FILE, other: FILE}")
        named = dict(zip(names, paths, strict=True))
    for name in named:
        if name in (*BASELINE_NAMES, FLOW, TRUTH) and (name, named[name]) != (WARP, WARP):
            raise UserError(f"weights: {name} is the name of another method; give weights={{mine: {named[name]}}}")
    return named
