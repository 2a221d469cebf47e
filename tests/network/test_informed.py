"""The informed network: what guides it, how it begins, and that kept guides give what whole pictures do."""

import copy

import pytest
import torch
from skimage import data
from torch import Tensor, nn

from pdnla.backbones import Backbone, load_backbone
from pdnla.fast import accelerate, for_inference
from pdnla.images import color
from pdnla.network import InformedPDNLA, SemanticWarp
from pdnla.network.correspondence import Metric
from pdnla.network.guide import HINTS, SHOWN, Guidance, shown
from pdnla.network.informed import SAME, SAME_LIGHT


class Patches(nn.Module):
    """A stand-in for the backbone: random projections of patches, in its strides and channels."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernels = [
            torch.randn(channels, 3, stride, stride, generator=generator) / stride
            for stride, channels in ((4, 24), (8, SHOWN[0]), (16, SHOWN[1]), (32, SHOWN[2]))
        ]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(nn.functional.conv2d(image, kernel.to(image), stride=kernel.shape[-1]) for kernel in self.kernels)


@pytest.fixture
def backbone() -> nn.Module:
    return Patches()


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    rough = torch.rand(1, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(rough, (height, width), mode="bicubic").clamp(0, 1) * 2 - 1


def grey(image: Tensor) -> Tensor:
    return color.grey((image + 1) / 2) * 2 - 1


def test_a_guide_has_the_size_asked_for_and_its_maps_unit_mean_square(backbone: nn.Module) -> None:
    guide = Guidance(backbone, 128)(grey(picture(128, 192)), picture(128, 128, 1), (64, 96))
    assert guide.chroma.shape == (1, 2, 64, 96)
    assert guide.hints.shape == (1, HINTS, 64, 96)
    assert [tuple(x.shape[1:]) for x in guide.seen] == [(40, 16, 24), (112, 8, 12), (320, 4, 6)]
    torch.testing.assert_close(guide.hints[:, :2] * 100, guide.chroma)
    whole = shown(backbone(picture(128, 128)))
    for level in whole:
        torch.testing.assert_close(level.square().mean(dim=1), torch.ones_like(level[:, 0]))


def test_the_second_opinion_of_a_picture_by_itself_is_its_own_colours_and_all_agree(backbone: nn.Module) -> None:
    image = picture(128, 128)
    guidance = Guidance(backbone, 128)
    spots = guidance.encode_reference(image)
    opinion = guidance.correspondence.match(grey(image), spots).opinion
    assert opinion.chroma.shape == (1, 2, 8, 8)
    wanted = nn.functional.adaptive_avg_pool2d(color.rgb_to_lab((image + 1) / 2)[:, 1:], 8)
    # Attention is over cells half as long, whose likest are the four within the coarse one and its neighbours.
    assert (opinion.chroma - wanted).norm(dim=1).mean() < 0.5 * wanted.norm(dim=1).mean()
    assert opinion.agreement.mean() > 0.9
    assert opinion.cosine.min() > 0.5
    assert opinion.difference.shape == (1, 1, 8, 8)


def test_a_difference_of_luminance_is_that_of_the_most_similar_places(backbone: nn.Module) -> None:
    own, _ = photographs()
    lab = color.rgb_to_lab((own + 1) / 2)
    lab[:, :1] = 20 + 0.6 * lab[:, :1]
    paler = color.lab_to_rgb(lab).clamp(0, 1) * 2 - 1
    guidance = Guidance(backbone, 256)
    guide = guidance(grey(own), paler, (256, 256))
    lightness = color.rgb_to_lab((own + 1) / 2)[:, :1] / 100
    wanted = (0.2 - 0.4 * lightness).abs()
    assert guide.difference is not None
    # In the median around each place, of cells that are matched to within a cell.
    error = (guide.difference.mean() - wanted.mean()).abs()
    assert error < 0.25 * wanted.mean()
    assert guide.rows(torch.tensor([0])).difference is not None


def test_strangers_agree_less(backbone: nn.Module) -> None:
    guidance = Guidance(backbone, 128)
    target = grey(picture(128, 128))
    own, other = (guidance(target, picture(128, 128, seed), (128, 128)).hints[:, 6].mean() for seed in (0, 7))
    assert other < own - 0.2


def test_it_begins_near_the_carried_over_picture(backbone: nn.Module) -> None:
    torch.manual_seed(0)
    target, reference = grey(picture(64, 64)), picture(64, 64, 1)
    network = InformedPDNLA(backbone, channel=4, side=64, share=1.0, learned=False, same_share=None, prior=False).eval()
    with torch.no_grad():
        mid, out = network(target, reference)
        carried = SemanticWarp(backbone)
        carried.correspondence.side = 64
        belief = torch.sigmoid(torch.tensor(2.0))
        torch.testing.assert_close(out, mid + belief * (carried(target, reference).out - mid), atol=1e-4, rtol=0)


def test_it_gives_the_same_by_a_code_by_a_guide_and_for_inference(backbone: nn.Module) -> None:
    torch.manual_seed(1)
    target, reference = grey(picture(64, 96)), picture(64, 64, 1)
    network = InformedPDNLA(backbone, channel=4, side=64, share=1.0, learned=False, same_share=None, prior=False).eval()
    nn.init.normal_(network.refiner.to_rgb.weight)
    nn.init.normal_(network.refiner.gate.weight)
    with torch.no_grad():
        out = network(target, reference).out
        guide = network.guidance(target, reference, (64, 96))
        for same in (
            network(target, network.encode_reference(reference)),
            network(target, reference, guide),
            for_inference(network)(target, reference),
        ):
            torch.testing.assert_close(same.out, out, atol=1e-4, rtol=0)


def test_large_pictures_come_back_at_their_size_and_in_their_luminance(backbone: nn.Module) -> None:
    torch.manual_seed(2)
    target = grey(picture(320, 288))
    network = InformedPDNLA(backbone, channel=4, side=64, share=1.0, learned=False, same_share=None, prior=False).eval()
    with torch.no_grad():
        out = network(target, picture(272, 304, 1)).out
    assert out.shape == target.shape
    before, after = (color.rgb_to_lab((x + 1) / 2)[:, 0] for x in (target, out))
    assert (before - after).abs().mean() < 1.0


def test_every_part_learns(backbone: nn.Module) -> None:
    torch.manual_seed(3)
    network = InformedPDNLA(backbone, channel=4, side=64, share=1.0, learned=False, same_share=None, prior=False)
    nn.init.normal_(network.refiner.to_rgb.weight)
    nn.init.normal_(network.refiner.gate.weight)
    mid, out = network(grey(picture(64, 64)), picture(64, 64, 1))
    (mid.square().mean() + out.square().mean()).backward()
    # A gate of one channel may be shut by its ReLU; the heads are of other losses.
    learning = {
        n: p for n, p in network.named_parameters() if not any(part in n for part in ("head", "squeeze", "excite"))
    }
    silent = [n for n, p in learning.items() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.slow
def test_the_fast_network_has_the_plain_ones_results_gradients_and_names(
    backbone: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(4)
    target, reference = grey(picture(320, 288)), picture(64, 96, 1)
    plain = InformedPDNLA(backbone, channel=4, side=64, share=1.0, learned=False, same_share=None, prior=False)
    nn.init.normal_(plain.refiner.to_rgb.weight)
    nn.init.normal_(plain.refiner.gate.weight)
    plain = plain.double()
    fast = accelerate(copy.deepcopy(plain))
    assert not caplog.records
    assert list(fast.state_dict()) == list(plain.state_dict())
    target, reference = target.double(), reference.double()
    with torch.no_grad():
        large = plain(target, reference).out
        for same in (fast(target, reference).out, fast(target, fast.encode_reference(reference)).out):
            torch.testing.assert_close(same, large, atol=1e-9, rtol=0)
    target = target[..., :64, :96]
    guide = plain.guidance(target, reference, (64, 96))
    for network in (plain, fast):
        mid, out = network(target, reference, guide)
        (mid.square().mean() + out.square().mean()).backward()
    for (name, one), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, atol=1e-9, rtol=1e-6)


def test_in_bfloat16_its_copy_for_inference_differs_by_rounding(backbone: nn.Module) -> None:
    torch.manual_seed(5)
    target, reference = grey(picture(64, 96)), picture(64, 64, 1)
    network = InformedPDNLA(backbone, channel=4, side=64, share=1.0, learned=False, same_share=None, prior=False).eval()
    with torch.no_grad():
        out = network(target, reference).out
        with torch.autocast("cpu", torch.bfloat16):
            lower = for_inference(network, torch.bfloat16)(target, reference).out
    assert (lower - out).abs().mean() < 0.01


@pytest.mark.parametrize(("side", "learned"), [(64, False), (512, True)])
def test_a_share_is_the_weight_of_its_chroma_and_correspondence_has_the_rest(
    side: int, learned: bool, backbone: nn.Module
) -> None:
    torch.manual_seed(0)
    whole = InformedPDNLA(backbone, channel=4, side=64, share=1.0, learned=learned, same_share=None, prior=False).eval()
    for parameter in whole.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    half = InformedPDNLA(backbone, channel=4, side=64, share=0.5, learned=learned, same_share=None, prior=False).eval()
    half.load_state_dict(whole.state_dict())
    target, reference = grey(picture(side, side)), picture(64, 64, 1)
    with torch.no_grad():
        carried = whole.correspondence(target, reference).chroma
        alone, mixed = (network.chroma(target, whole.encode_reference(reference)) for network in (whole, half))
        out = half(target, reference).out
    assert (alone - carried).abs().mean() > 0.5
    torch.testing.assert_close(mixed, (alone + carried) / 2, rtol=1e-3, atol=1e-3)
    lab = torch.cat([color.rgb_to_lab((target + 1) / 2)[:, :1], mixed], dim=1)
    torch.testing.assert_close(out, color.lab_to_rgb(lab).clamp(0, 1) * 2 - 1, rtol=0, atol=2e-3)


def test_confidence_is_that_of_correspondence_and_gradients_reach_through_a_share(backbone: nn.Module) -> None:
    torch.manual_seed(0)
    network = InformedPDNLA(backbone, channel=4, side=64, share=0.5, learned=False).train()
    target, reference = grey(picture(64, 64)), picture(64, 64, 1)
    carried = network.correspondence(target, reference)
    torch.testing.assert_close(
        network.carried(target, network.encode_reference(reference)).confidence, carried.confidence
    )
    network(target, reference).out.square().mean().backward()
    assert network.refiner.to_rgb.weight.grad is not None
    assert network.refiner.to_rgb.weight.grad.abs().sum() > 0


def photographs() -> list[Tensor]:
    return [
        torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        for image in (data.astronaut()[:256, 128:384], data.coffee()[:256, :256])
    ]


def test_colours_of_the_same_picture_are_correspondences_and_those_of_another_are_mixed(backbone: nn.Module) -> None:
    torch.manual_seed(0)
    network = InformedPDNLA(backbone, channel=4, side=256, share=0.5, learned=False, prior=False).eval()
    former = InformedPDNLA(backbone, channel=4, side=256, share=0.5, learned=False, same_share=None, prior=False).eval()
    former.load_state_dict(network.state_dict())
    own, other = photographs()
    target = grey(own)
    with torch.no_grad():
        for reference in (own, other):
            code = network.encode_reference(reference)
            mixed, always = network.chroma(target, code), former.chroma(target, code)
            carried = network.correspondence(target, reference).chroma
            assert (always - carried).abs().mean() > 0.1
            torch.testing.assert_close(mixed, carried if reference is own else always, rtol=1e-4, atol=1e-3)
        code = network.encode_reference(own)
        both = network.chroma(torch.cat([target, grey(other)]), code)  # each picture of a batch has its own weight
        torch.testing.assert_close(both[:1], network.chroma(target, code), rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(both[1:], former.chroma(grey(other), code), rtol=1e-4, atol=1e-2)
        assert (network.train().chroma(target, code) - both[:1]).abs().mean() > 0.1


def test_a_share_is_less_where_a_part_of_the_reference_shows_the_same_in_the_same_light(backbone: nn.Module) -> None:
    torch.manual_seed(0)
    network = InformedPDNLA(backbone, channel=4, side=256, share=0.5, learned=False, same_share=0.1).eval()
    own, other = photographs()
    guide = network.guidance(grey(own), other, (256, 256))
    assert guide.hints[:, -1].mean() < SAME[0]
    middle = sum(SAME_LIGHT) / 2
    differences, parts = torch.tensor([*SAME_LIGHT, middle, 0.0]), torch.tensor([0.2, 1.0, 0.6, 0.2])
    guide = guide._replace(difference=differences.repeat(64).expand(1, 1, 256, -1))
    torch.testing.assert_close(network.part_of_prior(guide), parts.repeat(64).expand(1, 1, 256, -1))
    torch.testing.assert_close(
        network.part_of_prior(guide._replace(difference=None)), torch.ones(1, 1, 256, 256)
    )  # not known
    torch.testing.assert_close(network.train().part_of_prior(guide), torch.ones(1, 1, 256, 256))


def test_what_is_left_of_the_same_photograph_keeps_its_exact_colours() -> None:
    torch.manual_seed(0)
    network = InformedPDNLA(load_backbone(), channel=4, share=0.5, learned=False, prior=False).eval()
    own, other = photographs()
    target, partial = grey(own), torch.cat([own[..., :128], other[..., 128:]], dim=-1)
    with torch.no_grad():
        code = network.encode_reference(partial)
        mixed = network.chroma(target, code)
        network.same_share = network.share
        always = network.chroma(target, code)
        carried = network.correspondence(target, partial).chroma
    changed, whole = ((chroma - carried).norm(dim=1)[0] for chroma in (mixed, always))
    assert changed[:, :64].mean() < 0.3 * whole[:, :64].mean()
    assert changed[:, 192:].mean() > 0.7 * whole[:, 192:].mean()


def test_the_fast_network_is_not_run_where_its_chroma_has_no_weight(
    backbone: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = InformedPDNLA(backbone, channel=4, side=256, share=0.5, learned=False).eval()
    fast = for_inference(network, torch.float32)
    runs: list[int] = []
    decode = fast.decoder.forward
    monkeypatch.setattr(fast.decoder, "forward", lambda *given: runs.append(1) or decode(*given))
    own, other = photographs()
    with torch.inference_mode():
        for reference in (own, other):
            wanted = network.carried(grey(own), network.encode_reference(reference))
            actual = fast.carried(grey(own), fast.encode_reference(reference))
            torch.testing.assert_close(actual.chroma, wanted.chroma, rtol=1e-3, atol=1e-2)
            torch.testing.assert_close(actual.confidence, wanted.confidence, rtol=1e-3, atol=1e-3)
            assert len(runs) == (reference is other)


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(share: float, backbone: nn.Module) -> None:
    with pytest.raises(ValueError, match="over 0 and at most 1"):
        InformedPDNLA(backbone, channel=4, share=share)
    if share:
        with pytest.raises(ValueError, match="must be from 0 to 1"):
            InformedPDNLA(backbone, channel=4, same_share=share)


def test_a_learned_metric_changes_the_matching_and_not_the_second_opinion(backbone: nn.Module) -> None:
    target, reference = grey(picture(128, 128)), picture(128, 128, 3)
    plain, learned = Guidance(backbone, 128), Guidance(backbone, 128, Metric())
    before = learned(target, reference, (128, 128))
    assert learned.correspondence.metric is not None
    learned.correspondence.metric.up.copy_(torch.randn(learned.correspondence.metric.up.shape))
    after, wanted = (guidance(target, reference, (128, 128)) for guidance in (learned, plain))
    assert (after.chroma - before.chroma).abs().mean() > 0.1
    torch.testing.assert_close(after.hints[:, 3:], wanted.hints[:, 3:])
    assert [name for name, p in learned.named_parameters() if p.requires_grad] == []


def test_a_backbone_with_other_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="backbone vgg19: must have maps of"):
        InformedPDNLA(Backbone("vgg19", {2: 128, 4: 256, 8: 512, 16: 512}), channel=4)
