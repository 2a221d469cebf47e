"""The weights in the package, and their model card."""

from pathlib import Path

from pdnla.errors import UserError

DEFAULT = "pdnla_informed"
"""What ``default`` stands for."""
BUNDLED = ("default", "pdnla_informed", "pdnla_semantic", "pdnla_tiny", "semantic_warp")
"""Names of the weights in the package."""
MODEL = "model.safetensors"
"""Name of the weights in a folder of :mod:`pdnla.hub`."""

_FOLDER = Path(__file__).resolve().parent


def find_weights(path: str | Path) -> Path:
    """Return the file of weights in the package for their name, of a network's folder, or the path itself.

    An existing file or folder with that name takes precedence.
    """
    if (Path(path) / MODEL).is_file():
        return Path(path) / MODEL
    if str(path) in BUNDLED and not Path(path).exists():
        return _FOLDER / f"{DEFAULT if str(path) == 'default' else path}.safetensors"
    return Path(path)


def check_weights(weights: str, option: str) -> None:
    """Raise UserError if there is no file of weights; torch is not imported.

    Args:
        weights: the file, or the name of weights in the package.
        option: the option that names them, for the message.
    """
    path = find_weights(weights)
    if path.is_dir():
        raise UserError(f"{option} {weights}: is a folder without {MODEL}; name the weights file in it")
    if not path.is_file():
        raise UserError(
            f"{option} {weights}: there is no such file; check the path, or use one of {', '.join(BUNDLED)}"
        )


def card() -> str:
    """Return the model card in Markdown: data, training, measures, limits, licence."""
    installed = _FOLDER / "weights.md"
    checkout = _FOLDER.parents[2] / "docs" / "weights.md"
    return (installed if installed.is_file() else checkout).read_text(encoding="utf-8")


def is_exported(path: str | Path) -> bool:
    """Return whether a file name is that of an exported network (:mod:`pdnla.export`)."""
    return Path(path).suffix in (".onnx", ".pt2")
