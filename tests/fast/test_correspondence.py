"""The fast correspondence computes what the plain one does."""

import copy
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torch import Tensor

from pdnla.backbones import Backbone, load_backbone
from pdnla.fast import accelerate
from pdnla.fast.correspondence import largest
from pdnla.network import SemanticWarp
from pdnla.network.correspondence import Correspondence, Metric, join_spots

SIDE = 224


def photograph(name: str, size: tuple[int, int]) -> Tensor:
    """A photograph, sRGB in [-1, 1], ``(1, 3, H, W)``."""
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        rgb = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone()


@pytest.mark.parametrize("learned", [False, True])
def test_colours_and_confidence_are_the_plain_ones(learned: bool, backbone: Backbone) -> None:
    plain = Correspondence(backbone, SIDE, Metric() if learned else None)
    fast = accelerate(copy.deepcopy(plain))
    assert type(fast) is not Correspondence
    targets = torch.cat([photograph(name, (200, 280)) for name in ("chelsea.png", "coffee.png")])
    targets = targets.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    codes = [plain.encode_reference(photograph("coffee.png", size)) for size in ((240, 200), (96, 320))]
    for code in (codes[0], join_spots(codes)):  # more than one block of cells, and a number that fills no block
        expected, actual = plain(targets, code), fast(targets, code)
        assert expected.chroma.abs().max() > 10
        assert (actual.chroma - expected.chroma).abs().max() < 0.02
        assert (actual.confidence - expected.confidence).abs().max() < 1e-3


def test_the_attention_is_the_plain_one_with_excluded_places(backbone: Backbone) -> None:
    plain = Correspondence(backbone, SIDE)
    fast = accelerate(copy.deepcopy(plain))
    view, spots = plain.view_and_spots(photograph("chelsea.png", (200, 160)))
    cells = torch.tensor([0, 7, 400])
    prior = torch.zeros(spots.lightness.shape[1])
    prior[::2] = -torch.inf
    expected = plain.attention(view, cells, spots, log_prior=prior)
    actual = fast.attention(view, cells, spots, log_prior=prior)
    assert torch.equal(actual.cells, expected.cells)
    assert (actual.cells % 2 == 1).all()
    for one, other in zip(actual[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_an_edited_correspondence_stays_plain(backbone: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    class Farther(Correspondence):
        pass

    warp = SemanticWarp(backbone)
    warp.correspondence = Farther(backbone, SIDE)
    assert type(accelerate(warp).correspondence) is Farther
    assert "Farther (correspondence)" in caplog.text


@pytest.mark.parametrize("columns", [3, 4, 31, 32, 33, 100, 3136])
def test_the_largest_values_are_those_of_topk(columns: int) -> None:
    x = torch.randn(50, columns, generator=torch.Generator().manual_seed(columns))
    count = min(4, columns)
    values, places = largest(x, count)
    expected = x.topk(count, dim=1)
    assert torch.equal(values, expected.values)
    assert torch.equal(places, expected.indices)
    nothing = torch.full((2, columns), -torch.inf)
    assert largest(nothing, count)[1].max() < columns
