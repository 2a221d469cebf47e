"""Semantic correspondence finds what is alike whatever its colours, and the network that begins from it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torch import Tensor

from pdnla.backbones import Backbone, load_backbone
from pdnla.evaluation.metrics import chroma_error
from pdnla.images import color
from pdnla.network import SemanticPDNLA, SemanticWarp
from pdnla.network import correspondence as correspondence_module
from pdnla.network.correspondence import Correspondence, Metric, join_spots
from pdnla.network.smoothing import smooth_by_likeness, smooth_outliers

SIDE = 160


def photograph(name: str, size: tuple[int, int] = (160, 128)) -> Tensor:
    """A photograph, sRGB in [-1, 1], ``(1, 3, H, W)``."""
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        rgb = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def grey(picture: Tensor) -> Tensor:
    return color.grey((picture + 1) / 2) * 2 - 1


def error(result: Tensor, truth: Tensor) -> float:
    return float(chroma_error((result + 1) / 2, (truth + 1) / 2))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone()


@pytest.fixture(scope="module")
def correspondence(backbone: Backbone) -> Correspondence:
    return Correspondence(backbone, SIDE)


@pytest.fixture(scope="module")
def chelsea() -> Tensor:
    return photograph("chelsea.png")


@pytest.mark.parametrize("turn", ["as it is", "mirrored", "smaller"])
def test_a_picture_gets_its_own_colours_back(turn: str, backbone: Backbone, chelsea: Tensor) -> None:
    warp = SemanticWarp(backbone)
    warp.correspondence = Correspondence(backbone, SIDE)
    reference = {
        "as it is": chelsea,
        "mirrored": chelsea.flip(-1),
        "smaller": photograph("chelsea.png", (112, 96)),
    }[turn]
    out = warp(grey(chelsea), reference).out
    assert error(out, chelsea) < 0.15 * error(grey(chelsea), chelsea)


def test_what_is_alike_is_found_in_another_order(correspondence: Correspondence) -> None:
    # Cat and coffee side by side, and coffee and cat: the colours must change sides.
    cat, cup = photograph("chelsea.png", (160, 160)), photograph("coffee.png", (160, 160))
    target, reference = torch.cat([cat, cup], dim=3), torch.cat([cup, cat], dim=3)
    truth = color.rgb_to_lab((target + 1) / 2)[:, 1:]
    actual = correspondence(grey(target), reference).chroma
    in_place = color.rgb_to_lab((reference + 1) / 2)[:, 1:]
    assert (actual - truth).abs().mean() < 0.4 * (in_place - truth).abs().mean()


def test_colours_play_no_part_in_what_is_alike(correspondence: Correspondence, chelsea: Tensor) -> None:
    coloured, uncoloured = correspondence.encode_reference(chelsea), correspondence.encode_reference(grey(chelsea))
    for name in ("features", "lightness", "exposure"):
        assert torch.allclose(getattr(coloured, name), getattr(uncoloured, name), atol=2e-2), name
    assert torch.allclose(coloured.spots[..., :-2], uncoloured.spots[..., :-2], atol=2e-2)
    assert uncoloured.spots[..., -2:].abs().max() < 0.5


def test_an_encoded_reference_and_a_batch_give_what_pictures_one_by_one_give(
    correspondence: Correspondence, chelsea: Tensor
) -> None:
    targets = torch.cat([grey(chelsea), grey(chelsea).flip(-1)])
    references = torch.cat([chelsea, photograph("coffee.png")])
    code = correspondence.encode_reference(references[:1])
    singly = [correspondence(t[None], r[None]) for t, r in zip(targets, references, strict=True)]
    for one, both in zip(singly[0], correspondence(targets[:1], code), strict=True):
        assert torch.equal(one, both)
    together = correspondence(targets, references)
    for part, pair in enumerate(singly):
        # A place that has two equally good matches may take the other one: almost all must agree.
        assert (together.chroma[part] - pair.chroma[0]).abs().quantile(0.99) < 0.05
    shared = correspondence(targets, code)
    assert (shared.chroma[1] - correspondence(targets[1:], code).chroma[0]).abs().quantile(0.99) < 0.05


def test_confidence_is_high_for_the_same_picture_and_low_for_noise(
    correspondence: Correspondence, chelsea: Tensor
) -> None:
    torch.manual_seed(0)
    own = correspondence(grey(chelsea), chelsea).confidence
    noise = correspondence(grey(chelsea), torch.rand_like(chelsea) * 2 - 1).confidence
    assert own.shape == (1, 1, *chelsea.shape[2:])
    assert 0 <= noise.min() <= noise.mean() < 0.5 * own.mean() < own.max() <= 1


@pytest.mark.parametrize("learned", [False, True])
def test_a_reference_that_shares_nothing_leaves_the_picture_close_to_grey(
    learned: bool, backbone: Backbone, chelsea: Tensor
) -> None:
    torch.manual_seed(0)
    correspondence = Correspondence(backbone, SIDE, Metric() if learned else None)
    if correspondence.metric is not None:  # its cosines are high between any two cells
        correspondence.metric.down.fill_(1.0)
        correspondence.metric.up.fill_(1.0)
    noise = torch.rand_like(chelsea) * 2 - 1
    red = torch.stack([noise[:, 0].abs(), -noise[:, 0].abs(), -noise[:, 0].abs()], dim=1)
    tint = correspondence(grey(chelsea), red).chroma.norm(dim=1).mean()
    assert tint < 0.4 * color.rgb_to_lab((red + 1) / 2)[:, 1:].norm(dim=1).mean()


def test_any_shape_and_autocast_work(correspondence: Correspondence, chelsea: Tensor) -> None:
    narrow = photograph("chelsea.png", (32, 512))
    with torch.autocast("cpu", torch.bfloat16):
        actual = correspondence(grey(narrow), chelsea)
    assert actual.chroma.shape == (1, 2, 512, 32)
    assert actual.chroma.dtype == torch.float32
    assert torch.isfinite(actual.chroma).all()


# What stands alone gives way


def test_a_stray_spot_gives_way_and_an_edge_stays() -> None:
    lightness = torch.full((1, 1, 48, 48), 0.3)
    lightness[..., 24:] = 0.8
    chroma = torch.zeros(1, 2, 48, 48)
    chroma[:, 0] = 40.0 * (lightness[:, 0] > 0.5)  # one object red, the other grey
    stray = chroma.clone()
    stray[:, 1, 10:12, 10:12] = -60.0
    result = smooth_outliers(lightness, stray, torch.ones(1, 1, 48, 48))
    assert (result - chroma).abs().max() < 1.5


@pytest.mark.parametrize("smooth", [smooth_outliers, smooth_by_likeness])
def test_one_colour_stays_that_colour_whatever_the_confidence(smooth: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    chroma = torch.tensor([20.0, -30.0]).view(1, 2, 1, 1).expand(1, 2, 40, 40)
    result = smooth(torch.rand(1, 1, 40, 40), chroma, torch.rand(1, 1, 40, 40))
    assert torch.allclose(result, chroma, atol=1e-2)


@pytest.mark.parametrize("smooth", [smooth_outliers, smooth_by_likeness])
def test_doubtful_spots_take_the_colour_of_confident_ones(smooth: Callable[..., Tensor]) -> None:
    chroma = torch.full((1, 2, 40, 40), 30.0)
    chroma[..., 18:22] = -30.0
    confidence = torch.ones(1, 1, 40, 40)
    confidence[..., 18:22] = 0.0
    result = smooth(torch.full((1, 1, 40, 40), 0.5), chroma, confidence)
    assert (result - 30).abs().max() < 1


def test_windows_may_be_larger_than_the_picture() -> None:
    torch.manual_seed(0)
    chroma = torch.tensor([20.0, -30.0]).view(1, 2, 1, 1).expand(1, 2, 12, 60)
    result = smooth_outliers(torch.rand(1, 1, 12, 60), chroma, torch.rand(1, 1, 12, 60), side=51)
    assert torch.allclose(result, chroma, atol=1e-2)


def test_a_small_thing_keeps_its_colour_and_a_stray_patch_that_looks_like_its_surroundings_does_not() -> None:
    appearance, chroma = torch.full((1, 3, 48, 64), 0.4), torch.full((1, 2, 48, 64), 5.0)
    appearance[..., 20:24, 10:20] = 1.0  # lips
    chroma[:, 0, 20:24, 10:20] = 40.0
    truth = chroma.clone()
    chroma[:, 1, 20:30, 40:50] = -40.0
    result = smooth_by_likeness(appearance, chroma, torch.ones(1, 1, 48, 64))
    assert (result - truth).abs().max() < 0.5


def test_likeness_is_that_of_every_fourth_spot_around_and_of_the_spot_itself() -> None:
    torch.manual_seed(0)
    height, width = 32, 48
    appearance, chroma = 0.3 * torch.rand(2, 3, height, width), 20 * torch.randn(2, 2, height, width)
    confidence = torch.rand(2, 1, height, width)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    compared = (rows % 4 == 2) & (columns % 4 == 2)

    def others(y: int, x: int, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the total weight of the spots around one, and their mean colour."""
        near = compared & ((rows - y).abs() <= 20) & ((columns - x).abs() <= 20)
        like = near * torch.exp(-10 * (appearance - appearance[..., y, x, None, None]).square().sum(dim=1))
        weights = like[:, None] * weights
        total = weights.sum(dim=(2, 3))
        return total, (weights * chroma).sum(dim=(2, 3)) / total

    def welsch(y: int, x: int, mean: Tensor, scale: float = 12.0) -> Tensor:
        stray = (chroma[..., y, x] - mean).square().sum(dim=1, keepdim=True)
        return confidence[..., y, x] * torch.exp(-stray / (2 * scale**2))

    weights = confidence.clamp(min=1e-3)
    sure = weights.clone()
    for y, x in compared.nonzero().tolist():
        sure[..., y, x] = welsch(y, x, others(y, x, weights)[1]).clamp(min=1e-3)
    result = smooth_by_likeness(appearance, chroma, confidence, rounds=1)
    for y, x in ((0, 0), (2, 6), (13, 22), (31, 47), (17, 40)):
        total, mean = others(y, x, sure)
        own = welsch(y, x, mean).clamp(min=1e-3)
        fit = (total * mean + own * chroma[..., y, x]) / (total + own)
        expected = fit + welsch(y, x, fit, 6.0) * (chroma[..., y, x] - fit)
        assert torch.allclose(result[..., y, x], expected, atol=1e-3)


@pytest.mark.slow
def test_sure_places_keep_small_details_and_others_follow_what_looks_alike_around(
    backbone: Backbone, chelsea: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    correspondence = Correspondence(backbone, SIDE)
    truth = color.rgb_to_lab((chelsea + 1) / 2)[:, 1:]

    def carried(agreement: float | None) -> Tensor:
        with monkeypatch.context() as patched:
            if agreement is not None:
                patched.setattr(
                    correspondence_module,
                    "_local_agreement",
                    lambda opinion, size: torch.full((1, 1, *size), agreement),
                )
            return correspondence(grey(chelsea), chelsea).chroma

    def error(chroma: Tensor) -> float:
        return float((chroma - truth).norm(dim=1).mean())

    own, sure, unsure = carried(None), carried(1.0), carried(0.0)
    assert error(sure) < 0.8 * error(unsure)
    assert error(own) < error(sure) + 0.1 * (error(unsure) - error(sure))  # a picture is sure of itself
    roughness = [float((x[..., 1:] - x[..., :-1]).abs().mean()) for x in (sure, unsure)]
    assert roughness[1] < roughness[0]


# The network that begins from it


@pytest.mark.slow
def test_an_untrained_network_is_the_correspondence_alone(backbone: Backbone, chelsea: Tensor) -> None:
    torch.manual_seed(0)
    network, warp = SemanticPDNLA(backbone, 4, SIDE).eval(), SemanticWarp(backbone)
    warp.correspondence = Correspondence(backbone, SIDE)
    with torch.no_grad():
        out = network(grey(chelsea), chelsea).out
        again = network(grey(chelsea), network.encode_reference(chelsea)).out
        stages = network.stages(grey(chelsea), chelsea).out
    assert torch.equal(out, warp(grey(chelsea), chelsea).out)
    assert torch.equal(out, again)
    assert torch.equal(out, stages)


@pytest.mark.slow
def test_the_backbone_is_no_part_of_the_weights_and_everything_else_learns(backbone: Backbone, chelsea: Tensor) -> None:
    network = SemanticPDNLA(backbone, 4, SIDE)
    assert not [name for name in network.state_dict() if "backbone" in name or "correspondence" in name]
    assert network.target_encoder.stem.weight.shape[1] == 7
    torch.nn.init.normal_(network.refiner.to_rgb.weight)  # at zero, it alone has a gradient in the first step
    mid, out = network(grey(chelsea), chelsea)
    (mid.mean() + out.square().mean()).backward()
    heads = ("target_encoder.head", "reference_encoder.head")
    without = [name for name, p in network.named_parameters() if p.grad is None and not name.startswith(heads)]
    assert without == []


def test_sides_that_are_no_multiples_of_16_are_refused(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        SemanticWarp(backbone)(torch.zeros(1, 3, 40, 48), torch.zeros(1, 3, 48, 48))


def test_several_references_give_the_colours_of_what_each_shows(backbone: Backbone, chelsea: Tensor) -> None:
    """A target of two halves gets the colours of both from two references, better than from either."""
    warp = SemanticWarp(backbone)
    warp.correspondence = Correspondence(backbone, SIDE)
    coffee = photograph("coffee.png")
    both = torch.cat([chelsea[..., :80], coffee[..., 80:]], dim=-1)
    codes = [warp.encode_reference(picture) for picture in (chelsea, coffee)]
    (joined,) = warp.join_references(codes)
    errors = [error(warp(grey(both), code).out, both) for code in (joined, *codes)]
    assert errors[0] < 0.6 * min(errors[1:])


def test_a_reference_that_shows_nothing_of_it_spoils_little(backbone: Backbone, chelsea: Tensor) -> None:
    warp = SemanticWarp(backbone)
    warp.correspondence = Correspondence(backbone, SIDE)
    codes = [warp.encode_reference(picture) for picture in (chelsea, photograph("rocket.jpg"))]
    alone = error(warp(grey(chelsea), codes[0]).out, chelsea)
    for order in (codes, codes[::-1]):
        assert error(warp(grey(chelsea), warp.join_references(order)[0]).out, chelsea) < alone + 1


def test_one_reference_joined_is_itself_and_twice_it_the_same(backbone: Backbone, chelsea: Tensor) -> None:
    warp = SemanticWarp(backbone)
    warp.correspondence = Correspondence(backbone, SIDE)
    code = warp.encode_reference(chelsea)
    once = warp(grey(chelsea), warp.join_references([code])[0]).out
    torch.testing.assert_close(once, warp(grey(chelsea), code).out, rtol=0, atol=0)
    assert error(warp(grey(chelsea), warp.join_references([code, code])[0]).out, once) < 1


@pytest.mark.slow
def test_the_trained_network_takes_the_places_of_all(backbone: Backbone, chelsea: Tensor) -> None:
    """Before training it gives what correspondence gives, whichever reference fits best."""
    net = SemanticPDNLA(backbone, channel=4, side=SIDE).eval()
    coffee = photograph("coffee.png")
    codes = [net.encode_reference(picture) for picture in (chelsea, coffee)]
    warp = SemanticWarp(backbone)
    warp.correspondence = Correspondence(backbone, SIDE)
    (spots,) = warp.join_references([warp.encode_reference(picture) for picture in (chelsea, coffee)])
    wanted = warp(grey(chelsea), spots).out
    with torch.no_grad():
        for code in net.join_references(codes):
            torch.testing.assert_close(net(grey(chelsea), code).out, wanted, rtol=0, atol=1e-4)


def test_a_metric_before_training_changes_nothing(backbone: Backbone, chelsea: Tensor) -> None:
    plain, learned = Correspondence(backbone, SIDE), Correspondence(backbone, SIDE, Metric())
    reference = chelsea.flip(-1)
    wanted, found = (matched(grey(chelsea), reference) for matched in (plain, learned))
    torch.testing.assert_close(found.chroma, wanted.chroma, rtol=0, atol=0.05)


def test_several_references_have_the_places_of_all_with_a_metric(backbone: Backbone, chelsea: Tensor) -> None:
    matched = Correspondence(backbone, SIDE, Metric())
    spots = [matched.encode_reference(part) for part in (chelsea, chelsea.flip(-1))]
    joined = join_spots(spots)
    torch.testing.assert_close(joined.features, torch.cat([s.features for s in spots], dim=1))
    torch.testing.assert_close(joined.plain, torch.cat([s.plain for s in spots], dim=1))
    assert join_spots([Correspondence(backbone, SIDE).encode_reference(chelsea)] * 2).plain.shape == joined.plain.shape
