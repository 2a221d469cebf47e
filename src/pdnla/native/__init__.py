"""Convolutions for CPUs that take fewer multiplications than torch's, compiled by the machine's own compiler.

The source, ``convolution.cpp``, is compiled when it is first needed, in about a second, for the processor it will run
on, and kept with the other caches. Where there is no compiler, or ``$PDNLA_NATIVE`` is 0, torch's convolutions serve:
the same results, to rounding, in more time.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pdnla.errors import UserError
from pdnla.files import alone, cache_folder, replacing

log = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("convolution.cpp")
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
_COMPILERS = ("g++", "c++", "clang++")
_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_LEAST = 128 * 16  # positions of the result, under which transforming the weights takes longer than it saves


def usable(x: Tensor, weight: Tensor, stride: int = 1) -> bool:
    """Return whether :func:`conv3x3` can take a map ``(B, C, H, W)`` and a weight ``(O, C, 3, 3)``, and is worth it."""
    if not x.is_cpu or x.dtype not in _TYPES or weight.dtype not in _TYPES or weight.shape[2:] != (3, 3):
        return False
    if x.stride(1) != 1 or x.shape[0] * x.shape[2] * x.shape[3] < _LEAST * stride**2:
        return False
    library = load_library()
    return library is not None and not (x.shape[1] % library.lanes() or weight.shape[0] % library.lanes())


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: tuple[int, int, int, int] = (1, 1, 1, 1),
    reflect: bool = False,
    slope: float = 1.0,
    add: Tensor | None = None,
    alpha: float = 1.0,
) -> Tensor:
    """Return ``leaky_relu(conv(x, weight) + bias, slope) + alpha * add``, ``(B, O, H', W')``, channels last.

    Without gradients. Sums are float32, whatever the maps are kept in.

    Args:
        x: ``(B, C, H, W)`` in channels-last memory, :func:`usable`.
        weight: ``(O, C, 3, 3)``, in any memory.
        bias: ``(O,)``.
        stride: 1 or 2.
        padding: columns left and right, rows above and below, as :func:`torch.nn.functional.pad` takes them.
        reflect: pad by reflection (of at most a row or column), not with zeros.
        slope: of negative values; 1 for no activation.
        add: a map of the result's shape.
        alpha: its factor.
    """
    left, right, above, below = padding
    batch, inputs, height, width = x.shape
    outputs = weight.shape[0]
    rows, columns = (height + above + below - 3) // stride + 1, (width + left + right - 3) // stride + 1
    result = torch.empty((batch, outputs, rows, columns), dtype=x.dtype, memory_format=torch.channels_last)
    if add is not None:
        add = add.to(x.dtype)
        add = add if add.stride(1) == 1 else add.contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.float().contiguous()
    numbers = [batch, height, width, inputs, outputs, above, below, left, right, int(reflect), stride]
    for tensor in (x, result, add):
        numbers += [0, 0, 0] if tensor is None else [tensor.stride(0), tensor.stride(2), tensor.stride(3)]
    numbers += [*weight.stride(), torch.get_num_threads()]
    shape = (ctypes.c_int64 * len(numbers))(*numbers)
    function = getattr(load_library(), f"convolve_{_TYPES[x.dtype]}_{_TYPES[weight.dtype]}")
    pointers = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in (x, weight, bias, add, result)]
    function(*pointers[:3], ctypes.c_float(slope), pointers[3], ctypes.c_float(alpha), pointers[4], shape)
    return result


def tanh_(x: Tensor) -> Tensor:
    """Replace a tensor by its hyperbolic tangent, within 2e-7, in place and without gradients, and return it.

    A few times as fast as torch's for what lies densely in a CPU's memory in float32 or bfloat16; else it is torch's.
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
def load_library() -> Any:
    """Return the compiled functions, compiling them if need be, or None where that is not to be had."""
    if os.environ.get("PDNLA_NATIVE") == "0":
        return None
    try:
        library: Any = ctypes.CDLL(str(_compiled()))
        library.lanes.restype = ctypes.c_int64
        library.lanes = functools.cache(library.lanes)
        _check(library)
    except (OSError, subprocess.SubprocessError, UserError, ArithmeticError) as error:
        log.info("torch's convolutions are used, not this package's faster ones: %s", error)
        return None
    return library


def _compiled() -> Path:
    """Return the shared library for this processor, compiled now if it is not there."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else _COMPILERS
    compiler = next((found for name in names if (found := shutil.which(name))), None)
    if compiler is None:
        raise FileNotFoundError(f"there is no C++ compiler ({', '.join(names)})")
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    command = [compiler, *_FLAGS, native, str(_SOURCE)]
    version = _run([compiler, "--version"])
    key = "\n".join([*command, version, _processor(), _SOURCE.read_text()])
    file = cache_folder() / "native" / f"convolution_{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if not file.exists():
        with alone(file.with_suffix(".lock")):
            if not file.exists():
                with replacing(file) as temporary:
                    _run([*command, "-o", str(temporary)])
    return file


def _run(command: list[str]) -> str:
    """Return what a command prints.

    Raises:
        ChildProcessError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), f"status {done.returncode}")
        raise ChildProcessError(f"{command[0]}: {said}")
    return done.stdout


def _processor() -> str:
    """Return what this processor is and can do: a cache may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _check(library: Any) -> None:
    """Raise ArithmeticError unless the library convolves as torch does."""
    generator = torch.Generator().manual_seed(0)
    lanes = library.lanes()
    x = torch.randn(1, lanes, 6, 9, generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(lanes, lanes, 3, 3, generator=generator)
    result = torch.full_like(x, torch.nan)  # not what the memory held: that may be an earlier check's right result
    numbers = [1, 6, 9, lanes, lanes, 1, 1, 1, 1, 0, 1]
    for tensor in (x, result):
        numbers += [tensor.stride(0), tensor.stride(2), tensor.stride(3)]
    shape = (ctypes.c_int64 * 27)(*numbers, 0, 0, 0, *weight.stride(), 1)
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, weight, result)]
    one = ctypes.c_float(1.0)
    library.convolve_float32_float32(*pointers[:2], None, one, None, one, pointers[2], shape)
    with torch.autocast("cpu", enabled=False):
        difference = float((result - functional.conv2d(x, weight, padding=1)).abs().max())
    if not difference < 1e-3:
        raise ArithmeticError(f"what the compiler made of {_SOURCE.name} is wrong by {difference:.2g}")
