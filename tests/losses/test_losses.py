"""Each term against values known by hand, its gradient, and what it rewards."""

import math

import pytest
import torch
from torch import Tensor

from pdnla import UserError
from pdnla.images.color import lab_to_rgb
from pdnla.losses import ChromaLoss, HybridLoss, LossTerm, PixelLoss, Supervision
from pdnla.losses.chroma import chroma_distance
from pdnla.losses.pixel import charbonnier


def batch(truth: Tensor, out: Tensor, mid: Tensor | None = None) -> Supervision:
    return Supervision(truth, truth, truth, out if mid is None else mid, out)


def patch(lightness: float, a: float, b: float) -> Tensor:
    """A plain picture of one CIELAB colour, sRGB in [-1, 1]."""
    lab = torch.tensor([lightness, a, b]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    return lab_to_rgb(lab) * 2 - 1


def test_charbonnier_is_the_absolute_difference_far_out_and_nothing_where_both_agree() -> None:
    truth = torch.zeros(1, 3, 4, 4)
    assert charbonnier(truth + 0.5, truth).item() == pytest.approx(math.hypot(0.5, 1e-3) - 1e-3)
    assert charbonnier(truth, truth).item() == 0


def test_pixel_loss_counts_mid_by_its_weight() -> None:
    truth = torch.zeros(1, 3, 4, 4)
    loss = PixelLoss(mid=0.5)(batch(truth, truth + 0.2, truth - 0.4))
    assert loss.item() == pytest.approx(0.2 + 0.5 * 0.4, abs=2e-3)


def test_chroma_distance_of_two_known_colours() -> None:
    actual = chroma_distance(patch(60, 10, -20), patch(60, -5, 12))
    assert actual.item() == pytest.approx((15 + 32) / 100, rel=1e-3)


def test_chroma_distance_does_not_see_lightness() -> None:
    assert chroma_distance(patch(40, 10, -20), patch(70, 10, -20)).item() == pytest.approx(0, abs=1e-4)


def test_chroma_loss_counts_mid_by_its_weight() -> None:
    truth = patch(60, 0, 0)
    loss = ChromaLoss(mid=0.25)(batch(truth, patch(60, 10, 0), patch(60, 0, 20)))
    assert loss.item() == pytest.approx(0.1 + 0.25 * 0.2, rel=1e-3)


@pytest.mark.parametrize("term", [PixelLoss(), ChromaLoss()])
def test_terms_fall_towards_the_truth_and_rise_with_a_shift_of_colour_or_a_blur(term: torch.nn.Module) -> None:
    truth = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    shifted = truth + torch.tensor([0.2, -0.1, 0.0]).view(1, 3, 1, 1)
    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    half_way = (truth + shifted) / 2
    exact, near, far, blur = (term(batch(truth, x)).item() for x in (truth, half_way, shifted, blurred))
    assert exact < 1e-6
    assert exact < near < far
    assert blur > near


@pytest.mark.parametrize("term", [PixelLoss(), ChromaLoss()])
def test_gradients_are_those_of_finite_differences(term: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    truth, out = (torch.rand(1, 3, 4, 4, generator=generator).double() * 1.6 - 0.8 for _ in range(2))
    out.requires_grad_()
    term(batch(truth, out, truth)).backward()
    assert out.grad is not None
    direction = torch.randn(out.shape, generator=generator).double()
    with torch.no_grad():
        step = 1e-6 * direction
        difference = (term(batch(truth, out + step, truth)) - term(batch(truth, out - step, truth))) / 2e-6
    assert (out.grad * direction).sum().item() == pytest.approx(difference.item(), rel=1e-4)


def test_results_far_out_of_range_still_have_finite_gradients() -> None:
    truth = torch.zeros(1, 3, 4, 4)
    out = torch.tensor([-5.0, 0.0, 6.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4).clone().requires_grad_()
    (PixelLoss()(batch(truth, out)) + ChromaLoss()(batch(truth, out))).backward()
    assert out.grad is not None
    assert out.grad.isfinite().all()
    assert out.grad.abs().sum() > 0


class Counting(LossTerm):
    def __init__(self, value: float, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.value, self.calls = value, 0

    def forward(self, _batch: Supervision) -> Tensor:
        self.calls += 1
        return torch.tensor(self.value)


def test_hybrid_loss_sums_by_weight_and_computes_nothing_of_weight_zero() -> None:
    one, two, idle = Counting(2.0), Counting(5.0), Counting(math.nan)
    loss = HybridLoss({"one": one, "two": two, "idle": idle}, {"one": 3.0, "two": 0.5, "idle": 0})
    truth = torch.zeros(1, 3, 4, 4)
    total, values = loss(batch(truth, truth))
    assert total.item() == pytest.approx(3 * 2 + 0.5 * 5)
    assert {name: value.item() for name, value in values.items()} == {"one": 2.0, "two": 5.0}
    assert idle.calls == 0


def test_a_term_brings_its_own_weight_and_one_of_the_same_name_replaces_it() -> None:
    terms = {"one": Counting(2.0, weight=3.0), "two": Counting(5.0, weight=0.5), "idle": Counting(math.nan, weight=0.0)}
    truth = torch.zeros(1, 3, 4, 4)
    assert HybridLoss(terms)(batch(truth, truth))[0].item() == pytest.approx(3 * 2 + 0.5 * 5)
    assert HybridLoss(terms, {"two": 2.0})(batch(truth, truth))[0].item() == pytest.approx(3 * 2 + 2 * 5)
    assert set(HybridLoss(terms, {"one": 0.0}).active_terms) == {"two"}


def test_a_weight_without_a_term_is_named() -> None:
    with pytest.raises(UserError, match=r"loss\.weights: no term is called pixle; the terms are pixel"):
        HybridLoss({"pixel": PixelLoss()}, {"pixle": 1.0})


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"rows": "piared"}, "Typo.rows is 'piared'; it must be one of all, paired, unpaired"),
        ({"needs": ("backbones",)}, "Typo.needs is .*; it must be a tuple of backbone, codes"),
        ({"needs": "backbone"}, "Typo.needs is 'backbone'; it must be a tuple"),
    ],
)
def test_rows_and_needs_that_do_not_exist_are_refused_where_the_term_is_defined(
    attributes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(TypeError, match=sentence):
        type("Typo", (LossTerm,), attributes)


def test_a_module_that_is_no_term_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match=r"loss\.terms\.mine: Identity is not a subclass of LossTerm"):
        HybridLoss({"mine": torch.nn.Identity()}, {"mine": 1.0})  # type: ignore[dict-item]
