"""PDNLA-Net: colour a grey photograph with the colours of what corresponds in a reference photograph."""

from pdnla.errors import UserError
from pdnla.network import PDNLA
from pdnla.weights import load_network

__version__ = "0.1.0"
__all__ = ["PDNLA", "UserError", "load_network"]
