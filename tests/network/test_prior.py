"""The colour prior: no influence before training, the weight that it has after it, and where it has none."""

import copy
import math
from pathlib import Path

import pytest
import torch
from skimage import data
from torch import Tensor, nn

import train_prior
from pdnla.backbones import Backbone, load_backbone
from pdnla.fast import for_inference
from pdnla.images import color
from pdnla.network import InformedPDNLA
from pdnla.network.prior import PLACE, SIGNS, ColorPrior, expected_hints, features_of

WARM = torch.tensor([12.0, 20.0])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone()


def photographs() -> list[Tensor]:
    return [
        torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        for image in (data.astronaut()[:256, 128:384], data.coffee()[:256, :256])
    ]


def grey(image: Tensor) -> Tensor:
    return color.grey((image + 1) / 2) * 2 - 1


def network_with(backbone: nn.Module, weight: float | None) -> InformedPDNLA:
    """Return a network whose prior expects :data:`WARM` everywhere, with a given weight."""
    torch.manual_seed(0)
    network = InformedPDNLA(backbone, channel=4, side=256, share=0.5, learned=False).eval()
    assert network.prior is not None
    if weight is not None:
        network.prior.given.bias.data[:2] = WARM / 50
        network.prior.trust.bias.data.fill_(torch.tensor(weight).logit().item())
    return network


def test_an_untrained_prior_has_no_influence(backbone: Backbone) -> None:
    network = network_with(backbone, None)
    own, other = photographs()
    with torch.no_grad():
        with_it = network.chroma(grey(own), network.encode_reference(other))
        network.prior = None
        torch.testing.assert_close(
            with_it, network.chroma(grey(own), network.encode_reference(other)), atol=1e-2, rtol=0
        )


@pytest.mark.parametrize("side", [256, 384])
def test_expected_colours_have_their_weight(side: int, backbone: Backbone) -> None:
    network = network_with(backbone, 0.25)
    own, other = (nn.functional.interpolate(image, (side, side), mode="bilinear") for image in photographs())
    without = copy.deepcopy(network)
    without.prior = None
    with torch.no_grad():
        code = network.encode_reference(other)
        mixed, plain = network.chroma(grey(own), code), without.chroma(grey(own), code)
        wanted = 0.75 * plain + 0.25 * WARM.view(1, 2, 1, 1)
        torch.testing.assert_close(mixed, wanted, atol=1e-2, rtol=0)
        fast = for_inference(network, torch.float32)
        torch.testing.assert_close(fast.chroma(grey(own), fast.encode_reference(other)), wanted, atol=2e-2, rtol=0)
        lab = torch.cat([color.rgb_to_lab((grey(own) + 1) / 2)[:, :1], mixed], dim=1)
        out = network(grey(own), code).out
        torch.testing.assert_close(out, color.lab_to_rgb(lab).clamp(0, 1) * 2 - 1, rtol=0, atol=2e-3)


def test_it_has_no_weight_in_training_and_where_the_reference_shows_the_same(backbone: Backbone) -> None:
    network = network_with(backbone, 0.9)
    own, other = photographs()
    with torch.no_grad():
        same = network.chroma(grey(own), network.encode_reference(own))
        torch.testing.assert_close(same, network.correspondence(grey(own), own).chroma, atol=1e-3, rtol=0)
        network.train()
        training = network.chroma(grey(own), network.encode_reference(other))
        network.prior = None
        torch.testing.assert_close(training, network.chroma(grey(own), network.encode_reference(other)))


def test_its_weight_is_never_multiplied_by_more_than_one(backbone: Backbone) -> None:
    own, other = photographs()
    network = InformedPDNLA(backbone, channel=4, side=256, learned=False, share=0.25, same_share=1.0).eval()
    with torch.no_grad():
        for reference, share in ((own, 1.0), (other, 0.25)):
            guide = network.guidance(grey(own), reference, (256, 256))
            assert (network.part_of_prior(guide) == 1).all()
            network.same_share = 0.125
            assert network.part_of_prior(guide).mean().item() == pytest.approx(0.5 if share == 1 else 1.0)
            network.same_share = 1.0


def test_its_weight_is_fitted_as_it_is_used(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places of references that show the same have the same signs, and no part in the fit."""
    network = InformedPDNLA(backbone, channel=4, learned=False)
    result, expected = torch.zeros(8, 2), torch.full((8, 2), 10.0)

    def judged(network: InformedPDNLA, path: Path) -> train_prior.Judged:
        shows_the_same = path.name == "same"
        truth, part = (result, torch.zeros(8, 1)) if shows_the_same else (expected, torch.ones(8, 1))
        return train_prior.Judged(torch.zeros(8, SIGNS), expected, result, truth, part, torch.ones(8, 1))

    monkeypatch.setattr(train_prior, "judged", judged)
    train_prior.fit(network, [Path("same"), Path("same"), Path("other")])
    assert network.prior is not None
    assert network.prior.trust(torch.zeros(1, SIGNS)).sigmoid().item() > 0.99


def test_expected_colours_are_inputs_of_a_network_that_expects(backbone: Backbone) -> None:
    own, other = photographs()
    torch.manual_seed(0)
    network = InformedPDNLA(backbone, channel=4, side=256, learned=False, expects=True).eval()
    assert network.prior is not None
    with torch.no_grad():
        guide = network.guidance(grey(own), other, (256, 256))
        before = network(grey(own), other, guide).out
        network.prior.given.bias[:2] = WARM / 50
        expected = network.prior.expected(grey(own), guide.seen)
        after = network(grey(own), other, guide).out
        assert (after - before).abs().max() > 1e-3  # its weight in the result is still none
        for mode in (True, False):
            network.train(mode)
            torch.testing.assert_close(network(grey(own), other, guide._replace(expected=expected)).out, after)
        network.prior.given.bias[:2] = 0
        torch.testing.assert_close(network(grey(own), other, guide._replace(expected=expected)).out, after)
        hints = expected_hints(expected, (256, 256))
        torch.testing.assert_close(hints[:, :2] * 100, WARM.view(1, 2, 1, 1).expand(1, 2, 256, 256))
        torch.testing.assert_close(hints[:, 2:].exp() * 10, torch.full((1, 1, 256, 256), 1 + math.log1p(math.exp(3))))
        fast = for_inference(network, torch.float32)
        torch.testing.assert_close(fast(grey(own), other, guide).out, before, atol=1e-4, rtol=0)


def test_a_network_without_a_prior_expects_nothing(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="expects"):
        InformedPDNLA(backbone, channel=4, prior=False, expects=True)


def test_expected_colours_end_at_edges_of_luminance(backbone: Backbone) -> None:
    """Places are 8 pixels wide; the edge is in the middle of one."""
    target = torch.full((1, 3, 64, 96), -0.6)
    target[..., 44:] = 0.6
    prior = ColorPrior()
    prior.trust.bias.fill_(20.0)
    left = (torch.arange(12) < 6).view(1, 1, 1, 12).expand(1, 1, 8, 12)
    prior.forward = lambda places: (  # type: ignore[method-assign]
        torch.cat([torch.where(left, 30.0, -30.0)] * 2, dim=1).permute(0, 2, 3, 1),
        torch.ones(1, 8, 12, 1),
    )
    own = photographs()[0]
    network = network_with(backbone, None)
    guide = network.guidance(grey(own), own, (64, 96))
    pull = prior.pull(target, guide, prior.expected(target, guide.seen))
    torch.testing.assert_close(pull[:, :1], torch.ones(1, 1, 64, 96))
    row = pull[0, 1, 32]
    steps = row[:-1] - row[1:]
    assert int(steps.argmax()) == 43
    assert steps[43] > 10


def test_features_of_a_place_are_the_maps_the_mean_of_the_last_and_luminance() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = tuple(torch.randn(1, c, n, n, generator=generator) for c, n in ((40, 16), (112, 8), (320, 4)))
    target = torch.full((1, 3, 64, 64), -1.0)
    target[..., :32] = 1.0
    features = features_of(target, seen)
    assert features.shape == (1, 8, 8, 40 + 112 + 320 + 320 + 2)
    torch.testing.assert_close(features[0, ..., 40:152], seen[1][0].permute(1, 2, 0))
    torch.testing.assert_close(features[0, 3, 3, 472:792], 2 * seen[2][0].mean(dim=(1, 2)))
    torch.testing.assert_close(features[0, :, :4, -2:], torch.tensor([1.0, -1.0]).expand(8, 4, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(features[0, :, 4:, -2:], torch.tensor([-1.0, -1.0]).expand(8, 4, 2), atol=1e-3, rtol=0)
    assert (8, ColorPrior().trust.in_features) == (PLACE, SIGNS)
