"""``pdnla-convert``: the published checkpoint in, the same pixels out."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pdnla import load_network
from pdnla.cli.convert import main


def command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["pdnla-convert", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_converted_weights_give_the_published_pixels(
    published_file: Path,
    golden: dict[str, object],
    golden_images: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "new" / "c4.safetensors"
    assert command([str(published_file), str(out)], monkeypatch) == 0
    with torch.inference_mode():
        actual = load_network(out)(*golden_images).out
    expected = torch.tensor(golden["out"])
    assert (actual - expected).abs().max() < 1e-4 * expected.abs().max()


def test_what_exists_is_kept_unless_told(
    published_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c4.safetensors"
    out.write_text("mine")
    assert command([str(published_file), str(out)], monkeypatch) == 2
    assert "exists already; add --overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert command([str(published_file), str(out), "--overwrite"], monkeypatch) == 0
    assert load_network(out).channel == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["absent.pt", "o.safetensors"], "absent.pt: there is no such weights file"),
        (["text.pt", "o.safetensors"], "text.pt: is truncated or not a weights file"),
        (["text.pt", "o.pt"], "o.pt: must end in .safetensors"),
        (["text.pt"], "see pdnla-convert --help"),
    ],
)
def test_mistakes_get_one_sentence_and_leave_nothing(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pt").write_text("no weights")
    assert command(arguments, monkeypatch) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("pdnla-convert: ")
    assert sentence in line
    assert [p.name for p in tmp_path.iterdir()] == ["text.pt"]
