"""PDNLA with inputs from a frozen network: transferred colours, their reliability, and the target's content."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import kornia.color
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.network.construction import keeps_construction
from pdnla.network.correspondence import CHANNELS, SIDE, Carried, Correspondence, Metric
from pdnla.network.decoder import ReferenceCode
from pdnla.network.encoder import Encoder
from pdnla.network.guide import HINTS, SHOWN, Expected, Guidance, Guide
from pdnla.network.layers import SLOPE, at_least_float32, grey_lightness, ramp
from pdnla.network.pdnla import PDNLA, STRIDE, Colorization, Stages, check_picture
from pdnla.network.prior import EXPECTED, ColorPrior, expected_hints
from pdnla.network.refiner import Refiner
from pdnla.network.semantic import painted, with_all_places
from pdnla.network.smoothing import guided_filter

INNER = 256
"""Larger pictures are coloured at about this many pixels squared; chroma has little detail that luminance lacks."""
REFERENCE = 64
"""E_c gets references at this many pixels squared; correspondence finds the places in them."""
SAME = (0.68, 0.78)
"""Mean agreement of the second opinion's round trips up to which a reference shows something else, such as another
photograph of the same place, and from which it shows the same, such as a frame of the same film."""
SAME_LIGHT = (0.025, 0.05)
"""Difference of L*/100 from the most similar places up to which a part of the reference shows the same in the same
light, such as what is left of the same photograph, and from which it shows something else or another light."""
_TOLERANCE = 1.25  # sides that are multiples of 16 make up a number of pixels only nearly
_BELIEF = 2.0  # before training, log odds that transferred colours are right


class Insight(nn.Module):
    """The target's content for E_g: the frozen network's maps, brought to E_g's channels from coarse to fine.

    ``p_3 = A_3 s_3``, ``p_i = A_i s_i + U_i up(p_(i+1))``, each through a leaky ReLU; map i gives ``C_i p_i``, with A
    and U 1×1 and C 3×3 convolutions (a feature pyramid: Lin et al., CVPR 2017).

    Args:
        shown: channels of the frozen maps, fine to coarse.
        outputs: channels to give at each.
    """

    def __init__(self, shown: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.taken = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(shown, outputs, strict=True))
        self.passed = nn.ModuleList(nn.Conv2d(coarse, fine, 1, bias=False) for fine, coarse in pairwise(outputs))
        self.given = nn.ModuleList(nn.Conv2d(o, o, 3, padding=1) for o in outputs)

    def forward(self, seen: Sequence[Tensor]) -> list[Tensor]:
        """Map the frozen maps, ``(B, shown_i, h_i, w_i)``, to ``(B, outputs_i, h_i, w_i)``, fine to coarse."""
        results: list[Tensor] = []
        above: Tensor | None = None
        for i in reversed(range(len(seen))):
            x: Tensor = self.taken[i](seen[i])
            if above is not None:
                passed = self.passed[i](above)
                x = x + F.interpolate(passed, x.shape[-2:], mode="bilinear", align_corners=False)
            above = F.leaky_relu(x, SLOPE)
            results.append(self.given[i](above))
        return results[::-1]


class InformedEncoder(Encoder):
    """E_g with :class:`Insight` at strides 4, 8 and 16, added before the tanh of f2, f3 and f4.

    Args:
        width: see :class:`~pdnla.network.encoder.Encoder`.
        extra: see :class:`~pdnla.network.encoder.Encoder`.
    """

    def __init__(self, width: int, extra: int) -> None:
        super().__init__(width, extra)
        self.insight = Insight(SHOWN, (4 * width, 8 * width, 16 * width))

    def forward(self, image: Tensor, *extra: Tensor) -> tuple[Tensor, ...]:
        """Map an image in [-1, 1], ``(B, 3, H, W)``, to its features f1..f4, ``(B, 2^i w, H / 2^i, W / 2^i)``.

        Args:
            image: the image.
            extra: maps of the image's size with ``extra`` channels, and :class:`Insight`'s frozen maps.
        """
        hints, *seen = extra
        x = self.stem(torch.cat([image, self.edges(image), hints], dim=1))
        x = torch.tanh(self.blocks[0](x))
        features = [x]
        for block, insight in zip(self.blocks[1:], self.insight(seen), strict=True):
            x = torch.tanh(block(x) + insight)
            features.append(x)
        return tuple(features)


class GatedRefiner(Refiner):
    """Stage 3 with a learned confidence in the transferred picture, compared with I_mid, at every pixel.

    ``I_out = I_mid + g (I_c - I_mid) + W x``, with I_c the transferred picture and ``g = sigmoid(V x + v)``, a learned
    confidence; both W and V are 1×1 convolutions of stage 3's last map.

    Args:
        channel: see :class:`~pdnla.network.refiner.Refiner`.
    """

    def __init__(self, channel: int) -> None:
        super().__init__(channel)
        self.gate = nn.Conv2d(channel, 1, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, _BELIEF)  # type: ignore[arg-type]
        nn.init.zeros_(self.to_rgb.weight)

    def finish(self, target: Tensor, mid: Tensor, x: Tensor) -> Tensor:
        """Return I_out, ``(B, 3, H, W)``, of the transferred picture, I_mid and stage 3's last map."""
        gate = torch.sigmoid(at_least_float32(self.gate(x)))
        mid = at_least_float32(mid)
        result: Tensor = mid + gate * (at_least_float32(target) - mid) + self.to_rgb(x)
        return result


class InformedInputs(NamedTuple):
    """What :class:`InformedPDNLA` colours a picture with.

    Attributes:
        target: the grey picture at the size of colouring, ``(B, 3, h, w)`` in [-1, 1].
        code: the encoded reference.
        guide: the guide, at the size of colouring.
        carried: the transferred colours at the target's own size.
        expected: colours to expect, where the network uses them.
    """

    target: Tensor
    code: ReferenceCode
    guide: Guide
    carried: Carried
    expected: Expected | None


@keeps_construction
class InformedPDNLA(PDNLA):
    """PDNLA that starts from semantic correspondence and gets the target's content.

    The input of E_g includes the transferred colours, a second opinion and signs of error in both
    (:class:`~pdnla.network.guide.Guide`); its coarser features include a frozen network's features of the target
    (:class:`Insight`). From these it can learn where colours are wrong and which are plausible. Stage 3 refines the
    transferred picture and weighs it against I_mid (:class:`GatedRefiner`). Pictures larger than :data:`INNER` pixels
    squared are matched at full size and coloured at that size; luminance guides the upsampling of their chroma.

    Args:
        backbone: see :class:`~pdnla.network.correspondence.Correspondence`.
        channel: see :class:`~pdnla.network.PDNLA`.
        side: see :class:`~pdnla.network.correspondence.Correspondence`.
        share: weight of the network's chroma in the result; correspondence's chroma has the weight ``1 - share``. Where
            both are wrong in different ways, their mean is nearer to the truth than either.
        learned: whether correspondence has a learned :class:`~pdnla.network.correspondence.Metric`.
        same_share: the same as ``share`` where the reference shows the same as the target, as a whole (:data:`SAME`)
            or a part of it (:data:`SAME_LIGHT`), since correspondence is more exact there; None: ``share``. In
            training, which has warped copies as references, ``share`` applies to all.
        prior: whether results are mixed with the colours that a :class:`~pdnla.network.prior.ColorPrior` lets expect,
            except in training and where correspondence has the whole result.
        expects: whether these colours and their spread are inputs of E_g, too.

    Raises:
        ValueError: the share is not over 0 and at most 1, ``same_share`` not from 0 to 1, the backbone's maps have
            other channels than EfficientNet-Lite0's, or ``expects`` without ``prior``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channel: int = 8,
        side: int = SIDE,
        share: float = 0.75,
        learned: bool = True,
        same_share: float | None = 0.0,
        prior: bool = True,
        expects: bool = False,
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share {share}: must be over 0 and at most 1")
        if same_share is not None and not 0 <= same_share <= 1:
            raise ValueError(f"same_share {same_share}: must be from 0 to 1")
        layers = getattr(backbone, "layers", None)
        if layers is not None and tuple(layers.values()) != CHANNELS:
            raise ValueError(f"backbone {getattr(backbone, 'name', '')}: must have maps of {CHANNELS} channels")
        if expects and not prior:
            raise ValueError("expects: a network without a prior expects no colours")
        super().__init__(channel)
        self.target_encoder = InformedEncoder(2 * channel, HINTS + EXPECTED * expects)
        self.refiner = GatedRefiner(channel)
        self.guidance = Guidance(backbone, side, Metric() if learned else None)
        self.share, self.same_share = share, share if same_share is None else same_share
        self.prior, self.expects = ColorPrior() if prior else None, expects

    @property
    def correspondence(self) -> Correspondence:
        """Its correspondence."""
        return self.guidance.correspondence

    def encode_reference(self, reference: Tensor) -> ReferenceCode:
        """Compute all that depends only on the reference, ``(B, 3, H, W)`` in [-1, 1], for repeated use.

        Raises:
            ValueError: a height or width is not a multiple of 16, or the tensor is not ``(B, 3, H, W)``.
        """
        return replace(self._without_spots(reference), spots=self.guidance.encode_reference(reference))

    def join_references(self, codes: Sequence[ReferenceCode]) -> list[ReferenceCode]:
        """Return for each of several references its code with the places of all of them."""
        return with_all_places(codes)

    def forward(self, target: Tensor, reference: Tensor | ReferenceCode, guide: Guide | None = None) -> Colorization:
        """Colour ``target``, like :meth:`PDNLA.forward <pdnla.network.PDNLA.forward>`.

        Args:
            target: grey picture in three equal channels, ``(B, 3, H, W)`` in [-1, 1].
            reference: colour picture, ``(B, 3, H', W')`` in [-1, 1], or its code from :meth:`encode_reference`.
            guide: the result of :class:`~pdnla.network.guide.Guidance` for both, for targets of about :data:`INNER`
                pixels squared or less; ``reference`` may then be as small as :data:`REFERENCE`. None: it is computed.

        Raises:
            ValueError: a height or width is not a multiple of 16, a tensor is not ``(B, 3, H, W)``, or the reference
                was encoded by a network without correspondence.
        """
        return Colorization(*self.stages(target, reference, guide)[-2:])

    def stages(self, target: Tensor, reference: Tensor | ReferenceCode, guide: Guide | None = None) -> Stages:
        """Run :meth:`forward` and return the results of all stages; the features have the size of colouring."""
        inputs = self._inputs(target, reference, guide)
        stages = self._coloured(inputs)
        mid = stages.mid
        if mid.shape != target.shape:
            mid = painted(target, enlarged_chroma(target, mid))
        elif self.share == self.same_share == 1 and self.prior is None:
            return stages
        return stages._replace(mid=mid, out=painted(target, self._mixed(target, inputs, stages.out)))

    def chroma(self, target: Tensor, reference: Tensor | ReferenceCode) -> Tensor:
        """Return the a* and b* of :meth:`forward`'s ``out``, ``(B, 2, H, W)``, not clipped to sRGB."""
        return self.carried(target, reference).chroma

    def carried(self, target: Tensor, reference: Tensor | ReferenceCode) -> Carried:
        """Return the result of :meth:`chroma`, with the confidence of correspondence."""
        return self._carried(target, self._inputs(target, reference, None))

    def _carried(self, target: Tensor, inputs: InformedInputs) -> Carried:
        chroma = self._mixed(target, inputs, self._coloured(inputs).out)
        return Carried(chroma, inputs.carried.confidence)

    def _inputs(self, target: Tensor, reference: Tensor | ReferenceCode, guide: Guide | None) -> InformedInputs:
        check_picture(target, "target")
        if isinstance(reference, ReferenceCode):
            code = reference
        else:
            code = self.encode_reference(reference) if guide is None else self._without_spots(reference)
        if guide is not None:
            carried = Carried(guide.chroma, guide.hints[:, 2:3])
            return InformedInputs(target, code, guide, carried, self._expected(target, guide))
        if code.spots is None:
            raise ValueError("the reference was encoded by a network without correspondence")
        small = _shrunk(target, INNER)
        guide, carried = self.guidance.with_carried(target, code.spots, (small.shape[-2], small.shape[-1]))
        return InformedInputs(small, code, guide, carried, self._expected(small, guide))

    def _expected(self, target: Tensor, guide: Guide) -> Expected | None:
        if guide.expected is not None or self.prior is None or (self.training and not self.expects):
            return guide.expected
        with torch.no_grad():
            return self.prior.expected(target, guide.seen)

    def _coloured(self, inputs: InformedInputs) -> Stages:
        """Return all stages' results at the size of colouring."""
        target, code, guide = inputs.target, inputs.code, inputs.guide
        hints, *maps = (x.to(target.dtype) for x in (guide.hints, *guide.seen))
        if self.expects:
            assert inputs.expected is not None
            more = expected_hints(inputs.expected, (target.shape[-2], target.shape[-1]))
            hints = torch.cat([hints, more.to(target.dtype)], dim=1)
        features = self.target_encoder(target, hints, *maps)
        decoded, mid = self.decoder(features, code)
        out = self.refiner(painted(target, guide.chroma), mid, decoded)
        return Stages(features, code.features, decoded, mid, out)

    def _mixed(self, target: Tensor, inputs: InformedInputs, out: Tensor) -> Tensor:
        """Return the result's a* and b* at the target's size, of I_out and of the transferred colours."""
        share = self._share(inputs.guide)
        values = _lab(out)[:, 1:]
        prior = None if self.training else self.prior
        if prior is not None:
            assert inputs.expected is not None
            pull = prior.pull(inputs.target, inputs.guide, inputs.expected) * self._part_of_prior(share)
            values = torch.cat([values, pull.to(values.dtype)], dim=1)
        if out.shape != target.shape:
            values = _enlarged(target, values)
            share = F.interpolate(share, target.shape[-2:], mode="bilinear", align_corners=False)
        chroma = torch.lerp(inputs.carried.chroma.to(values.dtype), values[:, :2], share.to(values.dtype))
        return chroma if prior is None else (1 - values[:, 2:3]) * chroma + values[:, 3:]

    def part_of_prior(self, guide: Guide) -> Tensor:
        """Return by how much the prior's weight is multiplied, ``(B, 1, H, W)``: less where the network's share is."""
        return self._part_of_prior(self._share(guide))

    def _part_of_prior(self, share: Tensor) -> Tensor:
        return (share / self.share).clamp(max=1)

    def _share(self, guide: Guide) -> Tensor:
        """Return the weight of the network's chroma, ``(B, 1, H, W)``."""
        same_share = self.share if self.training else self.same_share
        agreement = at_least_float32(guide.hints[:, -1:])
        shows_same = ramp(agreement.mean(dim=(1, 2, 3), keepdim=True), *SAME)
        if guide.difference is not None:
            shows_same = torch.maximum(shows_same, 1 - ramp(at_least_float32(guide.difference), *SAME_LIGHT))
        return self.share + (same_share - self.share) * shows_same.expand_as(agreement)

    def _without_spots(self, reference: Tensor) -> ReferenceCode:
        check_picture(reference, "reference")
        return super().encode_reference(_shrunk(reference, REFERENCE))


def _shrunk(picture: Tensor, side: int) -> Tensor:
    """Bring a picture of clearly over ``side``² pixels to about as many, in multiples of 16; leave others."""
    height, width = picture.shape[-2:]
    if height * width <= _TOLERANCE * side**2:
        return picture
    factor = side / math.sqrt(height * width)
    size = [max(1, round(length * factor / STRIDE)) * STRIDE for length in (height, width)]
    return F.interpolate(picture, size, mode="bilinear", align_corners=False, antialias=True)


def enlarged_chroma(target: Tensor, result: Tensor) -> Tensor:
    """Return the a* and b* of a smaller result at the target's size, which follow its edges, ``(B, 2, H, W)``.

    Args:
        target: grey sRGB in [-1, 1], ``(B, 3, H, W)``.
        result: sRGB in about [-1, 1], ``(B, 3, h, w)``.
    """
    return _enlarged(target, _lab(result)[:, 1:])


def _enlarged(target: Tensor, values: Tensor) -> Tensor:
    """Return values of a smaller size at the target's, which follow its edges."""
    with torch.autocast(target.device.type, enabled=False):
        guide = grey_lightness((at_least_float32(target[:, :1]) + 1) / 2)
        values = F.interpolate(values, guide.shape[-2:], mode="bilinear", align_corners=False)
        return guided_filter(guide, values)


def _lab(picture: Tensor) -> Tensor:
    """Return CIELAB of sRGB in [-1, 1], ``(B, 3, H, W)``."""
    with torch.autocast(picture.device.type, enabled=False):
        lab: Tensor = kornia.color.rgb_to_lab((at_least_float32(picture) + 1) / 2)
        return lab
