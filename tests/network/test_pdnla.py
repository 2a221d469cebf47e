"""What the network promises beside its numbers: sizes, batches, precisions, gradients, caching."""

import copy

import pytest
import torch
from torch import Tensor

from pdnla.network import PDNLA, fusion, layers
from pdnla.network.encoder import edges
from pdnla.network.fusion import BidirectionalNonLocalFusion, pyramid_average_pooling
from pdnla.published import published_names
from plain_pdnla import plain_of

DOUBLE, HALF = torch.float64, torch.bfloat16


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


# In float64, where rounding cannot be taken for a difference, or hide one.
@pytest.mark.parametrize(("channel", "height", "width"), [(4, 16, 16), (6, 48, 32), (8, 64, 160), (16, 80, 48)])
def test_equals_the_plain_transcription_at_any_width_and_size(channel: int, height: int, width: int) -> None:
    torch.manual_seed(channel)
    net = PDNLA(channel).eval().double()
    target, reference = (
        photograph(2, 1, height, width, 1).double(),
        photograph(2, 3, height, width, 2).double(),
    )
    with torch.inference_mode():
        mid, out = plain_of(net)(target, reference)
        found = net(target, reference)
    assert (found.mid - mid).abs().max() < 1e-9 * mid.abs().max()
    assert (found.out - out).abs().max() < 1e-9 * out.abs().max()


def test_gradients_equal_the_plain_transcriptions() -> None:
    torch.manual_seed(1)
    net = PDNLA(4).double()
    plain = plain_of(net)
    target, reference = photograph(2, 1, 32, 48, 1).double(), photograph(2, 3, 32, 48, 2).double()
    result = net(target, reference)
    (result.out.square().mean() + result.mid.square().mean()).backward()
    mid, out = plain(target, reference)
    (out.square().mean() + mid.square().mean()).backward()
    expected = dict(zip(plain.names, plain.values, strict=True))
    names = published_names(net.state_dict())
    for name, parameter in net.named_parameters():
        if parameter.grad is None:
            assert ".head." in name
            continue
        wanted = expected[names[name]].grad
        assert wanted is not None
        assert (parameter.grad.flatten() - wanted.flatten()).abs().max() <= 1e-8 * wanted.abs().max(), name


@pytest.mark.parametrize("size", [(12, 10), (13, 8), (7, 9)])
def test_the_strided_blur_has_its_gradient_in_half_precision_too(size: tuple[int, int]) -> None:
    blur = layers.Blur(4, stride=2)
    exact, half = (torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0)).to(d) for d in (DOUBLE, HALF))
    results = []
    for x in (exact.requires_grad_(), half.requires_grad_()):
        out = blur(x, 1)
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
        (first,) = torch.autograd.grad((out * direction).pow(2).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        results.append((first, second))
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert ours.dtype == HALF
        assert (ours - theirs).abs().max() < 0.03 * theirs.abs().max()


def test_a_clipped_logit_takes_no_gradient() -> None:
    from pdnla.network.fusion import pyramid_attention

    queries = torch.full((1, 1, 1), 100.0, requires_grad=True)
    keys = torch.linspace(-1, 1, 110).view(1, 110, 1)
    pyramid_attention(queries, keys)[0, 0, -1].backward()
    logits = (queries.detach() * keys).flatten()
    attention = logits.clamp(-64, 64).softmax(0)
    wanted = (attention * ((torch.arange(110) == 109).float() - attention[-1]) * keys.flatten())[logits.abs() < 64]
    assert queries.grad is not None
    assert queries.grad.item() == pytest.approx(float(wanted.sum()), rel=1e-3)


def test_a_batch_gives_what_single_images_give(net: PDNLA) -> None:
    target, reference = photograph(3, 1, 48, 64, 3), photograph(3, 3, 48, 64, 4)
    with torch.inference_mode():
        together = net(target, reference).out
        alone = torch.cat([net(target[i : i + 1], reference[i : i + 1]).out for i in range(3)])
    assert (together - alone).abs().max() < 1e-5


def test_edges_do_not_depend_on_the_batch_even_where_a_picture_is_flat() -> None:
    ramps = torch.linspace(-1, 1, 64).expand(3, 3, 48, 64) * torch.tensor([1.0, 0.5, 0.25]).view(3, 1, 1, 1)
    assert torch.equal(edges(ramps), torch.cat([edges(ramp) for ramp in ramps.split(1)]))


def test_one_encoded_reference_serves_many_targets(net: PDNLA) -> None:
    target, reference = photograph(3, 1, 48, 64, 3), photograph(1, 3, 64, 32, 4)
    with torch.inference_mode():
        code = net.encode_reference(reference)
        together = net(target, code).out
        alone = torch.cat([net(target[i : i + 1], reference).out for i in range(3)])
    assert (together - alone).abs().max() < 1e-5


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
    for found in (cast.float(), half.float()):
        assert (found - exact).abs().mean() < 0.05 * exact.std()


@pytest.mark.parametrize("kind", ["autocast", "weights"])
def test_fusion_sums_stay_in_float32(kind: str) -> None:
    # 65,536 ones lose count when added up in bfloat16.
    module = BidirectionalNonLocalFusion(8, 8)
    with torch.no_grad():
        for projection in (module.phi, module.psi):
            projection.weight.copy_(torch.eye(8).view(8, 8, 1, 1))
    u = torch.ones(1, 256 * 256, 8)
    if kind == "weights":
        module, u = module.bfloat16(), u.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        sums = module.kernel_sums(u)
    assert sums.dtype == torch.float32
    assert sums[0, 0, 0].item() == pytest.approx(65536, rel=1e-3)


def test_bands_and_parts_give_what_the_whole_gives(net: PDNLA, monkeypatch: pytest.MonkeyPatch) -> None:
    target, reference = photograph(2, 1, 80, 48, 12).double(), photograph(2, 3, 64, 96, 13).double()
    net = copy.deepcopy(net).double()
    whole = net(target, reference)
    for band, part in ((1, 1), (20_000, 7), (100_000, 1000)):
        monkeypatch.setattr(layers, "_BAND", band)
        monkeypatch.setattr(fusion, "_CPU_POSITIONS", part)
        with torch.inference_mode():
            pieces = net(target, reference)
        assert (pieces.mid - whole.mid).abs().max() < 1e-12 * whole.mid.abs().max()
        assert (pieces.out - whole.out).abs().max() < 1e-12 * whole.out.abs().max()


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
def test_pooling_equals_adaptive_average_pooling(height: int, width: int, ring: int) -> None:
    x = torch.rand(2, 5, height, width)
    ringed = torch.nn.functional.pad(x, (ring,) * 4)
    expected = torch.cat([torch.nn.functional.adaptive_avg_pool2d(ringed, s).flatten(2) for s in (1, 3, 6, 8)], 2)
    assert torch.allclose(pyramid_average_pooling(x, ring).transpose(1, 2), expected, atol=1e-6)


def test_the_network_takes_in_colours_of_the_reference_only_through_it(net: PDNLA) -> None:
    target = photograph(1, 1, 32, 32, 9)
    with torch.inference_mode():
        one, other = (net(target, photograph(1, 3, 32, 32, seed)).out for seed in (10, 11))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("channel", [4, 8])
def test_folded_constants_change_nothing_but_rounding(channel: int) -> None:
    torch.manual_seed(channel)
    net = PDNLA(channel).double()
    target, reference = photograph(2, 1, 48, 32, 12).double(), photograph(2, 3, 32, 64, 13).double()
    before = copy.deepcopy(net.state_dict())
    for_inference = layers.folded(net, torch.float64)
    with torch.inference_mode():
        expected, result = net.eval()(target, reference), for_inference(target, reference)
        kept = for_inference(target, for_inference.encode_reference(reference))
    for ours, kept_ones, theirs in zip(result, kept, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)
        assert torch.allclose(kept_ones, theirs, rtol=0, atol=1e-11)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_folded_network_keeps_its_convolutions_in_the_precision_asked_for(net: PDNLA) -> None:
    half = layers.folded(net, torch.bfloat16)
    target, reference = photograph(1, 1, 32, 32, 14), photograph(1, 3, 32, 32, 15)
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            expected, result = net(target, reference).out.float(), half(target, reference).out.float()
        exact = net(target, reference).out
    assert (result - exact).abs().max() < 1.5 * (expected - exact).abs().max()
    assert sum(p.numel() * p.itemsize for p in half.parameters()) < 0.5 * sum(
        p.numel() * p.itemsize for p in net.parameters()
    )
