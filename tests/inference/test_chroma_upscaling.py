"""Chroma at full size: along the picture's own edges, seamless in strips, no new colours."""

import torch
from PIL import Image
from skimage import data
from torch import nn

from pdnla.images import color
from pdnla.images.io import Picture
from pdnla.inference.chroma_upscaling import ChromaPlane
from pdnla.inference.preprocessing import rows_tensor


def test_the_lightness_guides_better_than_plain_interpolation() -> None:
    truth = Image.fromarray(data.coffee()[:300, 100:500])
    lab = color.rgb_to_lab(rows_tensor(Picture(truth), 0, 300))
    small = color.rgb_to_lab(rows_tensor(Picture(truth).resized((100, 75)), 0, 75))
    guided = ChromaPlane.fit(small[:, :1], small[:, 1:], truth.size).rows(0, 300, lab[:, :1])
    plain = nn.functional.interpolate(small[:, 1:], size=(300, 400), mode="bilinear")
    errors = [(chroma - lab[:, 1:]).norm(dim=1).mean() for chroma in (guided, plain)]
    assert errors[0] < 0.85 * errors[1]


def test_grain_of_the_full_picture_calls_up_no_new_colours() -> None:
    lightness, chroma = torch.rand(1, 1, 20, 20) * 100, torch.rand(1, 2, 20, 20) * 60 - 30
    rows = ChromaPlane.fit(lightness, chroma, (80, 80)).rows(0, 80, torch.rand(1, 1, 80, 80) * 1000 - 500)
    assert rows.amax() <= chroma.amax()
    assert rows.amin() >= chroma.amin()


def test_strips_are_seamless() -> None:
    generator = torch.Generator().manual_seed(0)
    small, full = (
        torch.rand(1, 3, 24, 32, generator=generator),
        torch.rand(1, 1, 157, 211, generator=generator),
    )
    plane = ChromaPlane.fit(small[:, :1] * 100, small[:, 1:] * 80 - 40, (211, 157))
    whole = plane.rows(0, 157, full * 100)
    for step in (1, 7, 64):
        strips = [
            plane.rows(top, min(top + step, 157), full[:, :, top : top + step] * 100) for top in range(0, 157, step)
        ]
        assert torch.equal(torch.cat(strips, dim=2), whole)


def test_a_plain_colour_stays_plain_when_enlarged() -> None:
    plane = ChromaPlane.fit(torch.rand(1, 1, 10, 12) * 100, torch.full((1, 2, 10, 12), 17.0), (50, 40))
    assert torch.allclose(plane.rows(0, 40, torch.rand(1, 1, 40, 50) * 100), torch.tensor(17.0))
