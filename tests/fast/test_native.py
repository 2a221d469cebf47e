"""This package's own convolutions: the numbers of torch's from a compiler there is, or torch's where there is none."""

import ctypes
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pdnla.fast import accelerate, for_inference, native
from pdnla.network import PDNLA

CL = torch.channels_last


@pytest.fixture(autouse=True)
def _compiler() -> None:
    if native.load_library() is None:
        pytest.skip("no C++ compiler")


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget the library that is loaded, before a test and after it."""
    native.forget_libraries()
    yield
    native.forget_libraries()


def maps(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=CL)


class Case(NamedTuple):
    """A convolution, and what goes into it."""

    batch: int
    inputs: int
    outputs: int
    height: int
    width: int
    padding: tuple[int, int, int, int]  # left, right, above, below
    reflect: bool
    stride: int

    def given(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """A map, a weight in float32 and a bias."""
        weight = maps(self.outputs, self.inputs, 3, 3, seed=1) / (9 * self.inputs) ** 0.5
        bias = torch.randn(self.outputs, generator=torch.Generator().manual_seed(2))
        return maps(self.batch, self.inputs, self.height, self.width, dtype=dtype), weight, bias

    def expected(self, x: Tensor, weight: Tensor, bias: Tensor, slope: float) -> Tensor:
        """Torch's result."""
        padded = F.pad(x, self.padding, mode="reflect" if self.reflect else "constant")
        return F.leaky_relu(F.conv2d(padded, weight, bias, self.stride), slope)


CASES = [
    Case(2, 32, 48, 13, 18, (1, 1, 1, 1), False, 1),
    Case(1, 16, 16, 5, 7, (1, 1, 1, 1), True, 1),
    Case(3, 48, 32, 9, 4, (0, 0, 0, 0), False, 1),
    Case(1, 32, 32, 8, 9, (1, 1, 0, 1), True, 1),
    Case(1, 32, 16, 8, 9, (1, 1, 1, 0), True, 1),
    Case(2, 16, 32, 6, 6, (2, 2, 2, 2), False, 1),
    Case(1, 64, 80, 3, 3, (0, 0, 0, 0), False, 1),
    Case(2, 32, 48, 17, 33, (0, 0, 0, 0), False, 2),
    Case(1, 16, 32, 12, 11, (1, 1, 1, 1), False, 2),
    Case(1, 16, 16, 3, 4, (0, 0, 0, 0), False, 2),
    Case(2, 8, 8, 11, 6, (1, 1, 1, 1), False, 1),
    Case(1, 24, 8, 7, 9, (1, 1, 1, 1), True, 1),
    Case(1, 8, 40, 5, 8, (0, 1, 1, 0), False, 1),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolutions_equal_torchs(case: Case, dtype: torch.dtype) -> None:
    x, weight, bias = case.given(dtype)
    weight = weight.to(dtype)
    expected = case.expected(x.double(), weight.double(), bias.double(), 0.2)
    add = maps(*expected.shape, dtype=dtype, seed=3)
    placing: dict[str, Any] = {"stride": case.stride, "padding": case.padding, "reflect": case.reflect}
    actual = native.conv3x3(x, weight, bias, **placing, slope=0.2, add=add, alpha=2.0)
    expected = expected + 2 * add.double()
    assert actual.dtype == dtype
    assert actual.is_contiguous(memory_format=CL)
    # Half precision rounds the result alone, to 8 bits: the arithmetic is float32's.
    allowed = 5e-5 if dtype == torch.float32 else 2**-8 * expected.abs().max()
    assert (actual.double() - expected).abs().max() < allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", [case for case in CASES if case.stride == 1], ids=str)
def test_gradients_equal_torchs(case: Case, dtype: torch.dtype) -> None:
    own = [tensor.requires_grad_() for tensor in case.given(dtype)]
    for slope, with_map in ((0.2, False), (1.0, True)):
        exact = [tensor.detach().double().requires_grad_() for tensor in own]
        expected = case.expected(*exact, slope)
        add = maps(*expected.shape, dtype=dtype, seed=3).requires_grad_() if with_map else None
        actual = torch.ops.pdnla.conv3x3(*own, add, 1, case.padding, case.reflect, slope, 2.0)
        # No gradient where rounding decides which side of the activation's kink a value is on.
        gradient = maps(*expected.shape, dtype=dtype, seed=4) * (expected.detach().abs() > 0.02)
        desired = own if add is None else [*own, add]
        gradients = torch.autograd.grad(actual, desired, gradient.to(dtype))
        references = torch.autograd.grad(expected, exact, gradient.double())
        if add is not None:
            assert torch.equal(gradients[3], 2 * gradient.to(dtype))
        for tensor, ours, theirs in zip(own, gradients[:3], references, strict=True):
            assert ours.dtype == tensor.dtype
            allowed = 3e-5 if dtype == torch.float32 else 2**-7
            assert (ours.double() - theirs).abs().max() < allowed * theirs.abs().max()


def test_gradients_are_the_same_every_time_whatever_the_memory_of_the_one_that_comes_in() -> None:
    x, weight = maps(3, 16, 40, 40).requires_grad_(), maps(32, 16, 3, 3, seed=1).requires_grad_()
    options = (None, None, 1, (1, 1, 1, 1), False, 1.0, 1.0)
    gradient = maps(3, 32, 40, 40, seed=2)
    first = torch.autograd.grad(torch.ops.pdnla.conv3x3(x, weight, *options), [x, weight], gradient)
    for own in (gradient, gradient.contiguous()):
        again = torch.autograd.grad(torch.ops.pdnla.conv3x3(x, weight, *options), [x, weight], own)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    spread = torch.autograd.grad(torch.ops.pdnla.conv3x3(x, weight, *options).sum(), weight)[0]
    ones = torch.autograd.grad(torch.ops.pdnla.conv3x3(x, weight, *options), weight, torch.ones_like(gradient))[0]
    assert torch.equal(spread, ones)


@pytest.mark.parametrize("reflect", [False, True])
def test_a_gradient_of_a_gradient_is_torchs(reflect: bool) -> None:
    """As R1 asks for of a critic."""

    def penalty(convolve: Callable[[Tensor, Tensor, Tensor], Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        tensors = [maps(2, 16, 9, 10), maps(32, 16, 3, 3, seed=1) / 12, maps(1, 32, 1, 1, seed=2).flatten()]
        x, weight, bias = (tensor.to(dtype).requires_grad_() for tensor in tensors)
        score = convolve(x, weight, bias).square().sum()
        (gradient,) = torch.autograd.grad(score, x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), [x, weight, bias])

    mode = "reflect" if reflect else "constant"
    actual = penalty(
        lambda *given: torch.ops.pdnla.conv3x3(*given, None, 1, (1, 1, 1, 1), reflect, 0.2, 1.0), torch.float32
    )
    expected = penalty(
        lambda x, weight, bias: F.leaky_relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode), weight, bias), 0.2), torch.float64
    )
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours.double() - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.slow
def test_a_training_step_has_the_gradients_of_torchs_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = accelerate(PDNLA(16))
    target, reference = maps(2, 3, 64, 64).clamp(-1, 1), maps(2, 3, 64, 64, seed=1).clamp(-1, 1)

    def gradients() -> Tensor:
        out = net(target, reference).out
        parameters = [p for name, p in net.named_parameters() if "head" not in name]
        actual = torch.autograd.grad((out - reference).square().mean(), parameters)
        return torch.cat([gradient.flatten() for gradient in actual])

    own = gradients()
    calls: list[object] = []
    monkeypatch.setattr(native, "usable", lambda *given: bool(calls.append(given)))
    plain = gradients()
    assert calls
    assert (own - plain).norm() < 1e-4 * plain.norm()


def test_rows_of_a_larger_map_and_weights_in_any_memory_are_read_in_place() -> None:
    x = maps(2, 32, 20, 24)[:, :, 3:15]
    weight = maps(32, 64, 3, 3, seed=1)[:, 16:48] / 17
    expected = F.conv2d(x, weight, padding=1)
    for own in (weight, weight.contiguous(), weight.transpose(2, 3).contiguous().transpose(2, 3)):
        assert (native.conv3x3(x, own) - expected).abs().max() < 5e-5


def test_not_a_number_stays_one_in_half_precision() -> None:
    x = maps(1, 16, 4, 4, dtype=torch.bfloat16)
    x[0, 3, 2, 2] = float("nan")
    assert native.conv3x3(x, maps(16, 16, 3, 3)).isnan().any()


def test_what_the_library_cannot_take_is_left_to_torch() -> None:
    good, weight = maps(1, 16, 64, 64), maps(16, 16, 3, 3)
    assert native.usable(good, weight)
    assert not native.usable(good.contiguous(), weight)  # channels are not next to each other
    assert not native.usable(good.double(), weight)
    assert not native.usable(good, maps(16, 16, 1, 1))
    assert native.usable(maps(1, 8, 64, 64), maps(8, 8, 3, 3))
    narrow = maps(1, 8, 64, 64, dtype=torch.bfloat16), maps(8, 8, 3, 3)
    assert native.usable(*narrow) == (native.load_library().lanes() == 8)
    assert not native.usable(maps(1, 6, 64, 64), maps(16, 6, 3, 3))
    assert not native.usable(good, maps(3, 16, 3, 3))
    assert not native.usable(maps(1, 16, 16, 16), weight)  # too small to be worth it


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_hyperbolic_tangent_is_one(dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.tensor([0.0, 1e-20, -1e-4, 88.0, -1e30])]).to(dtype)
    actual = native.tanh_(x.clone())
    allowed = 3e-7 if dtype == torch.float32 else 2**-8
    assert (actual.double() - x.double().tanh()).abs().max() < allowed
    assert actual.abs().max() <= 1
    special = native.tanh_(torch.tensor([float("inf"), float("-inf"), float("nan")], dtype=dtype))
    assert special[:2].tolist() == [1, -1]
    assert special[2].isnan()


def test_the_hyperbolic_tangent_of_parts_of_a_map_leaves_the_rest() -> None:
    x = torch.randn(4, 6, 5, 7)
    part = x[1:3, :, 1:]
    kept = x.clone()
    native.tanh_(part)
    assert torch.allclose(x[1:3, :, 1:], kept[1:3, :, 1:].tanh(), atol=1e-6)
    assert torch.equal(x[0], kept[0])
    assert torch.equal(x[:, :, 0], kept[:, :, 0])


def test_the_network_gives_the_same_pictures_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = for_inference(PDNLA(16))
    target, reference = torch.rand(2, 1, 128, 96).expand(-1, 3, -1, -1) * 2 - 1, torch.rand(1, 3, 96, 128) * 2 - 1
    used: list[Tensor] = []
    convolve = native.conv3x3

    def counted(x: Tensor, *arguments: object, **options: object) -> Tensor:
        used.append(x)
        return convolve(x, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(native, "conv3x3", counted)
    with torch.inference_mode():
        ours = net(target, net.encode_reference(reference)).out
        assert len(used) > 40
        monkeypatch.setattr(native, "vectors_for", lambda *channels: None)
        torchs = net(target, net.encode_reference(reference)).out
    assert 0 < (ours - torchs).abs().max() < 1e-4


@pytest.mark.slow
def test_the_library_is_compiled_once_and_a_wrong_one_is_not_used(
    fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PDNLA_CACHE", str(tmp_path))
    assert native.load_library() is not None
    (file,) = tmp_path.rglob("*.so")
    written = file.stat().st_mtime_ns
    native.forget_libraries()
    assert native.load_library() is not None
    assert file.stat().st_mtime_ns == written

    class Wrong:
        def __init__(self, path: str) -> None:
            self.real = ctypes.PyDLL(path)
            self.lanes = self.real.lanes

        def convolve_float32_float32(self, *_: object) -> None:
            """Compute nothing."""

    native.forget_libraries()
    monkeypatch.setattr(native.ctypes, "CDLL", Wrong)
    with caplog.at_level(logging.INFO):
        assert native.load_library() is None
    assert "has an error of" in caplog.text
