"""The input of every loss term: a batch of pairs and the network's results."""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from pdnla.backbones import Backbone
from pdnla.images.color import grey
from pdnla.network import Codes


class HeadCodes(NamedTuple):
    """Outputs of the encoders' training heads: E_g of the target, E_c of the reference and of the result."""

    target: Codes
    reference: Codes
    result: Codes

    def rows(self, part: slice) -> "HeadCodes":
        """Return the codes of a slice of pairs."""
        return HeadCodes(*(Codes(*(x[part] for x in codes)) for codes in self))


class Supervision:
    """A batch of pairs and the network's results, all sRGB in [-1, 1], ``(B, 3, H, W)``.

    Args:
        target: grey pictures.
        reference: pictures in colour.
        truth: the target's true colours. The reference of an unpaired pair is another picture, and a good result may
            have other colours.
        mid: the network's result before refinement; it may exceed the range.
        out: the network's result; it may exceed the range.
        unpaired: number of first pairs that are unpaired.
        seed: seed of all randomness, such as the choice of a critic's patches.
        backbone: the frozen network whose features are compared, if a term needs it.
        codes: the codes of the encoders' heads, if a term needs them.
    """

    def __init__(
        self,
        target: Tensor,
        reference: Tensor,
        truth: Tensor,
        mid: Tensor,
        out: Tensor,
        *,
        unpaired: int = 0,
        seed: int = 0,
        backbone: Backbone | None = None,
        codes: HeadCodes | None = None,
    ) -> None:
        self.target, self.reference, self.truth, self.mid, self.out = target, reference, truth, mid, out
        self.unpaired_rows, self.seed, self.backbone, self.codes = unpaired, seed, backbone, codes

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.out)

    @cached_property
    def paired(self) -> "Supervision":
        """The pairs with a known truth."""
        return self._part(slice(self.unpaired_rows, None), 0)

    @cached_property
    def unpaired(self) -> "Supervision":
        """The pairs of different pictures."""
        return self._part(slice(0, self.unpaired_rows), self.unpaired_rows)

    def _part(self, rows: slice, unpaired: int) -> "Supervision":
        if len(self.out[rows]) == len(self):
            return self
        pictures = (x[rows] for x in (self.target, self.reference, self.truth, self.mid, self.out))
        codes = None if self.codes is None else self.codes.rows(rows)
        return Supervision(*pictures, unpaired=unpaired, seed=self.seed, backbone=self.backbone, codes=codes)

    def detached(self) -> "Supervision":
        """Return the pictures without gradients, backbone and codes."""
        pictures = (self.target, self.reference, self.truth, self.mid.detach(), self.out.detach())
        return Supervision(*pictures, unpaired=self.unpaired_rows, seed=self.seed)

    @property
    def needed_backbone(self) -> Backbone:
        """The frozen network, for a term that needs it.

        Raises:
            ValueError: there is no backbone.
        """
        if self.backbone is None:
            raise ValueError("a term needs the backbone and the supervision has none; list it in the term's needs")
        return self.backbone

    def features(self, picture: str) -> tuple[Tensor, ...]:
        """Return the backbone's features of a picture by name, such as ``out``, or of its luminance, ``out_grey``.

        They are computed once for all terms. Only the features of the results have gradients.
        """
        if picture not in self._features:
            name = picture.removesuffix("_grey")
            image: Tensor = getattr(self, name)
            if picture != name:
                image = grey(((image + 1) / 2).clamp(0, 1)) * 2 - 1
            with torch.set_grad_enabled(torch.is_grad_enabled() and name in ("mid", "out")):
                self._features[picture] = self.needed_backbone(image)
        return self._features[picture]

    @cached_property
    def _features(self) -> dict[str, tuple[Tensor, ...]]:
        return {}
