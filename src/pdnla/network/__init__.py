"""PDNLA-Net in plain torch: each class is a box in the paper's figures, and its code is the formula.

These modules favour clarity over speed. :mod:`pdnla.fast` has subclasses that compute the same results in less time;
:func:`pdnla.fast.accelerate` uses them for modules of exactly these types and leaves your own subclasses unchanged.
"""

from pdnla.network.construction import Construction, keeps_construction
from pdnla.network.decoder import ReferenceCode
from pdnla.network.encoder import Codes
from pdnla.network.informed import InformedPDNLA
from pdnla.network.pdnla import PDNLA, STRIDE, Colorization, Stages
from pdnla.network.semantic import SemanticPDNLA, SemanticWarp

__all__ = [
    "PDNLA",
    "STRIDE",
    "Codes",
    "Colorization",
    "Construction",
    "InformedPDNLA",
    "ReferenceCode",
    "SemanticPDNLA",
    "SemanticWarp",
    "Stages",
    "keeps_construction",
]
