"""The supervision's terms, a file a term, and the hybrid loss that sums them by name and weight."""

from pdnla.losses.chroma import ChromaLoss
from pdnla.losses.hybrid import HybridLoss
from pdnla.losses.pixel import PixelLoss
from pdnla.losses.supervision import Supervision

__all__ = ["ChromaLoss", "HybridLoss", "PixelLoss", "Supervision"]
