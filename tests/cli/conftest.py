"""What the tests of several commands share."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """Return what runs ``pdnla-train`` in this process, in the test's folder, and returns its exit status."""
    from pdnla.cli.train import main

    monkeypatch.setenv("PDNLA_CACHE", str(tmp_path / "cache"))

    def run(arguments: list[str]) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["pdnla-train", *arguments])
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as left:
            main()
        code = left.value.code
        return code if isinstance(code, int) else 0

    return run
