"""Which device to compute on, in which precision, and compiled for it."""

import logging
import os
from typing import Any

import torch
from torch import Tensor, nn

from pdnla.errors import UserError
from pdnla.fast import native
from pdnla.files import cache_folder

log = logging.getLogger(__name__)

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""By name, what a network can be computed in: float16 in exported files alone."""
_HERE = ("float32", "bfloat16")
COMPILED_SIZES = 8
"""Sizes that a network is compiled for; torch gives up at as many."""


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return a torch device; ``auto`` is a CUDA device if there is one, else the CPU.

    Raises:
        UserError: the device is not there.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        available = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise UserError(f"device {device} is not there; use auto or one of {', '.join(available)}") from error
    return found


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the type to compute in: ``float32``, ``bfloat16``, or ``auto``, bfloat16 where the hardware has it.

    Raises:
        UserError: there is no such precision.
    """
    if precision == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    if precision not in _HERE:
        raise UserError(f"precision {precision} is not known; use auto, {' or '.join(_HERE)}")
    return PRECISIONS[precision]


def _has_bfloat16(device: torch.device) -> bool:
    """Return whether ``device`` multiplies bfloat16 natively; emulated, it would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        checks = (getattr(torch.cpu, name, None) for name in names)
        return any(check is not None and bool(check()) for check in checks)
    return False


class CompiledForSizes(nn.Module):
    """A network compiled for the first few sizes of pictures that it is called with, and run as it is at all others.

    Each size is compiled by itself, which takes minutes; an album of pictures as they come could do so for hours. Of a
    network that returns chroma, its ``chroma`` is compiled, and ``forward`` is that too.

    Args:
        network: a model (:mod:`pdnla.models`).
        mode: ``torch.compile``'s.
    """

    def __init__(self, network: nn.Module, mode: str) -> None:
        super().__init__()
        self.network: Any = network
        self.function: Any = getattr(network, "chroma", network)
        self.compiled = torch.compile(self.function, mode=mode, dynamic=False)
        self.sizes: set[tuple[Any, ...]] = set()
        self._said = False
        if hasattr(network, "chroma"):
            self.chroma = self.forward

    def encode_reference(self, reference: Tensor) -> Any:
        """Return what the network does."""
        return self.network.encode_reference(reference)

    def forward(self, target: Tensor, reference: Any) -> Any:
        """Return what the network does."""
        size = (_sizes(target), _sizes(reference))
        if size in self.sizes or len(self.sizes) < COMPILED_SIZES:
            self.sizes.add(size)
            return self.compiled(target, reference)
        if not self._said:
            self._said = True
            log.warning("--compile: more than %d sizes of pictures; further ones run uncompiled", COMPILED_SIZES)
        return self.function(target, reference)


def _sizes(pictures: Any) -> Any:
    """Return the shapes of a tensor, or of all that are in tuples of tensors."""
    return pictures.shape if isinstance(pictures, Tensor) else tuple(map(_sizes, pictures or ()))


def compiled(network: nn.Module, device: torch.device) -> CompiledForSizes:
    """Return a network whose calls are compiled at a few sizes, with CUDA graphs on a CUDA device.

    The code that is made is kept with the other caches (or in ``$TORCHINDUCTOR_CACHE_DIR``), so that a later process
    only traces.
    """
    if device.type == "cpu":
        native.load_libraries()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
    return CompiledForSizes(network, "reduce-overhead" if device.type == "cuda" else "default")
