"""Editing: a wrong match is corrected and nothing else changes; adjusted without running the network again."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.color import lab2rgb, rgb2lab
from torch import Tensor, nn

from pdnla.backbones import load_backbone
from pdnla.errors import UserError
from pdnla.images.io import Picture
from pdnla.inference.colorizer import Colorizer
from pdnla.inference.correcting import grown_region
from pdnla.inference.editing import Adjustment, Editor
from pdnla.network.correspondence import Correspondence
from pdnla.network.semantic import SemanticWarp

SIDE = 128
LEFT, RIGHT = (0.28, 0.5), (0.72, 0.5)
RED, BLUE = (55.0, 30.0), (0.0, -45.0)


def discs(left: tuple[float, ...], right: tuple[float, ...]) -> Image.Image:
    """Two discs of the same texture on a grey ground, each of an L* and, if given, an a* and b*."""
    lab = np.zeros((SIDE, SIDE, 3))
    noise = np.random.default_rng(0).normal(0, 1.5, (SIDE, SIDE))
    lab[..., 0] = 85 + noise
    rows, columns = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    for (x, y), colour in ((LEFT, left), (RIGHT, right)):
        inside = np.hypot(columns - x, rows - y) < 0.17
        lab[inside, 0] = colour[0] + noise[inside]
        lab[inside, 1:] = colour[1:] or (0.0, 0.0)
    return Image.fromarray((lab2rgb(lab) * 255).round().astype(np.uint8))


def chroma_at(image: Image.Image, point: tuple[float, float]) -> np.ndarray:
    """Mean a* and b* of the pixels around a point."""
    x, y = (round(coordinate * SIDE) for coordinate in point)
    return rgb2lab(np.asarray(image.convert("RGB")))[y - 5 : y + 5, x - 5 : x + 5, 1:].mean(axis=(0, 1))


class Colours(NamedTuple):
    mid: Tensor
    out: Tensor


class OneColour(nn.Module):
    """A stand-in for the network, which counts its calls: every pixel in the reference's mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []  # shared with the Colorizer's copy

    def __deepcopy__(self, memo: object) -> "OneColour":
        return self

    def encode_reference(self, reference: Tensor) -> tuple[Tensor]:
        return (reference.mean(dim=(2, 3), keepdim=True),)

    def forward(self, target: Tensor, reference: Tensor | tuple[Tensor]) -> Colours:
        self.calls.append(len(target))
        code = reference if isinstance(reference, tuple) else self.encode_reference(reference)
        out = code[0].expand_as(target)
        return Colours(out, out)


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    network = SemanticWarp(load_backbone())
    network.correspondence.side = SIDE
    return Colorizer(network, device="cpu", precision="float32", size=SIDE)


@pytest.fixture(scope="module")
def editor(colorizer: Colorizer) -> Editor:
    return Editor(colorizer, discs((50,), (50,)).convert("L"), [discs((50, *RED), (50, *BLUE))], side=SIDE)


@pytest.fixture
def misled(editor: Editor) -> Iterator[Editor]:
    """A target in which the left disc is to be blue, while it matches the left one of the reference, which is red."""
    yield editor
    while editor.undo():
        pass


def test_a_known_wrong_match_is_corrected_and_the_rest_of_the_picture_stays_the_same(misled: Editor) -> None:
    before = misled.image()
    assert np.linalg.norm(chroma_at(before, LEFT) - RED) < 15, "the left disc is matched wrongly"
    place = misled.source(*LEFT)
    assert np.hypot(place.x - LEFT[0], place.y - LEFT[1]) < 0.17
    assert not place.corrected
    misled.correct(LEFT, RIGHT)
    after = misled.image()
    assert np.linalg.norm(chroma_at(after, LEFT) - BLUE) < 12
    place = misled.source(*LEFT)
    assert np.hypot(place.x - RIGHT[0], place.y - RIGHT[1]) < 0.17
    assert place.corrected
    changed = (np.asarray(before) != np.asarray(after)).any(axis=-1)
    rows, columns = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    distance = np.hypot(columns - LEFT[0], rows - LEFT[1])
    assert changed[distance < 0.13].mean() > 0.95, "the region follows"
    assert not changed[distance > 0.17 + 8 / SIDE].any(), "nothing changes beyond the disc's edge"


def test_undo_takes_corrections_back_one_by_one(misled: Editor) -> None:
    first = np.asarray(misled.image())
    misled.correct(LEFT, RIGHT)
    second = np.asarray(misled.image())
    misled.correct(RIGHT, LEFT)
    assert np.linalg.norm(chroma_at(misled.image(), RIGHT) - RED) < 12
    undone = misled.undo()
    assert undone is not None
    assert undone.target == RIGHT
    assert np.array_equal(misled.image(), second)
    assert misled.undo() is not None
    assert np.array_equal(misled.image(), first)
    assert misled.undo() is None


def test_a_correction_takes_colours_from_any_reference(colorizer: Colorizer) -> None:
    green = discs((50, -45, 40), (50, -45, 40))
    references = [discs((50, *RED), (50, *BLUE)), green]
    editor = Editor(colorizer, discs((50,), (50,)).convert("L"), references, side=SIDE)
    editor.correct(LEFT, RIGHT, number=1)
    assert np.linalg.norm(chroma_at(editor.image(), LEFT) - (-45, 40)) < 12
    assert editor.source(*LEFT).number == 1
    assert editor.source(*RIGHT).number == 0


def test_colours_of_several_references_come_from_the_one_that_the_place_is_in(colorizer: Colorizer) -> None:
    photographs = [Image.fromarray(picture).resize((SIDE, SIDE)) for picture in (data.astronaut(), data.chelsea())]
    for number, target in enumerate(photographs):
        editor = Editor(colorizer, target.convert("L"), photographs, main=None, side=SIDE)
        for point in ((0.44, 0.2), (0.4, 0.75), (0.75, 0.8)):
            place = editor.source(*point)
            assert place.number == number
            assert np.hypot(place.x - point[0], place.y - point[1]) < 0.05
        difference = np.asarray(editor.image(), int) - np.asarray(target, int)
        assert np.abs(difference).mean() < 15
        editor.correct((0.5, 0.5), (0.5, 0.5), number=1 - number)
        assert editor.source(0.5, 0.5).number == 1 - number


def test_a_correction_holds_for_any_network_and_does_not_run_it_again() -> None:
    network = OneColour()
    colorizer = Colorizer(network, device="cpu", precision="float32", size=64)
    references = [discs((62, *RED), (40, *BLUE))]
    editor = Editor(colorizer, discs((40,), (62,)).convert("L"), references, side=SIDE)
    plain = editor.image()
    editor.correct(LEFT, LEFT)
    editor.source(*RIGHT)
    result = editor.image(Adjustment(saturation=1.5, strength=0.9))
    assert np.linalg.norm(chroma_at(editor.image(), LEFT) - RED) < 12
    assert np.allclose(chroma_at(editor.image(), RIGHT), chroma_at(plain, RIGHT), atol=0.5)
    assert result.size == plain.size
    assert network.calls == [1]


def test_a_point_of_the_same_picture_comes_from_the_same_place(colorizer: Colorizer) -> None:
    photograph = Image.fromarray(data.astronaut()).resize((SIDE, SIDE))
    editor = Editor(colorizer, photograph.convert("L"), [photograph], side=SIDE)
    points = [(0.44, 0.2), (0.8, 0.15), (0.1, 0.3), (0.4, 0.75), (0.75, 0.8)]
    for x, y in points:
        place = editor.source(x, y)
        assert np.hypot(place.x - x, place.y - y) < 0.03
        assert place.similarity > 0.9


def test_the_attention_of_a_place_carries_what_the_correspondence_carries_there(misled: Editor) -> None:
    """Where a colour is said to come from, the reference has that colour."""
    reference = discs((50, *RED), (50, *BLUE))
    for point in (LEFT, RIGHT):
        place = misled.source(*point)
        assert np.linalg.norm(chroma_at(misled.image(), point) - chroma_at(reference, (place.x, place.y))) < 10


def test_a_region_ends_at_edges_and_its_reach_bounds_it() -> None:
    correspondence = Correspondence(load_backbone(), SIDE)
    picture = torch.from_numpy(np.array(discs((40,), (62,)))).permute(2, 0, 1)[None] / 127.5 - 1
    view = correspondence.view(picture)
    region = grown_region(view, LEFT, 0.5)[0, 0].numpy()
    height, width = region.shape
    rows, columns = (np.mgrid[:height, :width] + 0.5) / height
    inside = np.hypot(columns - LEFT[0], rows - LEFT[1])
    assert region[inside < 0.12].min() > 0.9
    assert region[inside > 0.2].max() == 0
    small = grown_region(view, LEFT, 0.1)[0, 0].numpy()
    assert small[inside > 0.11].max() == 0
    assert small.max() == 1


def test_saturation_scales_chroma_and_keeps_luminance(misled: Editor) -> None:
    labs = [rgb2lab(np.asarray(misled.image(Adjustment(saturation=saturation)))) for saturation in (0.0, 0.5, 1.0)]
    assert np.abs(labs[0][..., 1:]).max() < 1.0
    chroma = [np.linalg.norm(lab[..., 1:], axis=-1)[70:90, 40:50].mean() for lab in labs]
    assert chroma[1] == pytest.approx(chroma[2] / 2, rel=0.05)
    assert max(np.abs(lab[..., 0] - labs[0][..., 0]).max() for lab in labs) < 1.0


def test_strength_0_is_the_target_with_its_own_tint_and_sure_colours_fade_last(colorizer: Colorizer) -> None:
    sepia = np.stack([np.asarray(discs((40,), (62,)).convert("L"))] * 3, axis=-1) * [1.0, 0.9, 0.75]
    target = Image.fromarray(sepia.astype(np.uint8))
    editor = Editor(colorizer, target, [discs((62, *RED), (40, *BLUE))], side=SIDE)
    assert np.abs(np.asarray(editor.image(Adjustment(strength=0)), int) - np.asarray(target, int)).max() <= 1
    assert np.array_equal(editor.image(Adjustment(strength=1)), editor.image())
    own, new = chroma_at(target, LEFT), chroma_at(editor.image(), LEFT)
    shares = [
        float(
            (chroma_at(editor.image(Adjustment(strength=strength)), LEFT) - own)
            @ (new - own)
            / ((new - own) ** 2).sum()
        )
        for strength in (0.25, 0.5, 0.75)
    ]
    assert 0.02 < shares[0] < shares[1] < shares[2] < 1


def test_previews_alpha_and_sixteen_bits(colorizer: Colorizer) -> None:
    grey = discs((40,), (62,)).convert("L")
    target = grey.convert("LA")
    target.putalpha(Image.linear_gradient("L").resize(grey.size))
    editor = Editor(colorizer, target, [discs((62, *RED), (40, *BLUE))], side=SIDE)
    preview = editor.image(size=(80, 80))
    assert (preview.size, preview.mode) == ((80, 80), "RGBA")
    assert editor.image().getchannel("A").tobytes() == target.getchannel("A").tobytes()
    deep = Picture(Image.fromarray(np.asarray(grey, np.float32) / 255))
    pixels = Editor(colorizer, deep, [discs((62, *RED), (40, *BLUE))], side=SIDE).image_16_bits(
        Adjustment(saturation=0.5)
    )
    assert (pixels.shape, pixels.dtype) == ((SIDE, SIDE, 3), np.uint16)


def test_points_outside_and_references_that_are_not_there_are_told(misled: Editor) -> None:
    with pytest.raises(UserError, match=r"point 1\.2, 0\.5: lies outside the picture"):
        misled.correct((1.2, 0.5), LEFT)
    with pytest.raises(UserError, match="lies outside"):
        misled.source(0.5, -0.1)
    with pytest.raises(UserError, match="reference 1: there are 1; give a number from 0 to 0"):
        misled.correct(LEFT, LEFT, number=1)
    with pytest.raises(UserError, match="reach 0: must be above 0"):
        misled.correct(LEFT, LEFT, reach=0)
    assert misled.corrections == []
