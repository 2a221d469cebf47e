"""The package's own convolutions as torch operators, and the choice between them and torch's.

``torch.ops.pdnla.conv3x3`` and ``torch.ops.pdnla.conv3x3_weight_gradient`` have registered shapes and gradients, so
``torch.compile`` and autograd support them like torch's own.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pdnla.fast import native

Padding = tuple[int, int, int, int]
"""Columns left and right, rows above and below, in the order of :func:`torch.nn.functional.pad`."""

_torch_only = False


@contextlib.contextmanager
def torch_only() -> Iterator[None]:
    """Use only torch's own operators in the block, for graphs that other runtimes read."""
    global _torch_only
    before, _torch_only = _torch_only, True
    try:
        yield
    finally:
        _torch_only = before


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: Padding = (1, 1, 1, 1),
    reflect: bool = False,
    slope: float = 1.0,
    add: Tensor | None = None,
    alpha: float = 1.0,
) -> Tensor:
    """Return ``leaky_relu(conv(x, weight) + bias, slope) + alpha * add``, ``(B, O, H', W')``.

    On a CPU it uses the package's own convolution where possible, which is a few times as fast as torch's.

    Args:
        x: ``(B, C, H, W)``.
        weight: ``(O, C, 3, 3)``.
        bias: ``(O,)``.
        stride: 1 or 2.
        padding: columns left and right, rows above and below.
        reflect: pad by reflection instead of zeros.
        slope: slope for negative values; 1 for no activation.
        add: a map with the result's shape.
        alpha: the factor of ``add``.
    """
    if x.is_cpu and not _torch_only:
        x = lowered(x)
        if _worth(x, weight, stride) and not (needs_gradient(x, weight, bias, add) and slope != 1 and add is not None):
            if torch.compiler.is_compiling() or needs_gradient(x, weight, bias, add):
                result: Tensor = torch.ops.pdnla.conv3x3(x, weight, bias, add, stride, padding, reflect, slope, alpha)
                return result
            # Without tracing and gradients, a direct call avoids the overhead of torch's dispatcher.
            return native.conv3x3(
                x, weight, bias, stride=stride, padding=padding, reflect=reflect, slope=slope, add=add, alpha=alpha
            )
    return torch_conv3x3(x, weight, bias, stride, padding, reflect, slope, add, alpha)


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Return whether autograd records operations on these tensors."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def lowered(x: Tensor) -> Tensor:
    """Convert ``x`` to autocast's dtype for convolutions if autocast is enabled."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _worth(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Return whether the package's own convolution supports the arguments and is faster than torch's."""
    if torch.is_grad_enabled():  # only stride 1 has gradients; torch is faster for narrow maps in half precision
        if stride != 1 or (x.dtype is not torch.float32 and min(weight.shape[:2]) < 32):
            return False
    elif stride != 1 and x.dtype is not torch.float32:  # in half precision, torch's strided convolutions are as fast
        return False
    return native.usable(x, weight, stride)


def torch_conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: Sequence[int],
    reflect: bool,
    slope: float,
    add: Tensor | None,
    alpha: float,
) -> Tensor:
    """Compute :func:`conv3x3` with torch's convolution."""
    same = not reflect and len(set(padding)) == 1
    if not same:
        x = functional.pad(x, list(padding), mode="reflect" if reflect else "constant")
    x = functional.conv2d(x, weight, bias, stride, padding[0] if same else 0)
    if slope == 1:
        return x if add is None else x.add_(add, alpha=alpha)
    x = functional.leaky_relu(x, slope, inplace=True)  # the gradient needs its result
    return x if add is None else torch.add(x, add, alpha=alpha)


_LIBRARY = torch.library.Library("pdnla", "DEF")  # less overhead at each call than torch.library.custom_op
_LIBRARY.define(
    "conv3x3(Tensor x, Tensor weight, Tensor? bias, Tensor? add, int stride, int[] padding, bool reflect, float slope,"
    " float alpha) -> Tensor"
)
_LIBRARY.define("conv3x3_weight_gradient(Tensor x, Tensor gradient, int[] padding, bool reflect) -> Tensor")


def _conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    add: Tensor | None,
    stride: int,
    padding: Sequence[int],
    reflect: bool,
    slope: float,
    alpha: float,
) -> Tensor:
    x = native.channels_last(x)
    return native.conv3x3(
        x, weight, bias, stride=stride, padding=padding, reflect=reflect, slope=slope, add=add, alpha=alpha
    )


@torch.library.register_fake("pdnla::conv3x3")  # type: ignore[untyped-decorator]
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    add: Tensor | None,
    stride: int,
    padding: Sequence[int],
    reflect: bool,
    slope: float,
    alpha: float,
) -> Tensor:
    left, right, above, below = padding
    height, width = (x.shape[2] + above + below - 3) // stride + 1, (x.shape[3] + left + right - 3) // stride + 1
    return x.new_empty(x.shape[0], weight.shape[0], height, width).contiguous(memory_format=torch.channels_last)


def _weight_gradient(x: Tensor, gradient: Tensor, padding: Sequence[int], reflect: bool) -> Tensor:
    return native.weight_gradient3x3(native.channels_last(x), gradient, padding, reflect)


@torch.library.register_fake("pdnla::conv3x3_weight_gradient")  # type: ignore[untyped-decorator]
def _(x: Tensor, gradient: Tensor, padding: Sequence[int], reflect: bool) -> Tensor:
    shape = (gradient.shape[1], x.shape[1], 3, 3)
    return x.new_empty(shape, dtype=torch.float32).contiguous(memory_format=torch.channels_last)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, add, _, padding, reflect, slope, alpha = inputs
    ctx.save_for_backward(x, weight, bias, None if slope == 1 else output)
    ctx.options = padding, reflect, slope, alpha, None if add is None else add.dtype


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients, computed with the package's own convolutions with stride 1.

    For second derivatives, torch differentiates its own version of the convolution, computed again.
    """
    x, weight, bias, result = ctx.saved_tensors
    padding, reflect, slope, alpha, add_type = ctx.options
    to_x, to_weight, to_bias, to_add = ctx.needs_input_grad[:4]
    on_add = (gradient * alpha).to(add_type) if to_add else None
    gradients: list[Tensor | None]
    if torch.is_grad_enabled():
        given = (x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        again = torch_conv3x3(*given, 1, padding, reflect, slope, None, 1.0)
        inputs = [t if needed else None for t, needed in zip((x, weight, bias), ctx.needs_input_grad, strict=False)]
        computed = iter(torch.autograd.grad(again, [t for t in inputs if t is not None], gradient, create_graph=True))
        gradients = [None if t is None else next(computed) for t in inputs]
    else:
        if result is not None:
            gradient = torch.ops.aten.leaky_relu_backward(gradient, result, slope, True)
        gradient = native.channels_last(gradient.to(x.dtype))
        on_weight = None
        if to_weight:
            on_weight = torch.ops.pdnla.conv3x3_weight_gradient(x, gradient, padding, reflect).to(weight.dtype)
        gradients = [
            _input_gradient(gradient, weight, padding, reflect) if to_x else None,
            on_weight,
            gradient.sum(dim=(0, 2, 3), dtype=bias.dtype) if to_bias else None,
        ]
    return *gradients, on_add, None, None, None, None, None


def _input_gradient(gradient: Tensor, weight: Tensor, padding: Sequence[int], reflect: bool) -> Tensor:
    """Return the gradient of the input: the convolution of the result's gradient with the flipped weight."""
    flipped = weight.transpose(0, 1).flip(2, 3)
    left, right, above, below = padding
    plain = (None, None, 1)
    if not reflect:
        around = (2 - left, 2 - right, 2 - above, 2 - below)
        result: Tensor = torch.ops.pdnla.conv3x3(gradient, flipped, *plain, around, False, 1.0, 1.0)
        return result
    ringed: Tensor = torch.ops.pdnla.conv3x3(gradient, flipped, *plain, (2, 2, 2, 2), False, 1.0, 1.0)
    height, width = ringed.shape[2:]
    for axis, length, before, after in ((2, height, above, below), (3, width, left, right)):
        if before:  # the row that was also read by reflection
            ringed.select(axis, 2).add_(ringed.select(axis, 0))
        if after:
            ringed.select(axis, length - 3).add_(ringed.select(axis, length - 1))
    return ringed[:, :, above : height - below, left : width - right]


_LIBRARY.impl("conv3x3", _conv3x3, "CPU")
_LIBRARY.impl("conv3x3_weight_gradient", _weight_gradient, "CPU")
torch.library.register_autograd("pdnla::conv3x3", _backward, setup_context=_setup)
