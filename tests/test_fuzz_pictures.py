"""The campaign of damaged pictures: a short one finds nothing, and it would find what there is."""

from pathlib import Path

import pytest
from PIL import Image

from fuzz_pictures import campaign, colour_album, whole_files
from fuzzing import GOOD, table
from pdnla.images.formats import readable_formats
from pdnla.images.io import read_image

PATIENCE = 240  # seconds for a file: how busy the machine is must not decide a test


def test_a_short_campaign_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz_pictures.SECONDS", PATIENCE)
    found = campaign(60, 1, tmp_path)
    results = [result for results in found.values() for result in results]
    assert len(results) == 60
    assert {result.outcome for result in results} == set(GOOD)
    assert "| kind | damage | files | read | refused | seconds, at most | MB, at most |" in table(found)


def test_sound_files_of_every_format_are_read(tmp_path: Path) -> None:
    formats = set()
    for suffix, data in whole_files().values():
        file = tmp_path / f"a.{suffix}"
        file.write_bytes(data)
        assert sorted(read_image(file).size) == [53, 75]
        with Image.open(file) as image:
            formats.add(image.format)
    assert formats == set(readable_formats()) - {"DIB"}  # a BMP in another's file


def test_a_fault_in_reading_is_seen_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz_pictures.SECONDS", PATIENCE)
    monkeypatch.setattr("fuzz_pictures.read_image", lambda file: {}[file])
    found = campaign(3, 0, tmp_path)
    assert {result.outcome for results in found.values() for result in results} == {"traceback"}
    assert len(list(tmp_path.glob("bad_*"))) == 3


@pytest.mark.slow
def test_an_album_of_damaged_pictures_is_coloured_as_far_as_it_can_be(tmp_path: Path) -> None:
    wrong, printed = colour_album(12, 2, tmp_path)
    assert wrong == 0, printed
    assert "(exit status 1)" in printed
