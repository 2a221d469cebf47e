"""The weights that come with the package, and their card."""

from pathlib import Path

BUNDLED = ("default", "pdnla_semantic", "pdnla_tiny")
"""Names by which they are asked for."""

_FOLDER = Path(__file__).resolve().parent


def find_weights(path: str | Path) -> Path:
    """Return the file of weights that come with the package by their name, or the path as it is.

    A file of that name comes first.
    """
    if str(path) in BUNDLED and not Path(path).exists():
        return _FOLDER / f"{path}.safetensors"
    return Path(path)


def card() -> str:
    """Return what there is to know about these weights, in Markdown: data, recipe, measures, limits, licence."""
    installed = _FOLDER / "weights.md"
    checkout = _FOLDER.parents[2] / "docs" / "weights.md"
    return (installed if installed.is_file() else checkout).read_text(encoding="utf-8")


def is_exported(path: str | Path) -> bool:
    """Return whether a file, by its name, holds a network for another runtime, as ``pdnla-export`` writes them."""
    return Path(path).suffix in (".onnx", ".pt2")
