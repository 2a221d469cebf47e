"""Colouring of images of any size: the target keeps its luminance, and a reference can be reused."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pdnla.devices import choose_device, choose_precision, compiled
from pdnla.errors import UserError
from pdnla.export import load_exported
from pdnla.fast import for_inference
from pdnla.images import color
from pdnla.images.io import Picture, picture_from_pil
from pdnla.images.sixteen_bits import Pixels
from pdnla.inference.chroma_upscaling import ChromaPlane
from pdnla.inference.fitting import Fit
from pdnla.inference.preprocessing import NATIVE, network_input, rows_tensor, working_size
from pdnla.network import STRIDE
from pdnla.network.correspondence import Carried
from pdnla.pretrained import is_exported
from pdnla.weights import load_network

_UNKNOWN = 0.5  # confidence of colours whose network estimates none

_Result = TypeVar("_Result")

STRIP_PIXELS = 1 << 18
"""Full-size pixels converted at a time, which limits the memory of a huge picture."""


@runtime_checkable
class ChromaNetwork(Protocol):
    """A network that returns chroma directly.

    For other networks, the :class:`Colorizer` uses the chroma of ``forward(target, reference).out``, which is sRGB.
    """

    def chroma(self, target: Tensor, reference: Any) -> Tensor:
        """Return a* and b* of ``target`` in CIELAB's units, ``(B, 2, H, W)`` in float32.

        Args:
            target: grey pictures in three equal channels, ``(B, 3, H, W)`` in [-1, 1].
            reference: pictures in colour, ``(B, 3, H', W')`` in [-1, 1], or a result of ``encode_reference``.
        """
        ...


@runtime_checkable
class CarryingNetwork(Protocol):
    """A network that estimates the confidence of its chroma."""

    def carried(self, target: Tensor, reference: Any) -> Carried:
        """Return chroma as :meth:`ChromaNetwork.chroma` does, and its confidence."""
        ...


class WorkingColours(NamedTuple):
    """The network's result for a picture, at the working size.

    Attributes:
        lightness: the target's L*, ``(1, 1, h, w)``.
        chroma: the result's a* and b*, ``(1, 2, h, w)``.
    """

    lightness: Tensor
    chroma: Tensor


class Encoded(NamedTuple):
    """A reference that a network has encoded.

    Attributes:
        code: the network's encoding of it.
        picture: the reference at its working size, sRGB in [0, 1], ``(1, 3, H, W)``.
    """

    code: Any
    picture: Tensor


@runtime_checkable
class JoiningNetwork(Protocol):
    """A network that chooses among the places of several references itself."""

    def join_references(self, codes: Sequence[Any]) -> Sequence[Any]:
        """Return codes with the places of all references: one for each, or one that serves whichever fits best.

        Args:
            codes: results of ``encode_reference``, each for one picture.
        """
        ...


class Colorizer:
    """Colours pictures with the colours of a reference, with a trained network.

    >>> colorizer = Colorizer()
    >>> coloured = colorizer(target, reference)                        # PIL images in and out
    >>> colorizer.set_reference(reference)                             # once,
    >>> album = [colorizer.colorize(target) for target in targets]     # for many targets

    The network processes pictures of about ``size``² pixels, or at their own size; the result has the size, L* and
    alpha of the target. If a colour with this L* is outside sRGB, its chroma is reduced and its hue kept.

    On a CPU, a program that colours many pictures is about a fifth faster if it calls
    :func:`pdnla.memory.keep_freed_memory` once at its start, as the commands do. A Colorizer does not call it, because
    it changes memory allocation in the whole process.

    Args:
        weights: a file or name that :func:`pdnla.weights.load_network` reads; an exported network, ``.onnx`` or
            ``.pt2``; or a network, which is copied.
        device: ``auto`` (a CUDA device if there is one, else the CPU) or a torch device such as ``cuda:1``.
        precision: ``float32``, ``bfloat16``, or ``auto``: bfloat16 if the hardware supports it. An exported network
            has a fixed precision.
        size: the network sees pictures with about the area of a square with this side in pixels; ``native``: at
            their own size, rounded to multiples of 16.
        compile: compile the network (``torch.compile``), for many pictures on a GPU: the first one takes minutes. The
            compiled code is cached for later runs. CPUs are faster without it, because compiled code cannot call the
            package's own convolutions.
        accelerate: use the fast modules of :mod:`pdnla.fast`; False: the plain modules.

    Raises:
        UserError: the weights cannot be read, the device is not available, or the value of an option is invalid.
    """

    def __init__(
        self,
        weights: str | Path | nn.Module = "default",
        device: str | torch.device = "auto",
        precision: str = "auto",
        size: int | str = 512,
        compile: bool = False,
        accelerate: bool = True,
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
            if accelerate:
                network = for_inference(network, self.dtype, copied=network is weights)
            elif network is weights:
                network = copy.deepcopy(network).eval().requires_grad_(False)
            self.network = network.to(self.device)
            if compile:
                self.network = compiled(self.network, self.device)
        self._codes: Sequence[Any] = ()
        self._fit: Fit | None = None

    def __call__(self, target: Image.Image | Picture, reference: Image.Image | Picture) -> Image.Image:
        """Return ``target`` in the colours of ``reference``; a reference set by :meth:`set_reference` is kept."""
        return self.colorize_many([target], [reference])[0]

    def set_reference(self, reference: Image.Image | Picture) -> None:
        """Encode ``reference`` for :meth:`colorize` and :meth:`colorize_many`."""
        self.set_references([reference])

    def set_references(self, references: Sequence[Image.Image | Picture]) -> None:
        """Encode several references, for :meth:`colorize` and :meth:`colorize_many`.

        Correspondence chooses among the places of all. The rest of the network uses the reference that fits each target
        best, the one with the most similar content (:class:`~pdnla.inference.fitting.Fit`).

        Raises:
            ValueError: there is no reference.
        """
        self.use([self.encode(reference) for reference in references])

    @torch.inference_mode()
    def encode(self, reference: Image.Image | Picture) -> Encoded:
        """Compute all that depends only on ``reference``, for :meth:`use`."""
        picture = network_input(_as_picture(reference), self.size, grey=False).to(self.device)
        with self._precision():
            return Encoded(self.network.encode_reference(picture * 2 - 1), picture)

    @torch.inference_mode()
    def use(self, references: Sequence[Encoded]) -> None:
        """Set encoded references, like :meth:`set_references`.

        Raises:
            ValueError: there is no reference.
        """
        if not references:
            raise ValueError("there is no reference; give one at least")
        codes = [reference.code for reference in references]
        joining = len(codes) > 1 and isinstance(self.network, JoiningNetwork)
        self._codes = self.network.join_references(codes) if joining else codes
        self._fit = None
        if len(self._codes) > 1:
            self._fit = Fit([reference.picture for reference in references], self.device)

    def colorize(self, target: Image.Image | Picture) -> Image.Image:
        """Return ``target`` in the colours of the set reference: mode RGB, or RGBA if the target has alpha.

        Raises:
            RuntimeError: no reference is set.
            UserError: the network's result is not finite, or the device's memory is too small.
        """
        return self.colorize_many([target])[0]

    def colorize_many(
        self,
        targets: Sequence[Image.Image | Picture],
        references: Sequence[Image.Image | Picture] | None = None,
    ) -> list[Image.Image]:
        """Colour ``targets``; those with the same working size form a batch.

        Args:
            targets: pictures of any sizes.
            references: one for each target; None for those set by :meth:`set_reference` or :meth:`set_references`.

        Returns:
            The results in the order of ``targets``, as from :meth:`colorize`.

        Raises:
            RuntimeError: no reference is set or given.
            ValueError: the numbers of references and targets differ.
            UserError: the network's result is not finite, or the device's memory is too small.
        """
        return self._colour(targets, references, paint)

    def colorize_16_bits(
        self,
        targets: Sequence[Image.Image | Picture],
        references: Sequence[Image.Image | Picture] | None = None,
    ) -> list[Pixels]:
        """Colour ``targets`` like :meth:`colorize_many`, with 16 bits per channel, for which Pillow has no colour mode.

        Returns:
            sRGB, ``(H, W, 3)``, or ``(H, W, 4)`` if a target has alpha. The L* of a 16-bit grey target is kept to
            within 0.001.
        """
        return self._colour(targets, references, paint_16_bits)

    def working_colours(
        self, target: Image.Image | Picture, reference: Image.Image | Picture | None = None
    ) -> WorkingColours:
        """Run the network on one picture and return its colours before they are upscaled, to be changed.

        Args:
            target: the picture to colour.
            reference: None for the one set by :meth:`set_reference`.

        Raises:
            RuntimeError: no reference was set and none is given.
            UserError: see :meth:`colorize`.
        """
        if reference is None and not self._codes:
            raise RuntimeError("no reference: call set_reference first, or give one")
        with torch.inference_mode():
            grey = network_input(_as_picture(target), self.size, grey=True).to(self.device)
            colours = None if reference is None else network_input(_as_picture(reference), self.size, grey=False)
            return WorkingColours(color.lightness(grey), self.predict(grey, colours))

    def paint(self, target: Image.Image | Picture, plane: ChromaPlane) -> Image.Image:
        """Return ``target`` with its own L* and the chroma of ``plane``, like :meth:`colorize`.

        A third map of the plane, besides a* and b*, is the share of the target's own a* and b* that is added.
        """
        with torch.inference_mode():
            return paint(_as_picture(target), plane, self.device)

    def paint_16_bits(self, target: Image.Image | Picture, plane: ChromaPlane) -> Pixels:
        """Return the result of :meth:`paint` like :meth:`colorize_16_bits`."""
        with torch.inference_mode():
            return paint_16_bits(_as_picture(target), plane, self.device)

    def _colour(
        self,
        targets: Sequence[Image.Image | Picture],
        references: Sequence[Image.Image | Picture] | None,
        paint: Callable[[Picture, ChromaPlane, torch.device], _Result],
    ) -> list[_Result]:
        if references is None and not self._codes:
            raise RuntimeError("no reference: call set_reference first, or give references")
        if references is not None and len(references) != len(targets):
            raise ValueError(f"{len(targets)} targets need as many references, not {len(references)}")
        pictures = [_as_picture(target) for target in targets]
        reference_pictures = None if references is None else [_as_picture(reference) for reference in references]
        groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for index, picture in enumerate(pictures):
            sizes = [picture.size]
            if reference_pictures is not None:
                sizes.append(reference_pictures[index].size)
            groups[tuple(working_size(size, self.size) for size in sizes)].append(index)
        results: dict[int, _Result] = {}
        with torch.inference_mode():
            for indices in groups.values():
                grey = torch.cat([network_input(pictures[i], self.size, grey=True) for i in indices])
                reference = None
                if reference_pictures is not None:
                    inputs = [network_input(reference_pictures[i], self.size, grey=False) for i in indices]
                    reference = torch.cat(inputs)
                grey = grey.to(self.device)
                chroma = self.predict(grey, reference)
                lightness = color.lightness(grey)
                for row, index in enumerate(indices):
                    plane = ChromaPlane.fit(lightness[row : row + 1], chroma[row : row + 1], pictures[index].size)
                    results[index] = paint(pictures[index], plane, self.device)
        return [results[index] for index in range(len(pictures))]

    def predict(self, grey: Tensor, reference: Tensor | None = None) -> Tensor:
        """Run the network on grey pictures at a working size.

        Args:
            grey: three equal channels, sRGB in [0, 1], ``(B, 3, h, w)``, sides multiples of 16, on the device.
            reference: colour pictures in [0, 1], ``(B, 3, h', w')``; None for those set before.

        Returns:
            a* and b*, ``(B, 2, h, w)``.

        Raises:
            UserError: the network's result is not finite, or the device's memory is too small.
        """
        if reference is None:
            return self._run_after_references(grey, confidence=False).chroma
        return self._run(grey, reference.to(self.device) * 2 - 1, confidence=False).chroma

    def estimate(self, grey: Tensor) -> Carried:
        """Return the result of :meth:`predict` for the set references, with a confidence for each pixel.

        For a network without confidence, it is the same everywhere.
        """
        return self._run_after_references(grey, confidence=True)

    def _run_after_references(self, grey: Tensor, confidence: bool) -> Carried:
        if self._fit is None:
            return self._run(grey, self._codes[0], confidence)
        rows = [self._run(row, self._codes[self._fit.best(row)], confidence) for row in grey.split(1)]
        return Carried(*(torch.cat(parts) for parts in zip(*rows, strict=True)))

    def _run(self, grey: Tensor, code: Any, confidence: bool) -> Carried:
        """Run the network on an encoded reference, or on colour pictures in [-1, 1].

        Without ``confidence``, a network's ``chroma`` is called, so that a subclass may change only that.
        """
        try:
            with self._precision():
                if confidence and isinstance(self.network, CarryingNetwork):
                    result = self.network.carried(grey * 2 - 1, code)
                elif isinstance(self.network, ChromaNetwork):
                    result = _with_unknown_confidence(self.network.chroma(grey * 2 - 1, code))
                else:
                    result = _with_unknown_confidence(
                        color.rgb_to_lab((self.network(grey * 2 - 1, code).out.float() + 1) / 2)[:, 1:]
                    )
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
                raise
            height, width = grey.shape[-2:]
            raise UserError(
                f"the memory of {self.device} is too small for --size {self.size} ({width}×{height} pixels) in batches"
                f" of {len(grey)}; use a smaller --size or --batch-size"
            ) from error
        if not bool(torch.isfinite(result.chroma).all()):
            way_out = (
                "the weights are damaged or were not trained to an end"
                if self.dtype is torch.float32
                else "try --precision float32"
            )
            raise UserError(f"the network's result is not finite in {_name(self.dtype)}; {way_out}")
        return result

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype is torch.bfloat16)


def _with_unknown_confidence(chroma: Tensor) -> Carried:
    return Carried(chroma, torch.full_like(chroma[:, :1], _UNKNOWN))


def colorize(
    target: Image.Image, reference: Image.Image, weights: str | Path | nn.Module = "default", **options: Any
) -> Image.Image:
    """Return ``target`` in the colours of ``reference``; ``options`` are those of :class:`Colorizer`.

    For more than one picture, use one :class:`Colorizer`.
    """
    return Colorizer(weights, **options)(target, reference)


def paint(picture: Picture, plane: ChromaPlane, device: torch.device) -> Image.Image:
    """Return ``picture`` with its own L* and the chroma of ``plane``, computed in strips to limit the memory."""
    result = Image.new("RGB", picture.size)
    for top, rgb in _strips(picture, plane, device, levels=255):
        result.paste(Image.fromarray(rgb.to(torch.uint8).cpu().numpy()), (0, top))
    if picture.alpha is not None:
        result.putalpha(picture.alpha)
    return result


def paint_16_bits(picture: Picture, plane: ChromaPlane, device: torch.device) -> Pixels:
    """Return the result of :func:`paint` with 16 bits per channel."""
    width, height = picture.size
    result = np.empty((height, width, 3 if picture.alpha is None else 4), np.uint16)
    for top, rgb in _strips(picture, plane, device, levels=65535):
        result[top : top + len(rgb), :, :3] = rgb.to(torch.int32).cpu().numpy()
    if picture.alpha is not None:
        result[..., 3] = np.asarray(picture.alpha, dtype=np.uint16) * 257
    return result


def _strips(picture: Picture, plane: ChromaPlane, device: torch.device, levels: int) -> Iterator[tuple[int, Tensor]]:
    """Yield strips of the result: the number of the first row, and integers up to ``levels``, ``(rows, W, 3)``."""
    width, height = picture.size
    step = max(1, STRIP_PIXELS // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        lightness, own = color.rgb_to_lab(rows_tensor(picture, top, bottom).to(device)).split([1, 2], dim=1)
        chroma = plane.rows(top, bottom, lightness)
        if chroma.shape[1] > 2:
            chroma = torch.addcmul(chroma[:, :2], chroma[:, 2:], own)
        lab = torch.cat([lightness, chroma], dim=1)
        rgb = color.lab_to_rgb_in_gamut(lab, levels=levels).mul_(levels).round_()
        yield top, rgb[0].permute(1, 2, 0).contiguous()


def _as_picture(image: Image.Image | Picture) -> Picture:
    return image if isinstance(image, Picture) else picture_from_pil(image)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
