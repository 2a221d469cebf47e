"""Colour spaces: as an independent implementation has them, lightness and hue kept at the gamut's end."""

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from pdnla.images.color import grey, lab_to_rgb, lab_to_rgb_in_gamut, lightness, replace_luminance, rgb_to_lab
from pdnla.network.layers import grey_lightness


def image(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).movedim(-1, 0)[None].float()


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    return tensor[0].movedim(0, -1).double().numpy()


@pytest.fixture(scope="module")
def rgb() -> torch.Tensor:
    return torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def any_lab() -> torch.Tensor:
    """Colours of every lightness, hue and chroma, most of them far outside sRGB."""
    lightness, hue, chroma = np.meshgrid(
        np.linspace(0, 100, 41), np.linspace(0, 2 * np.pi, 37), np.linspace(0, 150, 16), indexing="ij"
    )
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    return image(lab.reshape(41, -1, 3))


def test_lab_is_that_of_scikit_image(rgb: torch.Tensor) -> None:
    assert np.abs(channels_last(rgb_to_lab(rgb)) - rgb2lab(channels_last(rgb))).max() < 2e-2


def test_lab_goes_there_and_back(rgb: torch.Tensor) -> None:
    assert (lab_to_rgb(rgb_to_lab(rgb)) - rgb).abs().max() < 1e-3


def test_conversions_stay_in_float32_under_autocast(rgb: torch.Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lab = rgb_to_lab(rgb)
        assert torch.equal(lab, rgb_to_lab(rgb.clone()))
        assert lab_to_rgb_in_gamut(lab).dtype == torch.float32
    assert torch.equal(lab, rgb_to_lab(rgb))


def test_grey_keeps_lightness_and_has_no_chroma(rgb: torch.Tensor) -> None:
    lab, plain = rgb2lab(channels_last(rgb)), rgb2lab(channels_last(grey(rgb)))
    assert np.abs(plain[..., 0] - lab[..., 0]).max() < 2e-2
    assert np.abs(plain[..., 1:]).max() < 2e-2


def test_replaced_luminance_is_the_targets(rgb: torch.Tensor) -> None:
    target = grey(rgb) * 2 - 1
    result = (replace_luminance(target, rgb.flip(-1) * 0.2 + target * 0.8) + 1) / 2
    inside = ((result > 0) & (result < 1)).all(dim=1)[0].numpy()
    difference = np.abs(rgb2lab(channels_last(result))[..., 0] - rgb2lab(channels_last(rgb))[..., 0])
    assert difference[inside].max() < 0.05


def test_the_gamut_leaves_colours_alone_that_fit(rgb: torch.Tensor) -> None:
    assert (lab_to_rgb_in_gamut(rgb_to_lab(rgb)) - rgb).abs().max() < 1e-3


def test_lightness_is_kept_in_8_bits_whatever_the_chroma(any_lab: torch.Tensor) -> None:
    bytes_ = (lab_to_rgb_in_gamut(any_lab) * 255).round().to(torch.uint8)
    lightness = rgb2lab(bytes_[0].movedim(0, -1).numpy())[..., 0]
    assert np.abs(lightness - channels_last(any_lab)[..., 0]).max() < 0.6


def test_hue_is_kept_and_chroma_only_reduced(any_lab: torch.Tensor) -> None:
    asked = channels_last(any_lab)[..., 1:]
    given = rgb2lab(channels_last(lab_to_rgb_in_gamut(any_lab)))[..., 1:]
    chroma = np.hypot(asked[..., 0], asked[..., 1])
    along = (asked * given).sum(axis=-1) / np.maximum(chroma, 1e-9)
    across = (asked[..., 0] * given[..., 1] - asked[..., 1] * given[..., 0]) / np.maximum(chroma, 1e-9)
    coloured = chroma > 1
    assert np.abs(across[coloured]).max() < 1.5
    assert (along - chroma)[coloured].max() < 1.0
    assert along[coloured].min() > -0.5


def test_chroma_is_reduced_no_more_than_needed(any_lab: torch.Tensor) -> None:
    given = rgb2lab(channels_last(lab_to_rgb_in_gamut(any_lab)))
    asked = channels_last(any_lab)
    reduced = np.linalg.norm(given[..., 1:], axis=-1) < np.linalg.norm(asked[..., 1:], axis=-1) - 3
    reduced &= (asked[..., 0] > 2) & (asked[..., 0] < 98)
    further = given.copy()
    further[..., 1:] *= 1 + 4 / np.linalg.norm(given[..., 1:], axis=-1, keepdims=True).clip(1e-6)
    unclipped = lab_to_rgb(image(further), clip=False)
    outside = channels_last((unclipped < 0) | (unclipped > 1)).any(axis=-1)
    assert outside[reduced].mean() > 0.99
    assert reduced.mean() > 0.3


def test_the_gamut_keeps_shapes_and_its_input() -> None:
    lab = torch.tensor([50.0, 120.0, -90.0]).reshape(3, 1, 1).expand(2, 4, 3, 1, 5).clone()
    before = lab.clone()
    rgb = lab_to_rgb_in_gamut(lab)
    assert rgb.shape == lab.shape
    assert torch.equal(lab, before)
    assert torch.equal(rgb, rgb[:1, :1, :, :, :1].expand_as(rgb))


def test_black_and_white_have_no_chroma() -> None:
    lab = torch.tensor([[0.0, 100.0], [80.0, 80.0], [80.0, 80.0]]).reshape(1, 3, 1, 2)
    assert np.allclose(channels_last(lab_to_rgb_in_gamut(lab))[0], [[0, 0, 0], [1, 1, 1]], atol=2.1 / 255)


def test_scikit_image_agrees_on_colours_that_fit() -> None:
    lab = np.array([[[50.0, 20.0, -30.0], [80.0, -20.0, 40.0], [20.0, 5.0, 5.0]]])
    assert np.allclose(channels_last(lab_to_rgb_in_gamut(image(lab))), lab2rgb(lab), atol=1e-3)


def test_the_lightness_of_grey_is_that_of_the_whole_conversion() -> None:
    picture = torch.linspace(0, 1, 1000).view(1, 1, 20, 50).expand(1, 3, -1, -1)
    assert (lightness(picture) - rgb_to_lab(picture)[:, :1]).abs().max() < 1e-3
    layer = grey_lightness(picture[:, :1])
    assert (100 * layer - lightness(picture)).abs().max() < 1e-3
