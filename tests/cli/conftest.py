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
def hydra_command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None], list[str]], int]:
    """Return what runs the ``main`` of a composed command in this process, and returns its exit status."""

    def run(main: Callable[[], None], arguments: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", arguments)
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as left:
            main()
        code = left.value.code
        return code if isinstance(code, int) else 0

    return run


@pytest.fixture
def train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hydra_command: Callable[[Callable[[], None], list[str]], int]
) -> Callable[[list[str]], int]:
    """Return what runs ``pdnla-train`` in this process, in the test's folder, and returns its exit status."""
    from pdnla.cli.train import main

    monkeypatch.setenv("PDNLA_CACHE", str(tmp_path / "cache"))

    def run(arguments: list[str]) -> int:
        monkeypatch.chdir(tmp_path)
        return hydra_command(main, ["pdnla-train", *arguments])

    return run
