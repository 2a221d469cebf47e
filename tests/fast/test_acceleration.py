"""The fast network computes what the plain one does; modules of other kinds stay plain."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pdnla import Colorizer
from pdnla.fast import accelerate, for_inference
from pdnla.fast import fusion as fast_fusion
from pdnla.fast import layers as fast_layers
from pdnla.losses.critics import ImageCritic
from pdnla.network import PDNLA
from pdnla.network.encoder import Encoder
from pdnla.network.fusion import (
    BidirectionalNonLocalFusion,
    ModalBranch,
    PyramidAveragePooling,
    PyramidNonLocalAttention,
    as_map,
    positions,
)
from pdnla.network.layers import EqualConv2d

DOUBLE, HALF = torch.float64, torch.bfloat16


def photograph(batch: int, channels: int, height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, channels, height // 8, width // 8, generator=generator) * 2 - 1
    image = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    image = 0.9 * image + 0.1 * (torch.rand(image.shape, generator=generator) * 2 - 1)
    return image.expand(-1, 3, -1, -1).contiguous()


def both(channel: int, dtype: torch.dtype = DOUBLE) -> tuple[PDNLA, PDNLA]:
    """A plain network and the same one accelerated."""
    torch.manual_seed(channel)
    plain = PDNLA(channel).to(dtype)
    return plain, accelerate(copy.deepcopy(plain))


def gradients(net: nn.Module, target: Tensor, reference: Tensor) -> dict[str, Tensor]:
    mid, out = net(target, reference)
    (out.square().mean() + mid.square().mean()).backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


# In float64, where rounding cannot be taken for a difference, or hide one.
@pytest.mark.parametrize(
    ("channel", "size", "other"),
    [
        (4, (16, 16), (48, 32)),
        (6, (48, 32), (48, 32)),
        pytest.param(8, (64, 112), (80, 16), marks=pytest.mark.slow),
    ],
)
def test_outputs_and_gradients_equal_the_plain_networks(
    channel: int, size: tuple[int, int], other: tuple[int, int]
) -> None:
    plain, fast = both(channel)
    target, reference = photograph(2, 1, *size, 1).double(), photograph(2, 3, *other, 2).double()
    with torch.inference_mode():
        expected, results = plain(target, reference), [fast(target, reference)]
        results.append(fast(target, fast.encode_reference(reference)))
        results.append(fast(target, plain.encode_reference(reference)))
        results.append(for_inference(plain, DOUBLE)(target, reference))
    for result in results:
        for ours, theirs in zip(result, expected, strict=True):
            assert (ours - theirs).abs().max() < 1e-11 * theirs.abs().max()
    ours, theirs = (gradients(net, target, reference) for net in (fast, plain))
    assert ours.keys() == theirs.keys()
    assert {name for name, _ in plain.named_parameters()} - theirs.keys() == {
        f"{side}_encoder.head.{what}" for side in ("target", "reference") for what in ("weight", "bias")
    }
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).abs().max() <= 1e-8 * gradient.abs().max(), name


@pytest.mark.slow
def test_in_float32_and_bfloat16_the_difference_is_rounding() -> None:
    plain, fast = both(8, torch.float32)
    target, reference = photograph(2, 1, 48, 64, 1), photograph(1, 3, 64, 48, 2)
    with torch.inference_mode():
        exact = plain.double()(target.double(), reference.double()).out.float()
        plain = plain.float()
        for dtype in (torch.float32, HALF):
            with torch.autocast("cpu", HALF, enabled=dtype is HALF):
                theirs, ours = plain(target, reference).out.float(), fast(target, reference).out.float()
                folded = for_inference(plain, dtype)(target, reference).out.float()
            rounding = (theirs - exact).norm()
            assert (ours - exact).norm() < 1.5 * rounding + 1e-6 * exact.norm()
            assert (folded - exact).norm() < 1.5 * rounding + 1e-6 * exact.norm()


@pytest.mark.slow
def test_a_network_in_half_precision_trains_with_the_plain_ones_gradients() -> None:
    plain, fast = both(8, torch.float32)
    target, reference = photograph(2, 1, 64, 64, 1), photograph(2, 3, 64, 64, 2)
    exact = gradients(copy.deepcopy(plain).double(), target.double(), reference.double())
    errors = []
    for net in (plain, fast):
        with torch.autocast("cpu", HALF):
            actual = gradients(net, target, reference)
        # A gate whose every unit is off passes no gradient: there is nothing to compare.
        norms = {name: gradient.norm() for name, gradient in exact.items() if gradient.norm() > 0}
        errors.append(sum((actual[name] - exact[name]).norm() / norm for name, norm in norms.items()) / len(norms))
    assert errors[1] < 1.5 * errors[0]


def test_parameters_names_and_state_are_the_plain_networks() -> None:
    plain, fast = both(4)
    assert list(plain.state_dict()) == list(fast.state_dict())
    assert fast.load_state_dict(plain.state_dict())
    before = {name: id(p) for name, p in plain.named_parameters()}
    assert {name: id(p) for name, p in accelerate(plain).named_parameters()} == before
    assert type(accelerate(fast)) is type(fast)  # a second time changes nothing


def test_an_inference_copy_changes_nothing_of_its_network_and_takes_half_the_memory() -> None:
    plain, _ = both(8, torch.float32)
    before = copy.deepcopy(plain.state_dict())
    half = for_inference(plain, HALF)
    assert type(plain) is PDNLA
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())
    assert sum(p.numel() * p.itemsize for p in half.parameters()) < 0.5 * sum(
        p.numel() * p.itemsize for p in plain.parameters()
    )


@pytest.mark.slow
def test_a_critic_and_its_penalty_are_the_plain_ones() -> None:
    torch.manual_seed(0)
    plain = ImageCritic(8, 4).double()
    fast = accelerate(copy.deepcopy(plain))
    picture = photograph(2, 3, 64, 64, 1).double().requires_grad_()
    results = []
    for critic in (plain, fast):
        score = critic(picture)
        (gradient,) = torch.autograd.grad(score.sum(), picture, create_graph=True)
        penalty = gradient.square().sum()
        results.append((score, penalty, *torch.autograd.grad(penalty, critic.trunk.stem.weight)))
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert (ours - theirs).abs().max() < 1e-9 * theirs.abs().max()


@pytest.mark.slow
def test_bands_and_parts_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = both(8)
    target, reference = photograph(2, 1, 80, 48, 12).double(), photograph(2, 3, 64, 96, 13).double()
    with torch.inference_mode():
        whole = plain(target, reference)
        for band, part in ((1, 1), (20_000, 7), (100_000, 1000)):
            monkeypatch.setattr(fast_layers, "BAND", band)
            monkeypatch.setattr(fast_fusion, "CPU_POSITIONS", part)
            pieces = fast(target, reference)
            assert (pieces.mid - whole.mid).abs().max() < 1e-12 * whole.mid.abs().max()
            assert (pieces.out - whole.out).abs().max() < 1e-12 * whole.out.abs().max()


@pytest.mark.parametrize("size", [(12, 10), (13, 8), (7, 9)])
def test_the_strided_blur_has_its_gradient_in_half_precision_too(size: tuple[int, int]) -> None:
    exact, half = (torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0)).to(d) for d in (DOUBLE, HALF))
    results = []
    for x in (exact.requires_grad_(), half.requires_grad_()):
        out = fast_layers.fast_blur(x, 1, 1, 1, stride=2)
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
        (first,) = torch.autograd.grad((out * direction).pow(2).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        results.append((first, second))
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert ours.dtype == HALF
        assert (ours - theirs).abs().max() < 0.03 * theirs.abs().max()


def test_a_clipped_logit_takes_no_gradient() -> None:
    keys, values = torch.linspace(-1, 1, 110).view(1, 110, 1).double(), torch.randn(1, 110, 1).double()
    actual = []
    for attend in (
        PyramidNonLocalAttention(),
        lambda q, k, v: fast_fusion.FastPyramidNonLocalAttention().attend(q, k, v, 1, torch.zeros(1, 1, 1)).atanh(),
    ):
        queries = torch.full((1, 1, 1), 100.0, dtype=DOUBLE, requires_grad=True)
        attend(queries, keys, values).sum().backward()
        actual.append(queries.grad)
    assert actual[0] is not None
    assert actual[0].abs() > 0
    assert torch.allclose(*actual)


# What a researcher changes, each in a subclass: it trains, it colours, and where it is not accelerated a line says so.


class FourOrders(BidirectionalNonLocalFusion):
    orders = 4


class Rectified(ModalBranch):
    """A nonlinearity between M and F."""

    def forward(self, g: Tensor, pooled: list[Tensor]) -> Tensor:
        queries, own = positions(self.query(g)), positions(g)
        mixed = []
        for other, key, value in zip(pooled, self.keys, self.values, strict=True):
            a = self.attention(queries, key(other), value(other))
            mixed.append(self.mix(torch.cat([own.expand(len(a), -1, -1), a], dim=-1)).relu())
        return as_map(torch.tanh(self.fuse(torch.cat(mixed, dim=-1))) + own, *g.shape[2:])


class WideStem(Encoder):
    def __init__(self, width: int, extra: int = 0) -> None:
        super().__init__(width, extra)
        self.stem = EqualConv2d(4 + extra, width, 3, padding=1, exact=True)


class ScaledAttention(PyramidNonLocalAttention):
    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return super().forward(queries / queries.shape[-1] ** 0.5, keys, values)


class FiveGrids(PyramidAveragePooling):
    sides = (1, 2, 3, 6, 8)


class FourOrdersPDNLA(PDNLA):
    def __init__(self, channel: int = 4) -> None:
        super().__init__(channel)
        for fusion in self.decoder.fusions:
            fusion.fusion = FourOrders(fusion.fusion.theta.in_channels, 4 * channel)


class RectifiedPDNLA(PDNLA):
    def __init__(self, channel: int = 4) -> None:
        super().__init__(channel)
        sources = [2 * channel << i for i in range(1, 5)]
        for fusion, channels in zip(self.decoder.fusions, reversed(sources), strict=True):
            fusion.to_reference = Rectified(channels, 4 * channel, sources)
            fusion.to_target = Rectified(channels, 4 * channel, sources)


class WideStemPDNLA(PDNLA):
    def __init__(self, channel: int = 4) -> None:
        super().__init__(channel)
        self.target_encoder, self.reference_encoder = WideStem(2 * channel), WideStem(2 * channel)


class ScaledAttentionPDNLA(PDNLA):
    def __init__(self, channel: int = 4) -> None:
        super().__init__(channel)
        for fusion in self.decoder.fusions:
            fusion.to_reference.attention = fusion.to_target.attention = ScaledAttention()


class FiveGridsPDNLA(PDNLA):
    def __init__(self, channel: int = 4) -> None:
        super().__init__(channel)
        self.decoder.pool = FiveGrids()


EDITS: dict[Callable[[], PDNLA], list[str]] = {
    FourOrdersPDNLA: ["FourOrders (decoder.fusions.0.fusion and 3 more)", "PyramidDualModalFusion", "Decoder"],
    RectifiedPDNLA: ["Rectified (decoder.fusions.0.to_reference and 7 more)", "PyramidDualModalFusion", "Decoder"],
    WideStemPDNLA: ["WideStem (target_encoder and 1 more)", "EqualConv2d (target_encoder.stem and 1 more)"],
    ScaledAttentionPDNLA: ["ScaledAttention (decoder.fusions.0.to_reference.attention and 7 more)", "ModalBranch"],
    FiveGridsPDNLA: ["FiveGrids (decoder.pool)"],
}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
@pytest.mark.slow
def test_an_edited_network_trains_colours_and_says_what_stays_plain(
    edit: Callable[[], PDNLA], caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    plain = edit().double()
    published = PDNLA(4).double()
    published.load_state_dict({k: v for k, v in plain.state_dict().items() if "stem" not in k}, strict=False)
    with caplog.at_level(logging.WARNING):
        fast = accelerate(copy.deepcopy(plain))
    assert len(caplog.messages) == 1
    for part in [*EDITS[edit], f"{edit.__name__} (the whole network)"]:
        assert part in caplog.messages[0]

    target, reference = photograph(2, 1, 32, 48, 1).double(), photograph(2, 3, 48, 32, 2).double()
    with torch.inference_mode():
        expected = plain(target, reference).out
        for net in (fast, for_inference(plain, DOUBLE)):
            assert (net(target, reference).out - expected).abs().max() < 1e-11 * expected.abs().max()
        assert (published(target, reference).out - expected).abs().max() > 1e-9 * expected.abs().max()  # it is an edit
    ours, theirs = gradients(fast, target, reference), gradients(plain, target, reference)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).abs().max() <= 1e-7 * gradient.abs().max(), name
    optimizer = torch.optim.SGD(fast.parameters(), lr=1e-3)
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(fast.parameters(), plain.parameters(), strict=True))

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    result = Colorizer(fast.float(), device="cpu", size=32)(picture, picture)
    assert result.size == (50, 40)


def test_the_published_networks_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    accelerate(PDNLA(4))
    for_inference(PDNLA(4))
    assert not caplog.messages


def test_a_child_of_another_form_keeps_its_block_as_written() -> None:
    torch.manual_seed(0)
    net = PDNLA(4).double()
    block = net.refiner.blocks[2].attention1
    block.conv1 = nn.Conv2d(4, 4, 5, padding=2).double()
    target, reference = photograph(1, 1, 32, 32, 1).double(), photograph(1, 3, 32, 32, 2).double()
    with torch.inference_mode():
        expected = net(target, reference).out
        assert (accelerate(net)(target, reference).out - expected).abs().max() < 1e-11 * expected.abs().max()


def bent(result: Any) -> Any:
    if isinstance(result, Tensor):
        return 0.5 + result.abs() + result.square()
    parts = (bent(part) for part in result)
    return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)


def a_subclass(module: nn.Module) -> None:
    plain: Any = type(module)
    forward = {"forward": lambda self, *x, **more: bent(plain.forward(self, *x, **more))}
    module.__class__ = type(f"Bent{plain.__name__}", (plain,), forward)


def a_hook(module: nn.Module) -> None:
    module.register_forward_hook(lambda _, given, result: bent(result))


def children_of_each_class() -> dict[str, str]:
    """The path of one child for each class of a module and name of a child."""
    paths = {}
    for path, module in PDNLA(4).named_modules():
        for name, child in module.named_children():
            if type(module) is nn.ModuleList or "head" in name:
                continue
            name = f"{name}.0" if type(child) is nn.ModuleList else name
            paths.setdefault(f"{type(module).__name__}.{name}", f"{path}.{name}".lstrip("."))
    return paths


CHILDREN = children_of_each_class()


@pytest.fixture(scope="module")
def unchanged() -> tuple[PDNLA, Tensor, Tensor, Tensor]:
    """A network in which no bias is 0, pictures, and its result."""
    torch.manual_seed(4)
    net = PDNLA(4).double()
    for parameter in net.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    target, reference = photograph(1, 1, 16, 32, 1).double(), photograph(1, 3, 32, 16, 2).double()
    with torch.inference_mode():
        return net, target, reference, net(target, reference).out


@pytest.mark.parametrize("change", [a_subclass, a_hook])
@pytest.mark.parametrize("path", CHILDREN.values(), ids=CHILDREN)
def test_no_change_of_a_child_is_bypassed(
    path: str, change: Callable[[nn.Module], None], unchanged: tuple[PDNLA, Tensor, Tensor, Tensor]
) -> None:
    net, target, reference, result = unchanged
    plain = copy.deepcopy(net)
    change(plain.get_submodule(path))
    fast = accelerate(copy.deepcopy(plain))
    with torch.inference_mode():
        expected = plain(target, reference).out
        assert (result - expected).abs().max() > 1e-6 * expected.abs().max(), "it is a change"
        for other in (fast, for_inference(plain, DOUBLE)):
            assert (other(target, reference).out - expected).abs().max() < 1e-11 * expected.abs().max()
    assert (fast(target, reference).out - expected).abs().max() < 1e-11 * expected.abs().max()  # as in training


def other_norm(net: PDNLA) -> None:
    net.decoder.fusions[1].fusion.norm = nn.GroupNorm(4, 64).double()


def no_norm(net: PDNLA) -> None:
    net.decoder.fusions[1].fusion.norm = nn.Identity()


def one_order(net: PDNLA) -> None:
    for fusion in net.decoder.fusions:
        fusion.fusion.orders = 1


def slopes_of_channels(net: PDNLA) -> None:
    net.refiner.slope = nn.Parameter(torch.linspace(-0.2, 0.5, 4).double())


def grouped_projection(net: PDNLA) -> None:
    net.decoder.fusions[1].fusion.theta = nn.Conv2d(64, 16, 1, groups=2, bias=False).double()


@pytest.mark.parametrize("change", [other_norm, no_norm, one_order, slopes_of_channels, grouped_projection])
def test_other_settings_of_a_child_are_computed_as_written(change: Callable[[PDNLA], None]) -> None:
    torch.manual_seed(0)
    plain = PDNLA(4).double()
    change(plain)
    fast = accelerate(copy.deepcopy(plain))
    target, reference = photograph(1, 1, 32, 32, 1).double(), photograph(1, 3, 32, 32, 2).double()
    expected = plain(target, reference).out.detach()
    assert (fast(target, reference).out - expected).abs().max() < 1e-11 * expected.abs().max()
    with torch.inference_mode():
        for net in (fast, for_inference(plain, DOUBLE)):
            assert (net(target, reference).out - expected).abs().max() < 1e-11 * expected.abs().max()
