"""Networks that start from semantic correspondence instead of learning all correspondence."""

from collections.abc import Sequence
from dataclasses import replace

import kornia.color
import torch
from torch import Tensor, nn

from pdnla.network.construction import keeps_construction
from pdnla.network.correspondence import SIDE, Carried, Correspondence, Metric, ReferenceSpots, join_spots
from pdnla.network.decoder import ReferenceCode
from pdnla.network.layers import CHROMA, at_least_float32, grey_lightness
from pdnla.network.pdnla import PDNLA, Colorization, check_picture


@keeps_construction
class SemanticWarp(nn.Module):
    """Semantic correspondence with the interface of a network, without refinement.

    Args:
        backbone: see :class:`~pdnla.network.correspondence.Correspondence`.
        learned: whether it has a learned :class:`~pdnla.network.correspondence.Metric`.
    """

    def __init__(self, backbone: nn.Module, learned: bool = False) -> None:
        super().__init__()
        self.correspondence = Correspondence(backbone, metric=Metric() if learned else None)

    def encode_reference(self, reference: Tensor) -> ReferenceSpots:
        """Compute all that depends only on the reference, ``(B, 3, H, W)`` in [-1, 1], for repeated use."""
        check_picture(reference, "reference")
        spots: ReferenceSpots = self.correspondence.encode_reference(reference)
        return spots

    def join_references(self, codes: Sequence[ReferenceSpots]) -> list[ReferenceSpots]:
        """Return one code with the places of several references, whichever of them fits best."""
        return [join_spots(codes)]

    def chroma(self, target: Tensor, reference: Tensor | ReferenceSpots) -> Tensor:
        """Return the a* and b* transferred to ``target``, ``(B, 2, H, W)``, not clipped to sRGB."""
        return self.carried(target, reference).chroma

    def carried(self, target: Tensor, reference: Tensor | ReferenceSpots) -> Carried:
        """Return the result of :meth:`chroma`, with its confidence."""
        check_picture(target, "target")
        carried: Carried = self.correspondence(target, reference)
        return carried

    def forward(self, target: Tensor, reference: Tensor | ReferenceSpots) -> Colorization:
        """Colour ``target`` like :class:`~pdnla.network.PDNLA`; ``mid`` and ``out`` are the same picture."""
        check_picture(target, "target")
        out = painted(target, self.chroma(target, reference))
        return Colorization(out, out)


@keeps_construction
class SemanticPDNLA(PDNLA):
    """PDNLA with the colours transferred by semantic correspondence, and their confidence, as extra inputs.

    E_g has 7 input channels instead of 4, and stage 3 refines the picture with transferred colours instead of the grey
    target. Before training, ``out`` equals the result of :class:`SemanticWarp`.

    Args:
        backbone: see :class:`~pdnla.network.correspondence.Correspondence`.
        channel: see :class:`~pdnla.network.PDNLA`.
        side: see :class:`~pdnla.network.correspondence.Correspondence`.
    """

    def __init__(self, backbone: nn.Module, channel: int = 8, side: int = SIDE) -> None:
        super().__init__(channel, extra=3)
        self.correspondence = Correspondence(backbone, side)
        nn.init.zeros_(self.refiner.to_rgb.weight)

    def encode_reference(self, reference: Tensor) -> ReferenceCode:
        """Compute all that depends only on the reference, ``(B, 3, H, W)`` in [-1, 1], for repeated use."""
        return replace(super().encode_reference(reference), spots=self.correspondence.encode_reference(reference))

    def join_references(self, codes: Sequence[ReferenceCode]) -> list[ReferenceCode]:
        """Return for each of several references its code with the places of all of them."""
        return with_all_places(codes)

    def extra_inputs(self, target: Tensor, reference: Tensor | ReferenceCode) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the picture with transferred colours; and its a*, b* and confidence.

        Raises:
            ValueError: the reference was encoded by a network without correspondence.
        """
        spots = reference.spots if isinstance(reference, ReferenceCode) else reference
        if spots is None:
            raise ValueError("the reference was encoded by a network without correspondence")
        carried: Carried = self.correspondence(target, spots)
        extra = torch.cat([carried.chroma / CHROMA, carried.confidence], dim=1).to(target.dtype)
        return painted(target, carried.chroma), (extra,)


def with_all_places(codes: Sequence[ReferenceCode]) -> list[ReferenceCode]:
    """Return the codes of several references, each with the places of all for correspondence."""
    spots = join_spots([code.spots for code in codes if code.spots is not None])
    return [replace(code, spots=spots) for code in codes]


def painted(target: Tensor, chroma: Tensor) -> Tensor:
    """Return the grey target with a* and b*, ``(B, 2, H, W)``: sRGB clipped to [-1, 1], ``(B, 3, H, W)``."""
    with torch.autocast(target.device.type, enabled=False):
        shade = 100 * grey_lightness((at_least_float32(target[:, :1]) + 1) / 2)
        rgb: Tensor = kornia.color.lab_to_rgb(torch.cat([shade, chroma], dim=1), clip=True)
        return (rgb * 2 - 1).to(target.dtype)
