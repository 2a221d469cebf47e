"""PDNLA-Net: colour a grey photograph with the colours of corresponding parts of a reference photograph."""

import importlib
from typing import TYPE_CHECKING

from pdnla.errors import UserError

if TYPE_CHECKING:
    from pdnla import models
    from pdnla.hub import PDNLA
    from pdnla.inference.colorizer import Colorizer, colorize
    from pdnla.inference.editing import Editor
    from pdnla.weights import load_network

__version__ = "0.2.0"
__all__ = ["PDNLA", "Colorizer", "Editor", "UserError", "colorize", "load_network", "models"]

# Importing torch takes seconds, and `pdnla-colorize --help` does not need it.
_MODULES = {
    "PDNLA": "pdnla.models",  # where it gets from_pretrained
    "Colorizer": "pdnla.inference.colorizer",
    "Editor": "pdnla.inference.editing",
    "colorize": "pdnla.inference.colorizer",
    "load_network": "pdnla.weights",
}


def __getattr__(name: str) -> object:
    if name == "models":
        return importlib.import_module("pdnla.models")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
