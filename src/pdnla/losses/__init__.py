"""The loss terms, one per file, and the hybrid loss, their weighted sum.

A new term is a subclass of :class:`LossTerm` in a file of its own and an entry under ``terms`` in ``conf/loss``.
"""

from pdnla.losses.adversarial import AdversarialLoss
from pdnla.losses.chroma import ChromaLoss
from pdnla.losses.content import ContentLoss
from pdnla.losses.contextual import ContextualLoss
from pdnla.losses.cooccurrence import CooccurrenceLoss
from pdnla.losses.correspondence import CorrespondenceLoss
from pdnla.losses.heads import HeadsLoss
from pdnla.losses.histogram import HistogramLoss
from pdnla.losses.hybrid import HybridLoss
from pdnla.losses.perceptual import PerceptualLoss
from pdnla.losses.pixel import PixelLoss
from pdnla.losses.plausibility import PlausibilityLoss
from pdnla.losses.supervision import HeadCodes, Supervision
from pdnla.losses.term import CriticTerm, LossTerm
from pdnla.losses.tv import TotalVariationLoss

__all__ = [
    "AdversarialLoss",
    "ChromaLoss",
    "ContentLoss",
    "ContextualLoss",
    "CooccurrenceLoss",
    "CorrespondenceLoss",
    "CriticTerm",
    "HeadCodes",
    "HeadsLoss",
    "HistogramLoss",
    "HybridLoss",
    "LossTerm",
    "PerceptualLoss",
    "PixelLoss",
    "PlausibilityLoss",
    "Supervision",
    "TotalVariationLoss",
]
