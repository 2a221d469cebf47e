"""PDNLA-Net in plain torch, a file a box of the paper's figures; nothing here reads files or needs Lightning."""

from pdnla.network.decoder import ReferenceCode
from pdnla.network.encoder import Codes
from pdnla.network.informed import InformedPDNLA
from pdnla.network.layers import folded
from pdnla.network.pdnla import PDNLA, STRIDE, Colorization, Stages
from pdnla.network.semantic import SemanticPDNLA, SemanticWarp

__all__ = [
    "PDNLA",
    "STRIDE",
    "Codes",
    "Colorization",
    "InformedPDNLA",
    "ReferenceCode",
    "SemanticPDNLA",
    "SemanticWarp",
    "Stages",
    "folded",
]
