"""A command that colours films with a stand-in for the network."""

import importlib
from pathlib import Path

import pytest
from commands import Command, Done, MeanColour, run_here

import pdnla.inference.colorizer


@pytest.fixture
def network() -> MeanColour:
    """Return the stand-in that the command colours with."""
    return MeanColour()


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], network: MeanColour
) -> Command:
    """Run the command in an empty folder, with weights of the stand-in."""
    cli = importlib.import_module("pdnla.cli.colorize")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pdnla.inference.colorizer, "load_network", lambda path: network)
    monkeypatch.setattr(pdnla.inference.colorizer, "for_inference", lambda net, dtype, copied: net)
    weights = tmp_path.parent / "weights.safetensors"
    weights.touch()

    def run(*arguments: object) -> Done:
        given = ["--size", "64", "--device", "cpu", "--weights", str(weights), *(str(a) for a in arguments)]
        return run_here(cli.main, ["pdnla-colorize", *given], monkeypatch, capsys)

    return run
