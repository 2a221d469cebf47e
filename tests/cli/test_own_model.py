"""A model of a researcher's own module: one class and one YAML; it trains, is saved, colours, and resumes as itself."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pdnla import Colorizer, load_network
from pdnla.cli.convert import main as convert
from pdnla.weights import read_weights

MODULE = """
import torch
from torch import nn
from pdnla.models import register
from pdnla.network import Colorization


@register("own_mixture")
class Mixture(nn.Module):
    def __init__(self, kernels, gain: float = 1.0):
        super().__init__()
        self.gain = gain
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, side, padding=side // 2) for side in kernels)
        self.norm = nn.BatchNorm2d(3)

    def encode_reference(self, reference):
        return reference.mean(dim=(2, 3), keepdim=True)

    def forward(self, target, reference):
        mid = self.norm(self.gain * sum(layer(target) for layer in self.layers))
        mean = reference if reference.shape[-1] == 1 else self.encode_reference(reference)
        return Colorization(mid, torch.tanh(mid + mean))
"""
YAML = "_target_: own_models.Mixture\nkernels: [1, 3]\ngain: 0.5\n"
OPTIONS = [
    "--config-dir=own_conf",
    "model=own",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.val_check_interval=2",
    "trainer.enable_progress_bar=false",
    "data.size=32",
    "data.batch_size=2",
    "data.workers=0",
]


@pytest.mark.slow
def test_a_model_of_ones_own_trains_colours_and_resumes(
    tmp_path: Path,
    train: Callable[[list[str]], int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own_models.py").write_text(MODULE)
    (tmp_path / "own_conf" / "model").mkdir(parents=True)
    (tmp_path / "own_conf" / "model" / "own.yaml").write_text(YAML)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()

    assert train([*OPTIONS, "trainer.max_steps=2", "hydra.run.dir=one"]) == 0
    checkpoint = tmp_path / "one" / "last.ckpt"
    actual = read_weights(checkpoint)
    assert actual.description == ("own_mixture", {"kernels": [1, 3], "gain": 0.5}, "own_models")
    assert load_network(checkpoint).gain == 0.5

    monkeypatch.setattr(sys, "argv", ["pdnla-convert", str(checkpoint), str(tmp_path / "own.safetensors")])
    with pytest.raises(SystemExit) as left:
        convert()
    assert not left.value.code
    grey, colours = Image.effect_noise((40, 30), 60), Image.effect_noise((40, 30), 60).convert("RGB")
    weights = (checkpoint, tmp_path / "own.safetensors")
    results = [Colorizer(file, device="cpu", precision="float32", size=32)(grey, colours).tobytes() for file in weights]
    assert results[0] == results[1]

    again = [*OPTIONS, "trainer.max_steps=3", "hydra.run.dir=two", f"ckpt_path={checkpoint}"]
    assert train([*again, "model.gain=2"]) == 2
    assert "has gain 0.5 and the model 2; set model.gain=0.5" in capfd.readouterr().err
    assert train([*again, "model.kernels=[3,1]"]) == 2
    assert "has kernels [1, 3] and the model [3, 1]; set model.kernels=[1,3]" in capfd.readouterr().err
    assert train(again) == 0
    assert read_weights(tmp_path / "two" / "last.ckpt").source.endswith("step 3, averaged weights")


def test_a_class_that_is_not_registered_is_refused_before_any_step(
    tmp_path: Path,
    train: Callable[[list[str]], int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "nameless.py").write_text("import pdnla\n\nclass Nameless(pdnla.PDNLA):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    options = [option for option in OPTIONS if "own" not in option]
    assert train([*options, "model._target_=nameless.Nameless", "model.channel=4", "trainer.max_steps=2"]) == 2
    assert "nameless.Nameless is not a registered model; decorate the class with" in capfd.readouterr().err
