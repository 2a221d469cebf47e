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


def in_this_process(main: Callable[[], None], arguments: list[str], folder: Path | None = None) -> int:
    """Run the ``main`` of a composed command, in a folder if one is given, and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(arguments))
        if folder is not None:
            patch.chdir(folder)
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as left:
            main()
    code = left.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def hydra_command() -> Callable[[Callable[[], None], list[str]], int]:
    """Return what runs the ``main`` of a composed command in this process, and returns its exit status."""
    return in_this_process


@pytest.fixture(scope="session")
def train_in() -> Callable[[list[str], Path], int]:
    """Return what runs ``pdnla-train`` in this process, in a folder, and returns its exit status."""
    from pdnla.cli.train import main

    return lambda arguments, folder: in_this_process(main, ["pdnla-train", *arguments], folder)


@pytest.fixture
def train(tmp_path: Path, train_in: Callable[[list[str], Path], int]) -> Callable[[list[str]], int]:
    """Return what runs ``pdnla-train`` in this process, in the test's folder, and returns its exit status."""
    return lambda arguments: train_in(arguments, tmp_path)
