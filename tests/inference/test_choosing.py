"""Of many pictures the reference is the one in colour that shows what the target shows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pdnla import UserError
from pdnla.data.pairs_file import Choice, read_choices, read_pairs, write_choices
from pdnla.inference.choosing import choose_references

PICTURES = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photographs and, beside them in grey/, each in 16-bit grey and mirrored."""
    monkeypatch.setenv("PDNLA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "grey").mkdir()
    for name in PICTURES:
        image = Image.fromarray(getattr(data, name)()).convert("RGB").resize((96, 96))
        image.save(tmp_path / f"{name}.png")
        grey = np.asarray(image.convert("L").transpose(Image.Transpose.FLIP_LEFT_RIGHT)).astype(np.uint16)
        Image.fromarray(grey * 257).save(tmp_path / "grey" / f"{name}.png")
    return tmp_path


def test_the_reference_shows_what_the_target_shows(folder: Path) -> None:
    targets, candidates = sorted(folder.glob("grey/*.png")), sorted(folder.glob("*.png"))
    choices = choose_references(targets, candidates)
    assert [choice.target for choice in choices] == targets
    assert [choice.reference.name for choice in choices] == [target.name for target in targets]
    assert all(0.7 < choice.score <= 1 for choice in choices)
    several = choose_references(targets[:1], candidates, count=3, most=choices[0].score - 1e-6)
    assert [choice.reference for choice in several].count(choices[0].reference) == 0
    assert [choice.score for choice in several] == sorted((choice.score for choice in several), reverse=True)
    assert choose_references(targets[:1], candidates, least=1.1) == []


def test_grey_and_unreadable_pictures_and_the_target_itself_are_not_chosen(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = folder / "broken.png"
    broken.write_bytes(b"no picture")
    monkeypatch.chdir(folder)
    target = Path("coffee.png")  # another spelling of a candidate
    candidates = sorted(folder.rglob("*.png"))
    (choice,) = choose_references([target], candidates)
    assert choice.target == target
    assert choice.reference in [folder / f"{name}.png" for name in PICTURES if name != "coffee"]
    assert "broken.png: is not an image" in caplog.text
    assert choose_references([broken], candidates) == []
    assert choose_references([target], sorted(folder.glob("grey/*.png"))) == []
    assert choose_references([target], [broken]) == []


def test_choices_are_written_as_pairs_and_read_again(folder: Path) -> None:
    file = folder / "chosen" / "choices.csv"
    choices = [Choice(folder / "grey" / "coffee.png", folder / "coffee.png", 0.5)]
    write_choices(file, choices)
    assert file.read_text().splitlines() == ["target,reference,score", "../grey/coffee.png,../coffee.png,0.5000"]
    assert [(t.resolve(), r.resolve()) for t, r in read_pairs(file)] == [choices[0][:2]]
    assert [(t.resolve(), r.resolve(), s) for t, r, s in read_choices(file)] == choices


@pytest.mark.parametrize("content", ["", "a,b\n", "target,reference,score\na,b\n", "target,reference,score\na,b,c\n"])
def test_a_file_of_something_else_is_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(UserError, match=r"x\.csv: does not hold chosen references \(.*\); move it away"):
        read_choices(tmp_path / "x.csv")
