"""The training of correspondence's metric."""

import random
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

import train_metric
from pdnla.cli.command import run
from pdnla.network import SemanticWarp
from pdnla.network.correspondence import Metric
from pdnla.weights import load_network


def photograph(generator: torch.Generator) -> train_metric.Photograph:
    """Cells of two colours: of 16 features, the first tells the colour, weakly, and the others are noise."""

    def cells() -> train_metric.Cells:
        kind = torch.randint(2, (64,), generator=generator) * 2.0 - 1
        features = torch.randn(64, 16, generator=generator)
        features[:, 0] = 0.5 * kind
        features = torch.nn.functional.normalize(features, dim=1)
        chroma = torch.stack([20 * kind, torch.zeros(64)], dim=1)
        return train_metric.Cells(features, torch.full((64,), 0.5), chroma, torch.tensor([0.5, 0.2]))

    return train_metric.Photograph(cells(), cells())


def test_it_learns_which_features_tell_the_colour() -> None:
    generator = torch.Generator().manual_seed(0)
    photographs = [(Path(f"{i % 4}/{i}.png"), photograph(generator)) for i in range(60)]
    held = [photograph(generator) for _ in range(8)]

    def error(metric: Metric) -> float:
        return sum(float(train_metric.loss(metric, *pair, torch.arange(64))) for pair in held) / len(held)

    torch.manual_seed(0)
    metric = Metric(16, rank=4)
    before = error(metric)
    train_metric.train(metric, photographs, steps=60, lr=0.05)
    assert error(metric) < 0.6 * before
    assert not any(parameter.requires_grad for parameter in metric.parameters())


def test_half_of_the_references_hold_cells_of_another_photograph() -> None:
    generator = torch.Generator().manual_seed(0)
    photographs = [(Path("0/0.png"), photograph(generator)), (Path("1/1.png"), photograph(generator))]
    pairs = train_metric.Pairs(photographs, random.Random(0))
    counts = [len(pairs.draw()[1].lightness) for _ in range(200)]
    assert set(counts) == {64, 128}
    assert 0.4 < counts.count(128) / 200 < 0.6


@pytest.mark.slow
def test_its_command_keeps_cells_goes_on_and_writes_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("astronaut", "coffee", "chelsea", "rocket")):
        (tmp_path / "photographs" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(getattr(data, name)()).resize((96, 64))
        picture.save(tmp_path / "photographs" / str(number % 2) / f"{name}.png")
    (tmp_path / "photographs" / "0" / "broken.jpg").write_bytes(b"no picture")
    weights, kept = tmp_path / "metric.safetensors", tmp_path / "kept"
    command = ["train_metric.py", str(weights), "--roots", str(tmp_path / "photographs"), "--kept", str(kept)]
    monkeypatch.setattr(sys, "argv", [*command, "--steps", "2", "--threads", "1"])
    train_metric.main()
    output = capsys.readouterr().out
    assert "step 2: validation" in output
    assert f"left out: {tmp_path / 'photographs' / '0' / 'broken.jpg'}" in output
    network = load_network(weights)
    assert isinstance(network, SemanticWarp)
    metric = network.correspondence.metric
    assert metric is not None
    assert metric.up.abs().sum() > 0
    first = {file: file.stat().st_mtime_ns for file in kept.iterdir()}
    assert len(first) == 4
    train_metric.main()  # what is kept is not computed again
    assert {file: file.stat().st_mtime_ns for file in kept.iterdir()} == first

    (tmp_path / "photographs" / "1" / "coffee.png").unlink()
    with pytest.raises(SystemExit) as stopped:
        run("train_metric.py", train_metric.main)
    assert stopped.value.code == 2
    assert f"--kept {kept}: was made of other photographs" in capsys.readouterr().err


def test_a_changed_view_is_a_part_of_the_picture() -> None:
    picture = Image.fromarray(data.astronaut()).resize((96, 80))
    views = [train_metric.changed(picture, random.Random(seed)) for seed in range(8)]
    assert all(view.mode == "RGB" for view in views)
    assert all(view.width <= 96 and view.height <= 80 for view in views)
    assert len({view.size for view in views}) > 4
