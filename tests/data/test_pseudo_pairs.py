"""Pseudo-pairs: what they keep, what they change, and that seeds decide everything."""

import pytest
import torch
from skimage import data
from torch import Tensor

from pdnla.data.pseudo_pairs import PseudoPairs, warp
from pdnla.images.color import rgb_to_lab


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    picture = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255
    return torch.cat([picture[..., :96, 150:246], picture[..., 200:296, 100:196], picture[..., 300:396, 300:396]])


STILL = {"warp": 0.0, "noise": 0.0, "mirror": 0.0, "recolour": 0.0}


def test_without_changes_the_reference_is_the_truth_is_the_photograph(photographs: Tensor) -> None:
    pairs = PseudoPairs(**STILL)(photographs, [1, 2, 3])
    assert torch.allclose((pairs.truth + 1) / 2, photographs, atol=1e-6)
    assert torch.allclose((pairs.reference + 1) / 2, photographs, atol=1e-4)


def test_the_target_is_grey_and_has_the_truths_luminance(photographs: Tensor) -> None:
    pairs = PseudoPairs()(photographs, [1, 2, 3])
    assert torch.equal(pairs.target[:, 0], pairs.target[:, 1])
    assert torch.equal(pairs.target[:, 0], pairs.target[:, 2])
    target, truth = (rgb_to_lab((x + 1) / 2)[:, 0] for x in (pairs.target, pairs.truth))
    assert (target - truth).abs().max() < 0.05


def test_pairs_follow_from_their_own_seed_alone(photographs: Tensor) -> None:
    make = PseudoPairs(recolour=0.5)
    together = make(photographs, [7, 8, 9])
    again = make(photographs, [7, 8, 9])
    separate = make(photographs[1:2], [8])
    other = make(photographs[1:2], [10])
    for part in range(3):
        assert torch.equal(together[part], again[part])
        assert torch.allclose(together[part][1:2], separate[part], atol=1e-5)
    assert (separate.reference - other.reference).abs().max() > 0.1


def test_a_warp_moves_the_picture_and_leaves_no_corner_black() -> None:
    offsets = torch.tensor([[[0.5, -0.5], [-0.5, 0.5]]])
    white = warp(torch.ones(1, 3, 64, 64), offsets)
    assert torch.allclose(white, torch.ones_like(white), atol=1e-5)
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    assert (warp(ramp, offsets) - ramp).abs().max() > 0.1
    assert torch.allclose(warp(ramp, torch.zeros(1, 2, 2)), ramp, atol=1e-3)


def test_the_mirror_mirrors(photographs: Tensor) -> None:
    pairs = PseudoPairs(**{**STILL, "mirror": 1.0})(photographs, [1, 2, 3])
    assert torch.allclose(pairs.reference.flip(-1), pairs.truth, atol=2e-4)


def test_noise_stays_within_its_amplitude_and_touches_the_reference_alone(photographs: Tensor) -> None:
    pairs = PseudoPairs(**{**STILL, "noise": 0.2})(photographs, [1, 2, 3])
    difference = (pairs.reference - pairs.truth).abs().amax(dim=(1, 2, 3)) / 2
    assert (difference < 0.2 + 1e-3).all()
    assert difference.max() > 0.02
    assert torch.allclose((pairs.truth + 1) / 2, photographs, atol=1e-6)


def test_recolouring_changes_chroma_but_for_the_gamuts_end_not_luminance(photographs: Tensor) -> None:
    pairs = PseudoPairs(**{**STILL, "recolour": 1.0})(photographs, [1, 2, 3])
    before, after = rgb_to_lab(photographs), rgb_to_lab((pairs.truth + 1) / 2)
    assert (before - after)[:, 1:].abs().mean() > 1
    assert (before - after)[:, 0].abs().median() < 0.1
    assert torch.allclose(pairs.reference, pairs.truth, atol=2e-4)
