"""``pdnla-export``: weights in, a checked file out."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pdnla.cli.export import main
from pdnla.export import OnnxNetwork
from pdnla.models import register
from pdnla.network import Colorization
from pdnla.weights import save_weights


def command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["pdnla-export", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@register("two_convolutions")
class TwoConvolutions(nn.Module):
    """A model of one's own, exported in seconds; the export of the published network takes minutes."""

    def __init__(self, channel: int = 64) -> None:
        super().__init__()
        self.first = nn.Conv2d(6, channel, 3, padding=1)
        self.last = nn.Conv2d(channel, 3, 3, padding=1)

    def forward(self, target: Tensor, reference: Tensor) -> Colorization:
        mean = reference.mean(dim=(2, 3), keepdim=True).expand_as(target)
        mid = 4 * self.last(torch.relu(self.first(torch.cat([target, mean], dim=1))))
        return Colorization(mid, torch.tanh(mid + target))


@pytest.mark.slow
def test_weights_become_a_file_named_after_them_and_half_precision_stays_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_weights(TwoConvolutions(), "own.safetensors", "the test's")
    assert command(["own.safetensors", "--format", "onnx", "--precision", "float16"], monkeypatch) == 0
    (line,) = capsys.readouterr().out.strip().splitlines()
    output = r"(\S+) MB, float16; at 5 sizes within (\S+) of the network \(mean (\S+), of results in \[-1, 1\]\)"
    actual = re.fullmatch(rf"own\.onnx: {output}", line)
    assert actual
    _, largest, mean = (float(number) for number in actual.groups())
    assert 1e-5 < mean < largest < 2 * 2 / 255
    network = OnnxNetwork("own.onnx")
    assert (network.precision, network.source) == ("float16", "the test's")
    assert network.description.arguments == {"channel": 64}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["absent.safetensors"], "absent.safetensors: there is no such weights file"),
        (["text.pt"], "text.pt: is truncated or not a weights file"),
        (["pdnla_tiny", "-o", "a.trt"], "a.trt: must end in .onnx or .pt2"),
        (["pdnla_tiny", "-o", "a.onnx", "--format", "pt2"], "a.onnx: ends in .onnx and --format is pt2"),
        (["text.pt", "-o", "old.onnx"], "old.onnx: exists already; add --overwrite"),
        (["default"], "pdnla_informed cannot be exported"),
        (["semantic_warp"], "semantic_warp cannot be exported"),
        (["pdnla_tiny", "--precision", "bfloat16"], "--precision bfloat16: ONNX Runtime does not support it"),
        (["pdnla_tiny", "--format", "tflite"], "see pdnla-export --help"),
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
    Path("old.onnx").write_text("mine")
    assert command(arguments, monkeypatch) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("pdnla-export: ")
    assert sentence in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old.onnx", "text.pt"]
    assert Path("old.onnx").read_text() == "mine"
