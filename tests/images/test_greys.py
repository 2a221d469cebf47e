"""Which pictures can give colours: neutral ones are refused, however they are stored; faded ones are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pdnla.errors import UserError
from pdnla.images.greys import read_reference

SIZE = (320, 240)


def neutral() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0]), dtype=np.uint8)
    return Image.fromarray(noise).convert("RGB")


def with_a_button(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    image.paste(colour, (100, 100, 112, 112))
    return image


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_a_neutral_picture_gives_no_colours_though_it_is_stored_in_colour(tmp_path: Path, name: str) -> None:
    neutral().save(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: is grey and should give the colours; leave it out or colour it"):
        read_reference(tmp_path / name)


def test_a_small_button_is_enough(tmp_path: Path) -> None:
    with_a_button(neutral(), (220, 30, 30)).save(tmp_path / "a.png")
    assert read_reference(tmp_path / "a.png").size == SIZE


def test_a_faded_print_is_accepted(tmp_path: Path) -> None:
    Image.fromarray((np.asarray(neutral()) * [1, 0.97, 0.93]).astype(np.uint8)).save(tmp_path / "a.jpg")
    assert read_reference(tmp_path / "a.jpg").size == SIZE


def test_a_transparent_picture_is_named_so(tmp_path: Path) -> None:
    Image.new("RGBA", SIZE, (220, 30, 30, 0)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: is transparent all over"):
        read_reference(tmp_path / "a.png")


def test_colours_that_alpha_hides_are_not_given(tmp_path: Path) -> None:
    image = with_a_button(neutral(), (220, 30, 30))
    image.putalpha(with_a_button(Image.new("RGB", SIZE, "white"), (0, 0, 0)).convert("L"))
    image.save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: is grey"):
        read_reference(tmp_path / "a.png")
