"""Each baseline on a case known by hand, alone and as a network that the colorizer runs."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pdnla import Colorizer
from pdnla.evaluation.baselines import BASELINES, Baseline, grey, luminance_rank, mean_chroma, patch_nearest
from pdnla.images import color


def lab(lightness: Tensor, a: float | Tensor, b: float | Tensor) -> Tensor:
    return torch.stack([lightness, torch.zeros_like(lightness) + a, torch.zeros_like(lightness) + b])


def test_grey_has_no_chroma() -> None:
    assert torch.equal(grey(torch.rand(3, 5) * 100, torch.rand(3, 4, 4)), torch.zeros(2, 3, 5))


def test_mean_chroma_is_the_references_everywhere() -> None:
    reference = torch.zeros(3, 2, 2)
    reference[1] = torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    reference[2] = -8
    chroma = mean_chroma(torch.rand(4, 3) * 100, reference)
    assert chroma.shape == (2, 4, 3)
    assert bool((chroma[0] == 25).all())
    assert bool((chroma[1] == -8).all())


def test_luminance_rank_takes_the_chroma_of_the_same_rank_whatever_the_levels() -> None:
    ranks = torch.arange(24.0)
    reference = lab((2 * ranks + 5).view(4, 6), ranks.view(4, 6), -ranks.view(4, 6))
    shuffled = ranks[torch.randperm(24, generator=torch.Generator().manual_seed(0))].view(6, 4)
    chroma = luminance_rank(0.5 * shuffled + 40, reference)
    assert torch.equal(chroma, torch.stack([shuffled, -shuffled]))


def test_pixels_of_one_luminance_share_the_mean_chroma_of_their_rank() -> None:
    lightness = torch.tensor([[20.0, 20.0, 80.0, 80.0]])
    chroma = luminance_rank(torch.tensor([[90.0, 10.0]]), lab(lightness, torch.tensor([[1.0, 3.0, 10.0, 20.0]]), 0))
    assert chroma[0].tolist() == [[15.0, 2.0]]


def test_patch_nearest_finds_the_colour_of_the_texture_where_luminance_alone_cannot() -> None:
    height, width = 48, 96
    chance = torch.Generator().manual_seed(0)
    rough = 50 + 12 * torch.randn(height, width, generator=chance)
    smooth = 50 + 0.2 * torch.randn(height, width, generator=chance)
    left = torch.arange(width).expand(height, width) < width // 2
    reference = lab(torch.where(left, rough, smooth), torch.where(left, 40.0, -40.0), 5.0)
    target = torch.where(left, smooth, rough)  # the other way round
    chroma = patch_nearest(target, reference)
    inside = torch.ones(width, dtype=torch.bool)
    inside[width // 2 - 12 : width // 2 + 12] = False  # windows over both
    assert bool((chroma[0][:, inside] == torch.where(left, -40.0, 40.0)[:, inside]).float().mean() > 0.99)
    assert bool((chroma[1] == 5).all())


def test_patch_nearest_takes_references_smaller_than_its_neighbours_and_larger_than_it_searches() -> None:
    assert patch_nearest(torch.full((16, 16), 50.0), torch.full((3, 1, 2), 7.0)).unique().tolist() == [7.0]
    large = torch.full((3, 300, 400), 7.0)
    assert patch_nearest(torch.full((16, 16), 7.0), large).unique().tolist() == [7.0]


@pytest.mark.parametrize("name", BASELINES)
def test_the_colorizer_runs_each_at_any_size_and_keeps_luminance(name: str) -> None:
    chance = np.random.default_rng(0)
    target = Image.fromarray(chance.integers(60, 200, (45, 70), dtype=np.uint8))
    reference = Image.fromarray(chance.integers(90, 160, (50, 40, 3), dtype=np.uint8))
    colorizer = Colorizer(Baseline(BASELINES[name]), device="cpu", precision="float32", size=32)  # type: ignore[arg-type]
    result = colorizer(target, reference)
    assert result.size == target.size
    lightness = [
        color.rgb_to_lab(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255)[0]
        for image in (target, result)
    ]
    assert float((lightness[0] - lightness[1]).abs().max()) < 1
    colorizer.set_reference(reference)
    assert colorizer.colorize(target).tobytes() == result.tobytes()


def test_chroma_passes_through_the_networks_face_unchanged() -> None:
    reference = torch.tensor([60.0, 30.0, -20.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    rgb = color.lab_to_rgb(reference) * 2 - 1
    out = Baseline(mean_chroma)(torch.zeros(1, 3, 16, 16), rgb).out
    assert color.rgb_to_lab((out + 1) / 2)[0, 1:].mean(dim=(1, 2)).tolist() == pytest.approx([30, -20], abs=0.01)
