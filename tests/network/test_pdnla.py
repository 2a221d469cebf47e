"""What the network promises beside its numbers: sizes, batches, precisions, gradients, caching."""

import pytest
import torch
from torch import Tensor

from pdnla.fast.fusion import FastBidirectionalNonLocalFusion, FastPyramidAveragePooling
from pdnla.network import PDNLA
from pdnla.network.encoder import Edges
from pdnla.network.fusion import BidirectionalNonLocalFusion, PyramidAveragePooling, positions


def photograph(batch: int, channels: int, height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, channels, height // 8, width // 8, generator=generator) * 2 - 1
    image = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    # Grain, as photographs have it: where a picture is flat, rounding alone decides where its edges are.
    image = 0.9 * image + 0.1 * (torch.rand(image.shape, generator=generator) * 2 - 1)
    return image.expand(-1, 3, -1, -1).contiguous()


@pytest.fixture(scope="module")
def net() -> PDNLA:
    torch.manual_seed(0)
    return PDNLA(8).eval()


@pytest.mark.slow
def test_a_batch_gives_what_single_images_give(net: PDNLA) -> None:
    target, reference = photograph(3, 1, 48, 64, 3), photograph(3, 3, 48, 64, 4)
    with torch.inference_mode():
        together = net(target, reference).out
        separate = torch.cat([net(target[i : i + 1], reference[i : i + 1]).out for i in range(3)])
    assert (together - separate).abs().max() < 1e-5


def test_edges_do_not_depend_on_the_batch_even_where_a_picture_is_flat() -> None:
    ramps = torch.linspace(-1, 1, 64).expand(3, 3, 48, 64) * torch.tensor([1.0, 0.5, 0.25]).view(3, 1, 1, 1)
    edges = Edges()
    assert torch.equal(edges(ramps), torch.cat([edges(ramp) for ramp in ramps.split(1)]))


def test_one_encoded_reference_serves_many_targets(net: PDNLA) -> None:
    target, reference = photograph(3, 1, 48, 64, 3), photograph(1, 3, 64, 32, 4)
    with torch.inference_mode():
        code = net.encode_reference(reference)
        together = net(target, code).out
        separate = torch.cat([net(target[i : i + 1], reference).out for i in range(3)])
    assert (together - separate).abs().max() < 1e-5


def test_memory_layout_of_the_inputs_changes_nothing(net: PDNLA) -> None:
    target, reference = photograph(2, 1, 32, 32, 5), photograph(2, 3, 32, 32, 6)
    with torch.inference_mode():
        contiguous = net(target, reference).out
        last = net(target.to(memory_format=torch.channels_last), reference.to(memory_format=torch.channels_last)).out
    assert (contiguous - last).abs().max() < 1e-5


def test_bfloat16_by_autocast_and_by_weights_stays_near_float32() -> None:
    torch.manual_seed(0)
    net = PDNLA(8).eval()
    target, reference = photograph(1, 1, 64, 64, 7), photograph(1, 3, 64, 64, 8)
    with torch.inference_mode():
        exact = net(target, reference).out
        with torch.autocast("cpu", torch.bfloat16):
            cast = net(target, reference).out
        half = net.bfloat16()(target.bfloat16(), reference.bfloat16()).out
    assert half.dtype == torch.bfloat16
    for actual in (cast.float(), half.float()):
        assert (actual - exact).abs().mean() < 0.05 * exact.std()


@pytest.mark.parametrize("kind", ["autocast", "weights"])
def test_fusion_sums_stay_in_float32(kind: str) -> None:
    # 65,536 ones lose count when added up in bfloat16: there would be 256 of them.
    plain, fast = BidirectionalNonLocalFusion(8, 8), FastBidirectionalNonLocalFusion(8, 8)
    with torch.no_grad():
        for module in (plain, fast):
            for projection in (module.theta, module.phi, module.psi):
                projection.weight.copy_(torch.eye(8).view(8, 8, 1, 1))
            module.output.weight.fill_(1)
    plain.norm = torch.nn.Identity()
    t, u = torch.zeros(1, 8, 2, 2), torch.ones(1, 8, 256, 256)
    if kind == "weights":
        plain, fast, t, u = plain.bfloat16(), fast.bfloat16(), t.bfloat16(), u.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        fused = plain(t, u)[0, 0, 0, 0]  # at theta = 0, the constant term alone is left: alpha_0^2 times the sum
        sums = fast.kernel_sums(positions(u))
    assert sums.dtype == torch.float32
    assert sums[0, 0, 0].item() == pytest.approx(65536, rel=1e-3)
    assert fused.item() == pytest.approx(65536, rel=0.01)


@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40), (8, 8), (0, 16)])
def test_other_sizes_are_refused_with_the_way_out(net: PDNLA, height: int, width: int) -> None:
    good = torch.zeros(1, 3, 16, 16)
    for target, reference, name in (
        (torch.zeros(1, 3, height, width), good, "target"),
        (good, torch.zeros(1, 3, height, width), "reference"),
    ):
        with pytest.raises(ValueError, match=rf"{name} is {height}×{width}.*multiples of 16.*Colorizer"):
            net(target, reference)


def test_a_grey_plane_in_one_channel_is_refused(net: PDNLA) -> None:
    with pytest.raises(ValueError, match=r"target must be \(B, 3, H, W\)"):
        net(torch.zeros(1, 1, 16, 16), torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("channel", [2, 7, 0, -8])
def test_impossible_widths_are_refused(channel: int) -> None:
    with pytest.raises(ValueError, match="even number of at least 4"):
        PDNLA(channel)


@pytest.mark.parametrize(("channel", "millions"), [(32, 70.2), (16, 17.6), (8, 4.4), (4, 1.1)])
def test_parameter_counts_are_the_published_ones(channel: int, millions: float) -> None:
    with torch.device("meta"):
        net = PDNLA(channel)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(("height", "width"), [(6, 9), (1, 1), (13, 40)])
@pytest.mark.parametrize("ring", [0, 1])
@pytest.mark.parametrize("pool", [PyramidAveragePooling(), FastPyramidAveragePooling()])
def test_pooling_equals_adaptive_average_pooling(
    pool: PyramidAveragePooling, ring: int, height: int, width: int
) -> None:
    x = torch.rand(2, 5, height, width)
    ringed = torch.nn.functional.pad(x, (ring,) * 4)
    expected = torch.cat([torch.nn.functional.adaptive_avg_pool2d(ringed, s).flatten(2) for s in (1, 3, 6, 8)], 2)
    assert torch.allclose(pool(x, ring).transpose(1, 2), expected, atol=1e-6)


def test_the_network_takes_in_colours_of_the_reference_only_through_it(net: PDNLA) -> None:
    target = photograph(1, 1, 32, 32, 9)
    with torch.inference_mode():
        one, other = (net(target, photograph(1, 3, 32, 32, seed)).out for seed in (10, 11))
    assert (one - other).abs().max() > 1e-3
