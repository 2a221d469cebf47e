"""``pdnla-pairs``, as a user runs it."""

import csv
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from pdnla.cli import pairs
from pdnla.data.pairs_file import read_pairs

NAMES = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photographs and a mirrored view of each, and a grey picture."""
    monkeypatch.setenv("PDNLA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "album"
    folder.mkdir()
    for name in NAMES:
        image = Image.fromarray(getattr(data, name)()).convert("RGB").resize((96, 96))
        image.save(folder / f"{name}.png")
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / f"{name}_mirrored.png")
    Image.open(folder / "coffee.png").convert("L").save(folder / "grey.png")
    return folder


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pdnla-pairs", *(str(a) for a in arguments), "--workers", "0"])
    with pytest.raises(SystemExit) as leaving:
        pairs.main()
    return int(leaving.value.code or 0)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_every_picture_gets_the_one_most_like_it_with_its_score(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, album, "-o", album / "pairs.csv", "--most", "1.0") == 0
    actual = {row["target"]: row for row in rows(album / "pairs.csv")}
    assert len(actual) == 9
    for name in ("astronaut", "chelsea", "rocket"):
        assert actual[f"{name}.png"]["reference"] == f"{name}_mirrored.png"
        assert 0.8 < float(actual[f"{name}.png"]["score"]) <= 1
    assert actual["grey.png"]["reference"] == "coffee.png"
    assert all(row["reference"] != "grey.png" for row in actual.values())  # grey pictures have no colours to give
    assert len(read_pairs(album / "pairs.csv")) == 9


def test_copies_are_left_out_and_references_may_be_another_folder(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets, file = album.parent / "targets", album.parent / "pairs.csv"
    targets.mkdir()
    Image.open(album / "chelsea.png").save(targets / "copy.png")
    arguments = (targets, "--references", album, "-o", file, "--count", "2", "--most", "0.9999")
    assert command(monkeypatch, *arguments) == 0
    actual = rows(file)
    assert [row["target"] for row in actual] == ["targets/copy.png"] * 2
    assert actual[0]["reference"] == "album/chelsea_mirrored.png"
    assert float(actual[0]["score"]) >= float(actual[1]["score"])
    assert "album/chelsea.png" not in [row["reference"] for row in actual]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "-o", "x.csv"], "there is no such folder"),
        (["album", "-o", "nowhere/x.csv"], "name a file in a folder that exists"),
        (["album", "-o", "old.csv"], "exists already; add --overwrite"),
        (
            ["album", "-o", "x.csv", "--least", "0.9", "--most", "0.5"],
            "--least 0.9 must be at least -1, as cosines are, and under",
        ),
        (["album", "-o", "x.csv", "--least", "nan"], "--least nan must be at least -1"),
        (["album", "-o", "x.csv", "--least", "0.9999999", "--most", "1.0"], "none of its 9 pictures has a reference"),
    ],
)
def test_wrong_calls_are_one_sentence_and_write_nothing(
    arguments: list[str],
    sentence: str,
    album: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(album.parent)
    Path("old.csv").write_text("old")
    assert command(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert Path("old.csv").read_text() == "old"
    assert not Path("x.csv").exists()
