"""The colouring methods: weights and baselines, all run by :class:`pdnla.Colorizer`, as for users."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from pdnla.backbones import load_backbone
from pdnla.errors import UserError
from pdnla.evaluation.baselines import BASELINES, Baseline
from pdnla.evaluation.protocols import TRUTH
from pdnla.images.io import Picture
from pdnla.inference.colorizer import Colorizer

BASELINE_NAMES = (*BASELINES, "semantic_warp")
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


def load_methods(
    weights: Mapping[str, str], baselines: Sequence[str], size: int | str, device: torch.device, precision: str
) -> dict[str, Method]:
    """Return every method by its name.

    Args:
        weights: files that :func:`pdnla.load_network` reads, by the names of the methods.
        baselines: names, of :data:`BASELINE_NAMES`.
        size: working size of weights and of the semantic warp, about ``size``² pixels, or ``native``.
        device: the device of all methods.
        precision: ``float32``, ``bfloat16`` or ``auto`` for the weights; baselines compute in float32.

    Raises:
        UserError: weights cannot be read, or there is no such baseline.
    """
    methods = {name: Colorizer(path, device, precision, size) for name, path in weights.items()}
    for name in baselines:
        network, side = _baseline(name), size if name == "semantic_warp" else BASELINE_SIZE
        methods[name] = Colorizer(network, device, "float32", side)
    return {name: Method(colorizer) for name, colorizer in methods.items()}


def _baseline(name: str) -> nn.Module:
    if name == "semantic_warp":
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
        if name in (*BASELINE_NAMES, TRUTH):
            raise UserError(f"weights: {name} is the name of another method; give weights={{mine: {named[name]}}}")
    return named
