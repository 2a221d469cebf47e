"""What the tests of several commands share."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra


@pytest.fixture(autouse=True)
def handlers_of_its_own() -> Iterator[None]:
    """Take away the log's handlers that a command in this process leaves: they write to what a test has closed."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


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
