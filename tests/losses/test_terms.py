"""The hybrid supervision's other terms: values known by hand, gradients, and what each rewards."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from skimage import data
from torch import Tensor, nn

from pdnla import PDNLA, UserError
from pdnla.backbones import VGG19, Backbone, load_backbone
from pdnla.images.color import grey, lab_to_rgb, rgb_to_lab
from pdnla.losses import (
    AdversarialLoss,
    ContentLoss,
    ContextualLoss,
    CooccurrenceLoss,
    CorrespondenceLoss,
    HeadCodes,
    HeadsLoss,
    HistogramLoss,
    HybridLoss,
    LossTerm,
    PerceptualLoss,
    PixelLoss,
    Supervision,
    TotalVariationLoss,
)
from pdnla.losses.contextual import contextual_similarity
from pdnla.losses.cooccurrence import random_patches
from pdnla.losses.critics import ImageCritic, PatchCritic, minibatch_deviation
from pdnla.losses.histogram import chroma_histogram, histogram_distance
from pdnla.losses.perceptual import feature_distance
from pdnla.losses.term import frozen, logistic, non_saturating
from pdnla.losses.tv import chroma_variation
from pdnla.network import Codes
from pdnla.network.correspondence import Carried

SIZE = 64


def photograph(name: str) -> Tensor:
    image = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 127.5 - 1
    side = min(image.shape[2:])
    return nn.functional.interpolate(image[..., :side, :side], size=SIZE, mode="area")


def moved(image: Tensor, a: float, b: float) -> Tensor:
    """A picture with its chroma moved and its luminance kept."""
    lab = rgb_to_lab((image + 1) / 2)
    return lab_to_rgb(lab + torch.tensor([0.0, a, b]).view(1, 3, 1, 1)) * 2 - 1


def plain(lightness: float, a: float, b: float, size: int = 8, width: int | None = None) -> Tensor:
    lab = torch.tensor([lightness, a, b]).view(1, 3, 1, 1).expand(1, 3, size, width or size)
    return lab_to_rgb(lab) * 2 - 1


def blurred(image: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(image, 7, 1, 3, count_include_pad=False)


def judged(
    out: Tensor, truth: Tensor, reference: Tensor | None = None, unpaired: int = 0, backbone: Backbone | None = None
) -> Supervision:
    reference = truth if reference is None else reference
    return Supervision(truth, reference, truth, out, out, unpaired=unpaired, backbone=backbone)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("efficientnet_lite0")


# Values known by hand


def test_feature_distance_is_0_for_like_2_for_orthogonal_4_for_opposite_features() -> None:
    x, y = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    x[:, 0], y[:, 1] = 5.0, 0.1
    assert feature_distance([x], [2 * x]).item() == 0
    assert feature_distance([x], [y]).item() == pytest.approx(2)
    assert feature_distance([x], [-y - 50 * x]).item() == pytest.approx(4, abs=1e-3)
    assert feature_distance([x, x], [x, y]).item() == pytest.approx(1)


def test_chroma_variation_counts_the_one_edge() -> None:
    picture = torch.cat([plain(60, 0, 0), plain(60, 30, -10)], dim=3)
    assert chroma_variation(picture).item() == pytest.approx((0.3 + 0.1) / 15, rel=1e-3)
    assert chroma_variation(plain(20, 5, 5)).item() == pytest.approx(0, abs=1e-5)


def test_contextual_similarity_is_1_for_one_clear_match_and_1_in_n_for_none_clearer() -> None:
    apart = torch.eye(4).view(1, 4, 2, 2)
    assert contextual_similarity(apart, apart).item() == pytest.approx(1, abs=1e-4)
    opposite = torch.zeros(1, 3, 1, 2)
    opposite[0, 0] = torch.tensor([[1.0, -1.0]])
    between = torch.zeros(1, 3, 1, 1)
    between[0, 1] = 1.0
    assert contextual_similarity(between, opposite).item() == pytest.approx(0.5)


def test_histogram_of_a_plain_colour_follows_its_kernel() -> None:
    # a* = 6.25 and b* = -18.75 are the middles of bins 8 and 6 of 16.
    actual = chroma_histogram(plain(60, 6.25, -18.75), bins=16)[0]
    places = torch.arange(16.0)
    kernel = torch.outer(1 / (1 + (places - 8) ** 2), 1 / (1 + (places - 6) ** 2))
    assert torch.allclose(actual, kernel / kernel.sum(), atol=1e-4)


def test_histogram_distance_is_hellingers() -> None:
    one, other = plain(60, 40, 0), plain(60, -40, 0)
    assert histogram_distance(one, one, 16).item() == pytest.approx(1e-6)
    h, k = chroma_histogram(one, 16), chroma_histogram(other, 16)
    assert histogram_distance(one, other, 16).item() == pytest.approx(
        math.sqrt(1 - (h * k).sqrt().sum().item()), rel=1e-4
    )


def codes(rows: list[list[float]]) -> Codes:
    code = torch.tensor(rows)
    return Codes(code, code.square())


def test_heads_loss_is_the_grams_distance_and_the_squared_cosine() -> None:
    expected, same = codes([[1.0, 0.0, 2.0, 1.0]]), codes([[1.0, 0.0, 2.0, 1.0]])
    picture = torch.zeros(1, 3, 4, 4)
    orthogonal = codes([[1.0, 2.0, 1.0, 0.0]])  # centred: (0, 1, 0, -1) against (0, -1, 1, 0) has cosine -1/2

    def loss(target: Codes, result: Codes, weight: float) -> float:
        batch = Supervision(*[picture] * 5, codes=HeadCodes(target, expected, result))
        return HeadsLoss(orthogonality=weight)(batch).item()

    assert loss(same, same, 0) == pytest.approx(0, abs=1e-6)
    assert loss(same, same, 3) == pytest.approx(3)
    assert loss(orthogonal, same, 1) == pytest.approx(0.25)
    doubled = Codes(same.code, 2 * same.gram)
    assert loss(orthogonal, doubled, 0) == pytest.approx(1, rel=1e-5)


class Linear(nn.Module):
    """A critic whose score is the sum of a picture times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, image: Tensor) -> Tensor:
        return self.weight * image.flatten(1).sum(dim=1)


def test_adversarial_losses_and_r1_of_a_linear_critic() -> None:
    term = AdversarialLoss(Linear(), penalty=10.0, penalty_every=16)  # type: ignore[arg-type]
    out, truth = torch.full((2, 3, 2, 2), 0.25), torch.full((2, 3, 2, 2), -0.5)
    batch = judged(out, truth)  # scores 1.5 and -3
    softplus = [math.log1p(math.exp(x)) for x in (-1.5, 1.5, 3.0)]
    assert term(batch).item() == pytest.approx(softplus[0])
    plain_loss, scores = term.critic_loss(batch, step=5)
    assert plain_loss.item() == pytest.approx(softplus[1] + softplus[2])
    assert (scores["real"].item(), scores["fake"].item()) == (-3.0, 1.5)
    penalised, _ = term.critic_loss(batch, step=32)
    # The gradient of a score is 0.5 in each of 12 numbers.
    assert (penalised - plain_loss).item() == pytest.approx(16 * 10 / 2 * 12 * 0.25)
    penalised.backward()
    assert term.critic.weight.grad is not None


def test_logistic_losses_of_scores() -> None:
    zero = torch.zeros(3)
    assert non_saturating(zero).item() == pytest.approx(math.log(2))
    assert logistic(zero, zero).item() == pytest.approx(2 * math.log(2))


def test_correspondence_loss_of_known_colours(monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    carried = Carried(torch.tensor([10.0, -20.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8), torch.full((1, 1, 8, 8), 0.25))
    monkeypatch.setattr("pdnla.losses.correspondence.Correspondence", lambda *_: lambda *_: carried)
    batch = judged(plain(60, 30, 0), plain(60, 0, 0), unpaired=1, backbone=backbone)
    batch.mid = plain(60, 10, 0)
    # out is 20 + 20 away, mid 0 + 20.
    assert CorrespondenceLoss()(batch).item() == pytest.approx(0.25 * (0.40 + 0.5 * 0.20), abs=1e-4)
    assert CorrespondenceLoss(mid=0.0)(batch).item() == pytest.approx(0.25 * 0.40, abs=1e-4)


def test_minibatch_deviation_of_known_groups() -> None:
    x = torch.tensor([1.0, 3.0, 5.0, 5.0]).view(4, 1, 1, 1).expand(4, 2, 3, 3)
    actual = minibatch_deviation(x, group=2)
    assert actual.shape == (4, 3, 3, 3)
    assert actual[:, 2, 0, 0].tolist() == pytest.approx([1, 1, 0, 0], abs=2e-4)
    assert minibatch_deviation(x[:3], group=2)[:, 2].abs().max() < 2e-4  # three do not divide into pairs


# What they reward


def test_perceptual_loss_falls_towards_the_truth(backbone: Backbone) -> None:
    truth = photograph("astronaut")

    def loss(out: Tensor) -> float:
        return PerceptualLoss()(judged(out, truth, backbone=backbone)).item()

    shifted = moved(truth, 25, -25)
    assert loss(truth) < 1e-9
    assert 0 < loss((truth + shifted) / 2) < loss(shifted)
    assert loss(blurred(truth)) > 0
    assert loss(shifted) < loss(photograph("coffee"))


def test_content_loss_sees_luminance_alone(backbone: Backbone) -> None:
    truth = photograph("astronaut")
    batch = judged(truth, truth)

    def loss(out: Tensor) -> float:
        return ContentLoss()(Supervision(batch.target, truth, truth, out, out, unpaired=1, backbone=backbone)).item()

    batch.target = grey((truth + 1) / 2) * 2 - 1
    assert loss(truth) < 1e-4
    assert loss(blurred(truth)) > 20 * loss(truth)
    assert loss(photograph("coffee")) > loss(blurred(truth))
    assert loss(moved(truth, 10, -10)) < 0.2 * loss(blurred(truth))


def test_contextual_loss_falls_for_the_references_own_parts(backbone: Backbone) -> None:
    reference = photograph("astronaut")

    def loss(out: Tensor) -> float:
        return ContextualLoss()(judged(out, out, reference, unpaired=1, backbone=backbone)).item()

    shuffled = torch.cat([reference[..., SIZE // 2 :], reference[..., : SIZE // 2]], dim=3)
    assert loss(reference) < loss(shuffled) < loss(photograph("coffee"))
    assert loss(reference) < loss(moved(reference, 40, -40))


def test_histogram_loss_falls_for_the_references_colours_wherever_they_are() -> None:
    reference = photograph("chelsea")

    def loss(out: Tensor) -> float:
        return HistogramLoss(bins=16)(judged(out, out, reference, unpaired=1)).item()

    assert loss(reference.flip(3)) < 1e-3
    assert loss(reference) < loss(moved(reference, 10, 10)) < loss(moved(reference, 30, 30))
    assert loss(moved(reference, 10, 10)) < loss(photograph("coffee"))


@pytest.mark.slow
def test_correspondence_loss_falls_where_colours_are_on_what_shows_the_same(backbone: Backbone) -> None:
    reference = photograph("astronaut")
    target = grey((reference + 1) / 2) * 2 - 1

    def loss(out: Tensor, reference: Tensor = reference) -> float:
        batch = Supervision(target, reference, target, out, out, unpaired=1, backbone=backbone)
        return CorrespondenceLoss()(batch).item()

    chroma = rgb_to_lab((reference + 1) / 2)[:, 1:]
    lightness = rgb_to_lab((reference + 1) / 2)[:, :1]
    elsewhere = lab_to_rgb(torch.cat([lightness, chroma.flip(2)], dim=1)) * 2 - 1
    assert loss(reference) < 0.4 * loss(target)
    assert loss(reference) < 0.4 * loss(elsewhere)  # the same colours in other places
    assert loss(reference) < loss(moved(reference, 10, 10)) < loss(moved(reference, 30, 30))
    assert loss(reference.flip(3), reference.flip(3)) > 2 * loss(reference, reference.flip(3))
    unlike = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert loss(elsewhere, unlike) < 0.4 * loss(elsewhere)  # what corresponds to nothing asks for little


def test_histogram_loss_pulls_a_far_colour_towards_the_references() -> None:
    out = plain(60, -50, 0).requires_grad_()
    HistogramLoss()(judged(out, out.detach(), plain(60, 40, 0), unpaired=1)).backward()
    assert out.grad is not None
    nearer = (out - 0.05 * out.grad / out.grad.abs().max()).detach()
    assert rgb_to_lab((nearer + 1) / 2)[:, 1].mean() > rgb_to_lab((out.detach() + 1) / 2)[:, 1].mean() + 0.5


def test_total_variation_rises_with_grain_and_falls_with_blur() -> None:
    picture = photograph("coffee")
    term = TotalVariationLoss(edges=None)
    grain = picture + 0.1 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    assert term(judged(blurred(picture), picture)) < term(judged(picture, picture)) < term(judged(grain, picture))


def test_chroma_that_follows_the_targets_edges_costs_less_than_chroma_that_leaves_them() -> None:
    target = torch.cat([plain(30, 0, 0, 16, 8), plain(70, 0, 0, 16, 8)], dim=3)

    def loss(boundary: int, edges: float | None) -> float:
        out = torch.cat([plain(50, 20, 0, 16, boundary), plain(50, -20, 0, 16, 16 - boundary)], dim=3)
        return TotalVariationLoss(edges)(Supervision(target, target, out, out, out)).item()

    everywhere = 0.4 / 15  # one step of 40 among fifteen neighbours
    assert loss(8, None) == pytest.approx(everywhere, rel=0.02)
    assert loss(5, 10.0) == pytest.approx(everywhere, rel=0.02)
    assert loss(8, 10.0) == pytest.approx(everywhere * math.exp(-4), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adversarial", "cooccurrence"])
def test_a_critic_learns_and_then_prefers_what_it_was_shown_as_real(kind: str) -> None:
    torch.manual_seed(0)
    truth = torch.cat([photograph("astronaut"), photograph("coffee"), photograph("chelsea").flip(3)])
    wrong = moved(truth, 45, -45)
    term: AdversarialLoss | CooccurrenceLoss
    if kind == "adversarial":
        term = AdversarialLoss(ImageCritic(width=4, blocks=4))
    else:
        term = CooccurrenceLoss(PatchCritic(width=4, blocks=2), size=16)
    optimizer = torch.optim.Adam(term.critic.parameters(), 2e-3, betas=(0.0, 0.99))
    for step in range(60):
        batch = Supervision(truth, truth, truth, wrong, wrong, unpaired=3, seed=step)
        loss, _ = term.critic_loss(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def cost(out: Tensor) -> float:
        return term(Supervision(truth, truth, truth, out, out, unpaired=3, seed=1000)).item()

    assert cost(truth) < cost((truth + wrong) / 2) < cost(wrong)


def test_cooccurrence_prefers_patches_of_the_same_picture_to_those_of_another() -> None:
    class Colours(nn.Module):
        """A critic that compares mean colours."""

        def forward(self, patches: Tensor, reference: Tensor) -> Tensor:
            mean = reference.mean(dim=(1, 3, 4)).unsqueeze(1)
            return -(patches.mean(dim=(3, 4)) - mean).abs().sum(dim=-1)

    term = CooccurrenceLoss(Colours(), size=8)  # type: ignore[arg-type]
    reference, other = photograph("coffee"), photograph("astronaut")
    own = term(judged(reference.flip(3), reference, reference, unpaired=1))
    assert own < term(judged(other, other, reference, unpaired=1))


# Patches


def test_patches_are_an_eighth_to_a_quarter_of_the_side_and_inside() -> None:
    # A ramp over the width tells where a patch is and how wide.
    ramp = torch.linspace(0, 1, 256).expand(1, 1, 128, 256).contiguous()
    patches = random_patches(ramp, 200, 16, torch.Generator().manual_seed(0))
    assert patches.shape == (1, 200, 1, 16, 16)
    width = (patches[..., -1] - patches[..., 0]).mean(dim=-1).flatten() * 16 / 15
    assert 0.99 / 16 < width.min() < 1.1 / 16
    assert 0.95 / 8 < width.max() < 1.01 / 8
    assert patches.min() < 0.1
    assert patches.max() > 0.9


def test_patches_follow_from_the_seed() -> None:
    picture = torch.rand(2, 3, 32, 32)
    one, same, other = (random_patches(picture, 4, 8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# Gradients


def gradient_error(term: LossTerm, batch: Callable[[Tensor], Supervision], out: Tensor) -> float:
    """Relative difference of the directional derivative from its finite difference."""
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).double()
    out = out.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(term(batch(out)), out)
    with torch.no_grad():
        step = 1e-7 * direction
        finite = (term(batch(out + step)) - term(batch(out - step))) / 2e-7
    return abs((gradient * direction).sum().item() / finite.item() - 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "term",
    [
        PerceptualLoss(),
        ContentLoss(),
        ContextualLoss(bandwidth=1.0),
        CorrespondenceLoss(side=64),
        HistogramLoss(),
        TotalVariationLoss(edges=None),
        TotalVariationLoss(edges=10.0),
    ],
    ids=repr,
)
def test_gradients_are_those_of_finite_differences(term: LossTerm, backbone: Backbone) -> None:
    generator = torch.Generator().manual_seed(2)
    truth, out, reference = (torch.rand(1, 3, 64, 64, generator=generator).double() * 1.6 - 0.8 for _ in range(3))
    double = copy.deepcopy(backbone).double()
    unpaired = int(term.rows == "unpaired")
    assert gradient_error(term, lambda x: judged(x, truth, reference, unpaired, double), out) < 1e-3


@pytest.mark.parametrize(
    "term",
    [AdversarialLoss(ImageCritic(4, 2)), CooccurrenceLoss(PatchCritic(4, 1), size=8)],
    ids=["adversarial", "cooccurrence"],
)
def test_gradients_through_critics_are_those_of_finite_differences(term: LossTerm) -> None:
    generator = torch.Generator().manual_seed(2)
    truth, out = (torch.rand(2, 3, 16, 16, generator=generator).double() * 1.6 - 0.8 for _ in range(2))
    term = copy.deepcopy(term).double()
    assert gradient_error(term, lambda x: judged(x, truth, truth, 2), out) < 1e-3


def test_heads_gradients_reach_the_result_and_both_encoders() -> None:
    torch.manual_seed(0)
    net = PDNLA(4).double()
    target, reference, out = (torch.rand(1, 3, 32, 32).double() * 2 - 1 for _ in range(3))

    def batch(x: Tensor) -> Supervision:
        grey = net.target_encoder.codes(net.target_encoder(target)[-1])
        colours = (net.reference_encoder.codes(net.reference_encoder(y)[-1]) for y in (reference, x))
        return Supervision(target, reference, reference, x, x, codes=HeadCodes(grey, *colours))

    # The encoders' edges are thresholds: away from them the gradient is exact.
    direction = torch.randn(out.shape).double()
    leaf = out.clone().requires_grad_()
    HeadsLoss()(batch(leaf)).backward()
    assert leaf.grad is not None
    with torch.no_grad():
        finite = (HeadsLoss()(batch(out + 1e-7 * direction)) - HeadsLoss()(batch(out - 1e-7 * direction))) / 2e-7
    assert (leaf.grad * direction).sum().item() == pytest.approx(finite.item(), rel=1e-3)
    assert net.target_encoder.head.weight.grad is not None
    assert net.reference_encoder.head.weight.grad is not None


# Who judges what


def test_a_critic_takes_no_gradient_from_the_networks_loss_and_the_network_none_from_the_critics() -> None:
    term = AdversarialLoss(ImageCritic(4, 2))
    out = torch.rand(2, 3, 16, 16, requires_grad=True)
    term(judged(out, out.detach())).backward()
    assert out.grad is not None
    assert all(p.grad is None and p.requires_grad for p in term.critic.parameters())
    out.grad = None
    term.critic_loss(judged(out, out.detach()), 1)[0].backward()
    assert out.grad is None
    assert all(p.grad is not None for p in term.critic.parameters())


def test_freezing_leaves_weights_that_did_not_learn_as_they_were() -> None:
    critic = ImageCritic(4, 2)
    critic.trunk.requires_grad_(False)
    with frozen(critic):
        assert not any(p.requires_grad for p in critic.parameters())
    assert not any(p.requires_grad for p in critic.trunk.parameters())
    assert all(p.requires_grad for p in critic.score.parameters())


class Mean(LossTerm):
    """Returns the mean of the pictures it is shown."""

    def forward(self, batch: Supervision) -> Tensor:
        return batch.out.mean()


class PairedMean(Mean):
    rows = "paired"


class UnpairedMean(Mean):
    rows = "unpaired"


def test_terms_judge_their_own_pairs_and_parts_add_up_to_the_batch() -> None:
    loss = HybridLoss({"all": Mean(), "paired": PairedMean(), "unpaired": UnpairedMean()})
    pictures = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 4, 4)

    def batch(rows: list[int], unpaired: int) -> Supervision:
        return Supervision(*[pictures[rows]] * 5, unpaired=unpaired)

    total, values = loss(batch([0, 1, 2, 3, 4], 2))
    assert {name: value.item() for name, value in values.items()} == {"all": 2.0, "paired": 3.0, "unpaired": 0.5}
    first, _ = loss(batch([0, 2, 4], 1), whole=(5, 2))
    second, _ = loss(batch([1, 3], 1), whole=(5, 2))
    assert (first + second).item() == pytest.approx(total.item())
    assert "unpaired" not in loss(batch([2, 3], 0))[1]


def test_features_are_made_once_for_all_terms(backbone: Backbone) -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            Counting.calls += 1
            return backbone(image)

    out = torch.rand(2, 3, 64, 64, requires_grad=True)
    truth = torch.rand(2, 3, 64, 64)
    batch = Supervision(truth, truth, truth, out, out, unpaired=1, backbone=Counting())  # type: ignore[arg-type]
    terms = {"perceptual": PerceptualLoss(), "contextual": ContextualLoss(), "content": ContentLoss()}
    HybridLoss(terms, dict.fromkeys(terms, 1.0))(batch)
    # Paired: out, truth. Unpaired: out, reference, the luminance of out, target.
    assert Counting.calls == 6
    assert batch.paired.features("out")[0].requires_grad
    assert not batch.paired.features("truth")[0].requires_grad


def test_a_term_of_weight_zero_leaves_nothing_to_learn() -> None:
    loss = HybridLoss(
        {"pixel": PixelLoss(), "adversarial": AdversarialLoss(ImageCritic(4, 2))}, {"pixel": 1.0, "adversarial": 0.0}
    )
    assert not loss.critics
    assert not list(loss.parameters())


# Backbones


def test_backbones_give_their_maps_take_no_gradient_and_stay_in_eval_mode(backbone: Backbone) -> None:
    for network in (backbone, VGG19(pretrained=False).requires_grad_(False)):
        image = torch.rand(1, 3, 64, 64, requires_grad=True)
        features = network.train()(image)
        assert [(f.shape[1], 64 // f.shape[2]) for f in features] == [(c, s) for s, c in network.layers.items()]
        assert not any(module.training for module in network.modules())
        sum(f.square().mean() for f in features).backward()  # type: ignore[union-attr]
        assert image.grad is not None
        assert image.grad.abs().sum() > 0
        assert all(p.grad is None for p in network.parameters())


def test_a_backbone_is_loaded_once_and_an_unknown_one_is_refused(backbone: Backbone) -> None:
    assert load_backbone("efficientnet_lite0") is backbone
    with pytest.raises(UserError, match="backbone resnet is not known; use efficientnet_lite0 or vgg19"):
        load_backbone("resnet")
