"""Images in, images out: any size, the reference kept between targets, the target's luminance kept."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from pdnla.devices import choose_device, choose_precision, compiled
from pdnla.errors import UserError
from pdnla.export import load_exported
from pdnla.fast import for_inference
from pdnla.images import color
from pdnla.images.io import Picture, picture_from_pil
from pdnla.memory import keep_freed_memory
from pdnla.network import STRIDE
from pdnla.pretrained import is_exported
from pdnla.weights import load_network

NATIVE = "native"
"""The size at which the network sees each picture at its own."""
_LONGEST = 8  # the longer working side is at most so many times `size`: beyond it, a strip is squeezed instead
_STRIP_PIXELS = 1 << 18  # full-size pixels coloured at a time: what bounds the memory of a huge picture
_EPSILON = 1e-3  # of the guided filter: variance of L*/100 under which a neighbourhood counts as flat


class Colorizer:
    """Colours pictures after a reference with a trained network.

    >>> colorizer = Colorizer()
    >>> coloured = colorizer(target, reference)                        # PIL images in and out
    >>> colorizer.set_reference(reference)                             # once,
    >>> album = [colorizer.colorize(target) for target in targets]     # for many targets

    The network works on pictures of about ``size``² pixels, or at their own size; the result has the target's own
    size, L* and alpha. Where a colour does not fit in sRGB under that L*, its chroma is reduced and its hue kept.

    Args:
        weights: what :func:`pdnla.weights.load_network` reads, a file or the name of weights that come with the
            package; an exported network, ``.onnx`` or ``.pt2``; or a network, which is copied.
        device: ``auto`` (a CUDA device if there is one, else the CPU) or a torch device such as ``cuda:1``.
        precision: ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the hardware computes in it. An exported
            network has its own.
        size: the network sees pictures of about this many pixels squared, whatever their aspect; ``native``: at their
            own size, to the nearest multiples of 16.
        compile: compile the network (``torch.compile``), for many pictures on a GPU: the first one takes minutes. What
            was compiled is kept and serves later runs. CPUs are faster without: compiled code cannot call the package's
            own convolutions.

    Raises:
        UserError: the weights cannot be read, the device is not there, or an option has no such value.
    """

    def __init__(
        self,
        weights: str | Path | nn.Module = "default",
        device: str | torch.device = "auto",
        precision: str = "auto",
        size: int | str = 512,
        compile: bool = False,
    ) -> None:
        if isinstance(size, str) and size != NATIVE:
            raise UserError(f"size {size} is not known; use {NATIVE} or a number, 512 for the published network")
        if not isinstance(size, str) and size < STRIDE:
            raise UserError(f"size {size} is too small; use at least {STRIDE}, 512 for the published network")
        self.size = size
        self.device = choose_device(device)
        self.network: Any
        if isinstance(weights, str | Path) and is_exported(weights):
            if compile:
                raise UserError(f"--compile: {weights} is compiled by its own runtime already; leave --compile out")
            exported = load_exported(weights, None if str(device) == "auto" else self.device)
            self.device = exported.device
            if precision not in ("auto", exported.precision):
                own = exported.precision
                raise UserError(f"{weights}: was exported in {own}; leave --precision out, or export it in {precision}")
            self.network, self.dtype = exported, torch.float32
        else:
            network = load_network(weights) if isinstance(weights, str | Path) else weights
            self.dtype = choose_precision(precision, self.device)
            self.network = for_inference(network, self.dtype, copied=network is weights).to(self.device)
            if compile:
                self.network = compiled(self.network, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self._code: Any = None

    def __call__(self, target: Image.Image | Picture, reference: Image.Image | Picture) -> Image.Image:
        """Return ``target`` in the colours of ``reference``; one set by :meth:`set_reference` stays set."""
        return self.colorize_many([target], [reference])[0]

    def set_reference(self, reference: Image.Image | Picture) -> None:
        """Keep what depends on ``reference`` alone, for :meth:`colorize` and :meth:`colorize_many`."""
        with torch.inference_mode():
            tensor = _network_input(_as_picture(reference), self.size, grey=False).to(self.device)
            with self._precision():
                self._code = self.network.encode_reference(tensor * 2 - 1)

    def colorize(self, target: Image.Image | Picture) -> Image.Image:
        """Return ``target`` in the colours of the reference set: mode RGB, or RGBA if the target has alpha.

        Raises:
            RuntimeError: no reference was set.
            UserError: the network's result is not finite, or the device's memory is too small.
        """
        return self.colorize_many([target])[0]

    def colorize_many(
        self,
        targets: Sequence[Image.Image | Picture],
        references: Sequence[Image.Image | Picture] | None = None,
    ) -> list[Image.Image]:
        """Colour ``targets``, those of one working size in one batch.

        Args:
            targets: what to colour, of any sizes.
            references: one for each target; None for the one set by :meth:`set_reference`.

        Returns:
            The results in the order of ``targets``, as from :meth:`colorize`.

        Raises:
            RuntimeError: no reference was set and none is given.
            ValueError: there are not as many references as targets.
            UserError: the network's result is not finite, or the device's memory is too small.
        """
        if references is None and self._code is None:
            raise RuntimeError("no reference: call set_reference first, or give references")
        if references is not None and len(references) != len(targets):
            raise ValueError(f"{len(targets)} targets need as many references, not {len(references)}")
        pictures = [_as_picture(target) for target in targets]
        guides = None if references is None else [_as_picture(reference) for reference in references]
        groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for index, picture in enumerate(pictures):
            sizes = [picture.size] if guides is None else [picture.size, guides[index].size]
            groups[tuple(working_size(size, self.size) for size in sizes)].append(index)
        results: dict[int, Image.Image] = {}
        with torch.inference_mode():
            for indices in groups.values():
                grey = torch.cat([_network_input(pictures[i], self.size, grey=True) for i in indices])
                colours = None
                if guides is not None:
                    colours = torch.cat([_network_input(guides[i], self.size, grey=False) for i in indices])
                grey = grey.to(self.device)
                chroma = self._chroma(grey, colours)
                lightness = color.rgb_to_lab(grey)[:, :1]
                for row, index in enumerate(indices):
                    plane = ChromaPlane.fit(lightness[row : row + 1], chroma[row : row + 1], pictures[index].size)
                    results[index] = _paint(pictures[index], plane, self.device)
        return [results[index] for index in range(len(pictures))]

    def _chroma(self, grey: Tensor, reference: Tensor | None) -> Tensor:
        """Run the network on grey pictures in [0, 1], ``(B, 3, h, w)``: a* and b*, ``(B, 2, h, w)``."""
        try:
            with self._precision():
                code = self._code if reference is None else reference.to(self.device) * 2 - 1
                out = self.network(grey * 2 - 1, code).out
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
                raise
            height, width = grey.shape[-2:]
            raise UserError(
                f"the memory of {self.device} is too small for --size {self.size} ({width}×{height} pixels) in batches"
                f" of {len(grey)}; use a smaller --size or --batch-size"
            ) from error
        if not bool(torch.isfinite(out).all()):
            way_out = (
                "the weights are damaged or were not trained to an end"
                if self.dtype is torch.float32
                else "try --precision float32"
            )
            raise UserError(f"the network's result is not finite in {_name(self.dtype)}; {way_out}")
        return color.rgb_to_lab((out.float() + 1) / 2)[:, 1:]

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype is torch.bfloat16)


def colorize(
    target: Image.Image, reference: Image.Image, weights: str | Path | nn.Module = "default", **options: Any
) -> Image.Image:
    """Return ``target`` in the colours of ``reference``; ``options`` are :class:`Colorizer`'s.

    For more than one picture make a :class:`Colorizer` once.
    """
    return Colorizer(weights, **options)(target, reference)


def working_size(size: tuple[int, int], target: int | str) -> tuple[int, int]:
    """Return the width and height at which the network sees a picture of ``size``: multiples of 16.

    Where ``target`` is ``native``, they are the nearest to its own. Else the area is about ``target``² and the aspect
    is kept as nearly as possible: of the sides around the ideal ones those are taken that bend the aspect least, where
    the area's deviation counts a fifth. Beyond an aspect of 64 the longer side stays at 8 × ``target`` and the picture
    is squeezed.
    """
    if isinstance(target, str):
        own = [max(1, round(side / STRIDE)) * STRIDE for side in size]
        return own[0], own[1]
    aspect = size[0] / size[1]
    width = min(target * math.sqrt(aspect), _LONGEST * target)
    height = min(target / math.sqrt(aspect), _LONGEST * target)

    def cost(sides: tuple[int, int]) -> float:
        bend = abs(math.log(sides[0] / sides[1] / aspect))
        return bend + 0.2 * abs(math.log(sides[0] * sides[1] / target**2))

    return min(((w, h) for w in _around(width) for h in _around(height)), key=cost)


def _around(side: float) -> list[int]:
    steps = int(side // STRIDE)
    return [max(step, 1) * STRIDE for step in range(steps - 1, steps + 3)]


class ChromaPlane(NamedTuple):
    """Chroma for every pixel of a picture: slope · L*/100 + offset, kept between a least and a most.

    Attributes:
        coefficients: slope, offset, least and most, each of a* and b*, on the working grid, ``(1, 8, h, w)``.
        size: width and height of the picture.
    """

    coefficients: Tensor
    size: tuple[int, int]

    @classmethod
    def fit(cls, lightness: Tensor, chroma: Tensor, size: tuple[int, int]) -> "ChromaPlane":
        """Bring chroma from the working size to ``size``, guided by lightness where that is larger.

        The slope is that of the fast guided filter (He and Sun 2015), the local regression of chroma on
        lightness. The offset is not the paper's, whose window means smooth chroma, but the one under which
        the working picture keeps its chroma exactly. Chroma stays within that of the neighbouring working
        pixels, so that grain and sharp detail of the full picture call up no colour that is not there.

        Args:
            lightness: L* at the working size, ``(1, 1, h, w)``.
            chroma: a* and b*, ``(1, 2, h, w)``.
            size: width and height of the full picture. If neither is larger than the working size, chroma is
                only resized, or left as it is.
        """
        height, width = min(chroma.shape[-2], size[1]), min(chroma.shape[-1], size[0])
        if (height, width) != chroma.shape[-2:]:
            lightness, chroma = _shrink(lightness, height, width), _shrink(chroma, height, width)
        if (width, height) == size:
            return cls(torch.cat([torch.zeros_like(chroma), chroma, chroma, chroma], dim=1), size)
        guide = lightness / 100
        guide_mean, chroma_mean = _window_mean(guide), _window_mean(chroma)
        variance = (_window_mean(guide**2) - guide_mean**2).clamp(min=0)
        covariance = _window_mean(guide * chroma) - guide_mean * chroma_mean
        slope = _window_mean(covariance / (variance + _EPSILON))
        offset = chroma - slope * guide
        return cls(torch.cat([slope, offset, -_window_max(-chroma), _window_max(chroma)], dim=1), size)

    def rows(self, top: int, bottom: int, lightness: Tensor) -> Tensor:
        """Return a* and b* of the rows from ``top`` up to ``bottom``, ``(1, 2, bottom - top, W)``.

        Args:
            top: the first row.
            bottom: the row after the last one.
            lightness: L* of these rows at full size, ``(1, 1, bottom - top, W)``.
        """
        slope, offset, least, most = self._interpolate(top, bottom).chunk(4, dim=1)
        return torch.addcmul(offset, slope, lightness / 100).clamp_(least, most)

    def _interpolate(self, top: int, bottom: int) -> Tensor:
        """Interpolate the coefficients between pixel centres: the same numbers however the rows are cut."""
        height, (full_width, full_height) = self.coefficients.shape[-2], self.size
        centres = torch.arange(top, bottom, device=self.coefficients.device) + 0.5
        position = (centres * (height / full_height) - 0.5).clamp(0, height - 1)
        above = position.floor().long()
        below = (above + 1).clamp(max=height - 1)
        weight = (position - above).unsqueeze(-1)
        rows = torch.lerp(self.coefficients[:, :, above], self.coefficients[:, :, below], weight)
        if rows.shape[-1] == full_width:
            return rows
        return functional.interpolate(rows, size=(bottom - top, full_width), mode="bilinear", align_corners=False)


def _shrink(x: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(x, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def _window_mean(x: Tensor) -> Tensor:
    """Return the mean over each pixel and its neighbours, as far as they lie inside the picture."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _window_max(x: Tensor) -> Tensor:
    """Return the largest value among each pixel and its neighbours."""
    return functional.max_pool2d(x, 3, stride=1, padding=1)


def _paint(picture: Picture, plane: ChromaPlane, device: torch.device) -> Image.Image:
    """Return ``picture`` in its own L* and the chroma of ``plane``, in strips, which bounds the memory."""
    width, height = picture.size
    result = Image.new("RGB", picture.size)
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        lightness = color.rgb_to_lab(_rows(picture, top, bottom).to(device))[:, :1]
        lab = torch.cat([lightness, plane.rows(top, bottom, lightness)], dim=1)
        rgb = color.lab_to_rgb_in_gamut(lab).mul_(255).round_().to(torch.uint8)
        result.paste(Image.fromarray(rgb[0].permute(1, 2, 0).contiguous().cpu().numpy()), (0, top))
    if picture.alpha is not None:
        result.putalpha(picture.alpha)
    return result


def _as_picture(image: Image.Image | Picture) -> Picture:
    return image if isinstance(image, Picture) else picture_from_pil(image)


def _network_input(picture: Picture, size: int | str, grey: bool) -> Tensor:
    """Return ``picture`` at its working size, grey if asked, sRGB in [0, 1], ``(1, 3, h, w)``."""
    small = picture.resized(working_size(picture.size, size))
    rgb = _rows(small, 0, small.size[1])
    is_grey = picture.colour.mode != "RGB"
    return color.grey(rgb) if grey and not is_grey else rgb.contiguous()


def _rows(picture: Picture, top: int, bottom: int) -> Tensor:
    """Return rows of ``picture`` as sRGB in [0, 1], ``(1, 3, bottom - top, W)``."""
    rows = torch.from_numpy(picture.rows(top, bottom)).permute(2, 0, 1).unsqueeze(0)
    return rows.expand(1, 3, -1, -1)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
