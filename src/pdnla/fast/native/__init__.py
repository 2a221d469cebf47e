"""Convolutions for CPUs with fewer multiplications than torch's, compiled on the user's machine.

The source, ``convolution.cpp``, is compiled at its first use, within a few seconds, for the machine's processor, and
cached. Without a compiler, or with ``PDNLA_NATIVE=0``, torch's convolutions are used instead: the results are the same
up to rounding, and take more time.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pdnla.errors import UserError
from pdnla.files import cache_folder, lock, replacing

log = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("convolution.cpp")
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
_COMPILERS = ("g++", "c++", "clang++")
_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_NARROW = 8  # channels in a vector of the library for narrow maps
_LEAST = 128 * 16  # positions of the result below which transforming the weights costs more than it saves


def usable(x: Tensor, weight: Tensor, stride: int = 1) -> bool:
    """Return whether :func:`conv3x3` supports a map ``(B, C, H, W)`` and weight ``(O, C, 3, 3)``, and is faster."""
    if not x.is_cpu or x.dtype not in _TYPES or weight.dtype not in _TYPES or weight.shape[2:] != (3, 3):
        return False
    if not torch.compiler.is_compiling() and x.stride(1) != 1:
        return False
    if x.shape[0] * x.shape[2] * x.shape[3] < _LEAST * stride**2:
        return False
    vectors = vectors_for(int(x.shape[1]), int(weight.shape[0]))
    # In half precision, torch's convolutions are as fast for narrow maps.
    return vectors == "wide" or (vectors == "narrow" and x.dtype is torch.float32)


def vectors_for(inputs: int, outputs: int) -> str | None:
    """Return the library whose vectors fit the channels, ``wide`` or ``narrow``, or None.

    While torch compiles, only loaded libraries count, because it cannot trace the loading.
    """
    if not torch.compiler.is_compiling():
        load_libraries()
    for name, lanes in _LANES.items():
        if not (inputs % lanes or outputs % lanes):
            return name
    return None


_LANES: dict[str, int] = {}
"""Number of elements in a vector, for each loaded library."""


def load_libraries() -> None:
    """Load the available libraries, and compile them if necessary."""
    wide = load_library()
    if wide is not None and "wide" not in _LANES:
        _LANES["wide"] = wide.lanes()
        if wide.lanes() > _NARROW and (narrow := load_library(narrow=True)) is not None:
            _LANES["narrow"] = narrow.lanes()


def forget_libraries() -> None:
    """Unload the libraries; the next call loads them again."""
    load_library.cache_clear()
    _LANES.clear()


def _library(inputs: int, outputs: int) -> Any:
    """Return the library whose vectors fit the channels."""
    return load_library(narrow=vectors_for(inputs, outputs) == "narrow")


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: Sequence[int] = (1, 1, 1, 1),
    reflect: bool = False,
    slope: float = 1.0,
    add: Tensor | None = None,
    alpha: float = 1.0,
) -> Tensor:
    """Return ``leaky_relu(conv(x, weight) + bias, slope) + alpha * add``, ``(B, O, H', W')``, channels last.

    It has no gradients. Sums are in float32 for all dtypes of maps.

    Args:
        x: ``(B, C, H, W)`` in channels-last memory; see :func:`usable`.
        weight: ``(O, C, 3, 3)``, in any memory layout.
        bias: ``(O,)``.
        stride: 1 or 2.
        padding: columns left and right, rows above and below, in the order of :func:`torch.nn.functional.pad`.
        reflect: pad by reflection (of at most a row or column) instead of zeros.
        slope: slope for negative values; 1 for no activation.
        add: a map with the result's shape.
        alpha: the factor of ``add``.
    """
    left, right, above, below = padding
    batch, inputs, height, width = x.shape
    outputs = weight.shape[0]
    rows, columns = (height + above + below - 3) // stride + 1, (width + left + right - 3) // stride + 1
    result = torch.empty((batch, outputs, rows, columns), dtype=x.dtype, memory_format=torch.channels_last)
    if add is not None:
        add = channels_last(add.to(x.dtype))
    bias = None if bias is None else bias.float().contiguous()
    function = getattr(_library(inputs, outputs), f"convolve_{_TYPES[x.dtype]}_{_TYPES[weight.dtype]}")
    pointers = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in (x, weight, bias, add, result)]
    shape = _shape(x, weight, stride, padding, reflect, result, add)
    function(*pointers[:3], ctypes.c_float(slope), pointers[3], ctypes.c_float(alpha), pointers[4], shape)
    return result


def weight_gradient3x3(
    x: Tensor, gradient: Tensor, padding: Sequence[int] = (1, 1, 1, 1), reflect: bool = False
) -> Tensor:
    """Return the gradient of the weight of a convolution with stride 1, ``(O, C, 3, 3)`` in float32.

    Args:
        x: the input of :func:`conv3x3`, ``(B, C, H, W)``.
        gradient: the gradient of the result, ``(B, O, H', W')``, in any memory layout.
        padding: the padding of :func:`conv3x3`.
        reflect: the reflection of :func:`conv3x3`.
    """
    gradient = channels_last(gradient.to(x.dtype))
    shape = (gradient.shape[1], x.shape[1], 3, 3)
    result = torch.empty(shape, dtype=torch.float32, memory_format=torch.channels_last)
    function = getattr(_library(x.shape[1], gradient.shape[1]), f"weight_gradient_{_TYPES[x.dtype]}")
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, gradient, result)]
    function(*pointers, _shape(x, result, 1, padding, reflect, gradient, None))
    return result


def channels_last(x: Tensor) -> Tensor:
    """Return a map in channels-last memory, without a copy if it already is."""
    return x if x.stride(1) == 1 else x.contiguous(memory_format=torch.channels_last)


def _shape(
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: Sequence[int],
    reflect: bool,
    result: Tensor,
    add: Tensor | None,
    threads: int | None = None,
) -> Any:
    """Return the argument ``Shape`` of the library's functions."""
    left, right, above, below = padding
    batch, inputs, height, width = x.shape
    numbers = [batch, height, width, inputs, weight.shape[0], above, below, left, right, int(reflect), stride]
    for tensor in (x, result, add):
        numbers += [0, 0, 0] if tensor is None else [tensor.stride(0), tensor.stride(2), tensor.stride(3)]
    numbers += [*weight.stride(), threads or torch.get_num_threads()]
    return (ctypes.c_int64 * len(numbers))(*numbers)


def tanh_(x: Tensor) -> Tensor:
    """Replace a tensor by its hyperbolic tangent, with an error below 2e-7, in place and without gradients; return it.

    For dense float32 or bfloat16 tensors on a CPU it is a few times as fast as torch's; for others it uses torch's.
    """
    layouts = (torch.contiguous_format, torch.channels_last) if x.ndim == 4 else (torch.contiguous_format,)
    dense = any(x.is_contiguous(memory_format=layout) for layout in layouts)
    library = load_library() if x.is_cpu and dense and x.dtype in _TYPES else None
    if library is None:
        return x.tanh_()
    function = getattr(library, f"tanh_{_TYPES[x.dtype]}")
    function(ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(x.numel()), ctypes.c_int64(torch.get_num_threads()))
    return x


@functools.cache
def load_library(narrow: bool = False) -> Any:
    """Return the compiled functions, compiled first if necessary; None if that is not possible.

    Args:
        narrow: the functions for maps with few channels, or numbers of channels that are not multiples of 16.
    """
    if os.environ.get("PDNLA_NATIVE") == "0":
        return None
    try:
        library: Any = ctypes.CDLL(str(_compiled(narrow)))
        library.lanes.restype = ctypes.c_int64
        library.lanes = functools.cache(library.lanes)
        _check(library)
    except (OSError, subprocess.SubprocessError, UserError, ArithmeticError) as error:
        # Logged once, because None is cached.
        log.warning("the package's own convolutions are not available, and torch's are slower: %s", error)
        return None
    return library


def _compiled(narrow: bool) -> Path:
    """Return the file of the shared library for this processor, compiled first if necessary."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else _COMPILERS
    compiler = next((path for name in names if (path := shutil.which(name))), None)
    if compiler is None:
        raise FileNotFoundError(f"there is no C++ compiler ({', '.join(names)})")
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    command = [compiler, *_FLAGS, native, *(["-DNARROW"] if narrow else []), str(_SOURCE)]
    version = _run([compiler, "--version"])
    key = "\n".join([*command, version, _processor(), _SOURCE.read_text(encoding="utf-8")])
    file = cache_folder() / "native" / f"convolution_{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if not file.exists():
        with lock(file.with_suffix(".lock")):
            if not file.exists():
                with replacing(file) as temporary:
                    _run([*command, "-o", str(temporary)])
    return file


def _run(command: list[str]) -> str:
    """Run a command and return its output.

    Raises:
        ChildProcessError: the command fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), f"status {done.returncode}")
        raise ChildProcessError(f"{command[0]}: {reason}")
    return done.stdout


def _processor() -> str:
    """Return the processor's name and features, because machines may share a cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _check(library: Any) -> None:
    """Raise ArithmeticError unless the library's convolution agrees with torch's."""
    generator = torch.Generator().manual_seed(0)
    lanes = library.lanes()
    x = torch.randn(1, lanes, 6, 9, generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(lanes, lanes, 3, 3, generator=generator)
    result = torch.full_like(x, torch.nan)  # reused memory might hold the right result of an earlier check
    shape = _shape(x, weight, 1, (1, 1, 1, 1), False, result, None, threads=1)
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, weight, result)]
    one = ctypes.c_float(1.0)
    library.convolve_float32_float32(*pointers[:2], None, one, None, one, pointers[2], shape)
    with torch.autocast("cpu", enabled=False):
        difference = float((result - functional.conv2d(x, weight, padding=1)).abs().max())
    if not difference < 1e-3:
        raise ArithmeticError(f"the compiled {_SOURCE.name} has an error of {difference:.2g}")
