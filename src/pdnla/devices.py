"""The choice of device and precision, and compilation for a device."""

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
"""Number formats by name; float16 only in exported files."""
_COMPUTED = ("float32", "bfloat16")
COMPILED_SIZES = 8
"""Number of picture sizes that a network is compiled for; torch has the same limit."""


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return a torch device; ``auto`` is a CUDA device if there is one, else the CPU.

    Raises:
        UserError: the device does not exist.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        available = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise UserError(f"device {device} is not available; use auto or one of {', '.join(available)}") from error
    return chosen


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the hardware supports it.

    A warning in the log says so if bfloat16 is named and the hardware only emulates it.

    Raises:
        UserError: there is no such precision.
    """
    if precision == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    if precision not in _COMPUTED:
        raise UserError(f"precision {precision} is not known; use auto, {' or '.join(_COMPUTED)}")
    if precision == "bfloat16" and not _has_bfloat16(device):
        log.warning("bfloat16 is emulated on this %s, slower than float32; use precision auto", device.type)
    return PRECISIONS[precision]


def _has_bfloat16(device: torch.device) -> bool:
    """Return whether ``device`` multiplies bfloat16 natively; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        checks = (getattr(torch.cpu, name, None) for name in names)
        return any(check is not None and bool(check()) for check in checks)
    return False


class CompiledForSizes(nn.Module):
    """A network compiled for the first few picture sizes that it is called with; other sizes run uncompiled.

    Each size takes minutes to compile, so an album of many sizes would otherwise compile for hours. If the network has
    a method ``chroma``, that is compiled, and ``forward`` calls it.

    Args:
        network: a model (:mod:`pdnla.models`).
        mode: the mode of ``torch.compile``.
    """

    def __init__(self, network: nn.Module, mode: str) -> None:
        super().__init__()
        self.network: Any = network
        self.function: Any = getattr(network, "chroma", network)
        self.compiled = torch.compile(self.function, mode=mode, dynamic=False)
        self.sizes: set[tuple[Any, ...]] = set()
        self._warned = False
        if hasattr(network, "chroma"):
            self.chroma = self.forward

    def encode_reference(self, reference: Tensor) -> Any:
        """Encode a reference with the network, uncompiled."""
        return self.network.encode_reference(reference)

    def forward(self, target: Tensor, reference: Any) -> Any:
        """Return the network's result."""
        size = (_sizes(target), _sizes(reference))
        if size in self.sizes or len(self.sizes) < COMPILED_SIZES:
            self.sizes.add(size)
            return self.compiled(target, reference)
        if not self._warned:
            self._warned = True
            log.warning("--compile: more than %d sizes of pictures; further ones run uncompiled", COMPILED_SIZES)
        return self.function(target, reference)


def _sizes(pictures: Any) -> Any:
    """Return the shape of a tensor, or the shapes of nested tuples of tensors."""
    return pictures.shape if isinstance(pictures, Tensor) else tuple(map(_sizes, pictures or ()))


def compiled(network: nn.Module, device: torch.device) -> CompiledForSizes:
    """Return a network that is compiled for a few sizes, with CUDA graphs on a CUDA device."""
    if device.type == "cpu":
        native.load_libraries()
    return CompiledForSizes(network, "reduce-overhead" if device.type == "cuda" else "default")


def keep_compiled_code() -> None:
    """Let this process keep compiled code with the package's other caches, so that a later one only traces.

    ``$TORCHINDUCTOR_CACHE_DIR`` takes precedence. By default, torch uses the system's folder for temporary files.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
