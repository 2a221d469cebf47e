"""PDNLA-Net in plain torch, as the paper writes it: a class is a box of its figures, and its formula is the code.

Nothing here is fast on purpose. :mod:`pdnla.fast` has subclasses of these modules that compute the same in less time;
:func:`pdnla.fast.accelerate` puts them in place of the exact types here and leaves a subclass of yours as it is.
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
