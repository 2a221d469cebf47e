"""PDNLA-Net, the composition of the three stages."""

from typing import NamedTuple

from torch import Tensor, nn

from pdnla.network.construction import keeps_construction
from pdnla.network.decoder import Decoder, ReferenceCode
from pdnla.network.encoder import Codes, Encoder
from pdnla.network.refiner import Refiner

STRIDE = 16
"""The height and width of the network's inputs must be multiples of this."""


class Colorization(NamedTuple):
    """The two results, sRGB in about [-1, 1], ``(B, 3, H, W)``: ``mid`` after fusion, ``out`` after refinement."""

    mid: Tensor
    out: Tensor


class Stages(NamedTuple):
    """The results of all stages, for losses and inspection.

    ``target_features`` are f_g1..f_g4, ``reference_features`` f_c1..f_c4 (``(B, 2^i w, H / 2^i, W / 2^i)``),
    ``decoded`` d1..d4 (8w, 4w, 2w, w channels at 1/8, 1/4, 1/2, 1 of the size); ``mid`` and ``out`` as in
    :class:`Colorization`.
    """

    target_features: tuple[Tensor, ...]
    reference_features: tuple[Tensor, ...]
    decoded: tuple[Tensor, ...]
    mid: Tensor
    out: Tensor


@keeps_construction
class PDNLA(nn.Module):
    """Pyramid Dual Non-local Attention network (Wang et al., IEEE TIP 2023), of any width.

    >>> net = PDNLA(channel=8).eval()
    >>> out = net(target, reference).out                      # both (B, 3, H, W) in [-1, 1]
    >>> code = net.encode_reference(reference)                # once,
    >>> outs = [net(t, code).out for t in targets]            # for many targets

    Args:
        channel: the width c, an even number of at least 4. The published network has 32 (70.2 M parameters); 16 has
            17.6 M, 8 has 4.4 M.
        extra: number of E_g's input channels besides the target and its edges; 0 in the published network.

    Raises:
        ValueError: ``channel`` is odd or under 4.
    """

    def __init__(self, channel: int = 32, *, extra: int = 0) -> None:
        super().__init__()
        if channel < 4 or channel % 2:
            raise ValueError(f"channel must be an even number of at least 4, not {channel}")
        self.channel = channel
        width = 2 * channel
        self.target_encoder = Encoder(width, extra)
        self.reference_encoder = Encoder(width)
        self.decoder = Decoder(width)
        self.refiner = Refiner(channel)

    def forward(self, target: Tensor, reference: Tensor | ReferenceCode) -> Colorization:
        """Colour ``target`` with the colours of corresponding parts of ``reference``.

        Args:
            target: grey picture in three equal channels, ``(B, 3, H, W)`` in [-1, 1].
            reference: colour picture, ``(B, 3, H', W')`` in [-1, 1], or its code from :meth:`encode_reference`. A
                single one serves a batch of targets. The paper uses H' = H and W' = W; other sizes work.

        Raises:
            ValueError: a height or width is not a multiple of 16, or a tensor is not ``(B, 3, H, W)``.
        """
        return Colorization(*self.stages(target, reference)[-2:])

    def stages(self, target: Tensor, reference: Tensor | ReferenceCode) -> Stages:
        """Run :meth:`forward` and return the results of all stages."""
        check_picture(target, "target")
        code = reference if isinstance(reference, ReferenceCode) else self.encode_reference(reference)
        base, extra = self.extra_inputs(target, code)
        features = self.target_encoder(target, *extra)
        decoded, mid = self.decoder(features, code)
        return Stages(features, code.features, decoded, mid, self.refiner(base, mid, decoded))

    def extra_inputs(self, target: Tensor, reference: Tensor | ReferenceCode) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the picture that stage 3 refines (here the target), and extra inputs of E_g (here none)."""
        return target, ()

    def encode_reference(self, reference: Tensor) -> ReferenceCode:
        """Compute all that depends only on the reference, ``(B, 3, H, W)`` in [-1, 1], for repeated use.

        Raises:
            ValueError: a height or width is not a multiple of 16, or the tensor is not ``(B, 3, H, W)``.
        """
        check_picture(reference, "reference")
        return self.decoder.encode_reference(self.reference_encoder(reference))

    def codes(self, stages: Stages) -> tuple[Codes, Codes]:
        """Return the outputs of the training heads of the target's and the reference's encoder."""
        return (
            self.target_encoder.codes(stages.target_features[-1]),
            self.reference_encoder.codes(stages.reference_features[-1]),
        )


def check_picture(image: Tensor, name: str) -> None:
    """Raise ValueError unless ``image`` is ``(B, 3, H, W)`` with sides that are multiples of 16."""
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"{name} must be (B, 3, H, W), not {tuple(image.shape)}")
    height, width = image.shape[2:]
    if height % STRIDE or width % STRIDE or not height or not width:
        raise ValueError(
            f"{name} is {height}×{width}; height and width must be multiples of {STRIDE}"
            " (pdnla.Colorizer takes pictures of any size)"
        )
