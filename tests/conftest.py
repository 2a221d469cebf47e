"""What several tests share: the published network's numbers, weights rebuilt from their rule, campaigns."""

import argparse
import json
import multiprocessing.spawn
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fork_server import python
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
SCRIPTS = Path(__file__).parents[1] / "scripts"


def pytest_configure() -> None:
    """Give each process of a parallel run, and the commands that it starts, its share of the cores."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    threads = max(1, min(2, torch.get_num_threads()) // processes)
    torch.set_num_threads(threads)
    if processes > 1:  # more threads than cores would wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Return the published network's results; a large tensor is kept as every n-th of its values, n odd or 1."""
    with np.load(GOLDEN / "official_c4.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="session")
def published() -> dict[str, Tensor]:
    """Return the state dict under the published names, filled by the rule in ``official_c4.json``."""
    rule = json.loads((GOLDEN / "official_c4.json").read_text())
    order = {name: index for index, name in enumerate(sorted(rule["names"]))}
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    state = {}
    for name in rule["names"]:
        if name.endswith(".kernel"):
            state[name] = torch.tensor(taps, dtype=torch.float32)
        elif name not in rule["parameters"]:
            state[name] = torch.tensor([0.25])  # the one shared PReLU, under another of its names
        else:
            part = rule["parameters"][name]
            assert part["index"] == order[name]
            noise = np.random.RandomState(rule["seed"] + part["index"]).standard_normal(part["shape"])
            state[name] = torch.tensor((part["offset"] + part["std"] * noise).astype(np.float32))
    return state


@pytest.fixture(scope="session")
def published_file(published: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file in the published checkpoint's format."""
    path = tmp_path_factory.mktemp("published") / "official_c4.pt"
    torch.save({"args": argparse.Namespace(channel=4, size=256, iter=0), "PDNLA_ema": published}, path)
    return path


@pytest.fixture(scope="session")
def golden_images(golden: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the golden target and reference, ``(1, 3, 64, 96)`` in [-1, 1]."""
    target, reference = (
        torch.tensor(golden[f"{name}_uint8"].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        for name in ("target", "reference")
    )
    return target.expand(-1, 3, -1, -1).contiguous(), reference.contiguous()


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fork the processes that the test's own starts, from one that has imported torch."""
    monkeypatch.setattr(sys, "executable", python())
    before = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable(python())
    yield
    multiprocessing.set_executable(before)


@pytest.fixture
def run_campaign(tmp_path: Path) -> Callable[..., tuple[int, dict[str, int]]]:
    """Return a function that runs a script of damaged files in a process without other threads.

    Args:
        script: its name.
        arguments: of the command line.
        fault: code that is run before it, in which the script is a module of its name.

    Returns:
        Its exit status, and how many files had each outcome of its table.
    """

    def run(script: str, *arguments: str, fault: str = "") -> tuple[int, dict[str, int]]:
        code = f"import sys, {script}\n{fault}\nsys.exit({script}.main())"
        patience = ("--seconds", "240")  # how busy the machine is must not decide a test
        command = [python(), "-c", code, "--keep", str(tmp_path / "bad"), *patience, *arguments]
        done = subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, check=False)
        lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
        assert lines, done.stderr
        names, _, *rows = lines
        outcomes = names[3:-2]  # after kind, damage and files, before seconds and MB
        return done.returncode, {name: sum(int(row[3 + i]) for row in rows) for i, name in enumerate(outcomes)}

    return run
