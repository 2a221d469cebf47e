"""The campaign of damaged pictures: a short one finds nothing, and it would find what there is."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

if sys.platform == "win32":
    pytest.skip("the campaigns need POSIX's limits of memory", allow_module_level=True)

from fuzz_pictures import colour_album, whole_files
from pdnla.images.formats import readable_formats
from pdnla.images.io import read_image

Run = Callable[..., tuple[int, dict[str, int]]]


@pytest.mark.slow
def test_a_short_campaign_finds_nothing(run_campaign: Run) -> None:
    status, outcomes = run_campaign("fuzz_pictures", "--files", "60", "--seed", "1")
    assert status == 0, outcomes
    assert outcomes.keys() == {"read", "refused"}
    assert sum(outcomes.values()) == 60
    assert all(outcomes.values())


def test_sound_files_of_every_format_are_read(tmp_path: Path) -> None:
    formats = set()
    for suffix, data in whole_files().values():
        file = tmp_path / f"a.{suffix}"
        file.write_bytes(data)
        assert sorted(read_image(file).size) == [53, 75]
        with Image.open(file) as image:
            formats.add(image.format)
    assert formats == set(readable_formats()) - {"DIB"}  # a BMP in another's file


def test_a_fault_in_reading_is_seen_and_kept(run_campaign: Run, tmp_path: Path) -> None:
    fault = "fuzz_pictures.read_image = lambda file: {}[file]"
    status, outcomes = run_campaign("fuzz_pictures", "--files", "3", fault=fault)
    assert status == 1, outcomes
    assert outcomes == {"read": 0, "refused": 0, "traceback": 3}
    assert len(list((tmp_path / "bad").glob("bad_*"))) == 3


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_an_album_of_damaged_pictures_is_coloured_as_far_as_it_can_be(tmp_path: Path) -> None:
    wrong, printed = colour_album(12, 2, tmp_path)
    assert wrong == 0, printed
    assert "(exit status 1)" in printed
