"""The measure of retrieval counts what it says it counts."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

import retrieval_accuracy


def test_rates_are_of_offered_pictures_and_never_of_the_target_itself() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    offered = torch.tensor([True, True, False, True, True, True, True])
    scores = torch.tensor([9.0, 8.0, 9.5, 7.0, 6.0, 5.0, 4.0])
    targets = torch.tensor([0, 3])
    first, five = retrieval_accuracy.rates(lambda target: scores, targets, labels, offered)
    assert first == 0.5  # picture 1 for target 0, picture 0 for target 3
    assert five == pytest.approx((1 / 5 + 3 / 5) / 2)
    assert retrieval_accuracy.rate_of_chance(targets, labels, offered) == pytest.approx((1 / 5 + 3 / 5) / 2)


def test_classes_that_look_different_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PDNLA_CACHE", str(tmp_path / "cache"))
    for name in ("coffee", "rocket"):
        image = Image.fromarray(getattr(data, name)())
        (tmp_path / "classes" / name).mkdir(parents=True)
        for number in range(4):
            view = image.crop((10 * number, 0, image.width, image.height)).resize((96, 96))
            (view.convert("L") if number == 3 else view).save(tmp_path / "classes" / name / f"{number}.png")
    monkeypatch.setattr(sys, "argv", ["retrieval_accuracy.py", str(tmp_path / "classes"), "--device", "cpu"])
    assert retrieval_accuracy.main() == 0
    printed = capsys.readouterr().out
    assert "8 targets of 2 classes, 6 pictures in colour to choose from (2 grey ones left out), seed 0" in printed
    assert "| descriptors (efficientnet_lite0) | 100.0% |" in printed
    monkeypatch.setattr(sys, "argv", ["retrieval_accuracy.py", str(tmp_path / "nowhere")])
    assert retrieval_accuracy.main() == 2
