"""Two processes that average their gradients are one process with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pdnla.training.gradients import average_gradients

SCRIPT = Path(__file__).with_name("two_processes.py")


def train(folder: Path, processes: int, steps: int, kind: str) -> list[dict[str, Any]]:
    folder.mkdir()
    command = [sys.executable, str(SCRIPT), str(folder), str(processes), str(steps), kind]
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(processes)]


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], prefix: str = "") -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one if name.startswith(prefix))


def test_two_processes_end_with_one_and_the_same_weights_and_with_those_of_one_process(tmp_path: Path) -> None:
    (alone,) = train(tmp_path / "one", 1, 20, "paired")
    first, second = train(tmp_path / "two", 2, 20, "paired")
    assert largest_difference(first["state"], second["state"]) == 0
    # In float64: 20 steps of Adam magnify float32's rounding.
    assert largest_difference(first["state"], alone["state"]) < 1e-5
    # Each sees its own photographs, together those of the one process, and measures are those of all.
    assert not set(first["seen"]) & set(second["seen"])
    assert sorted(first["seen"] + second["seen"]) == pytest.approx(sorted(alone["seen"]), rel=1e-6)
    for name, value in alone["logged"].items():
        if not name.startswith(("perf/", "data/")):
            assert first["logged"][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
            assert second["logged"][name] == first["logged"][name], name


def test_critics_stay_the_same_on_both_processes(tmp_path: Path) -> None:
    first, second = train(tmp_path / "two", 2, 6, "critics")
    assert largest_difference(first["state"], second["state"]) == 0
    (alone,) = train(tmp_path / "start", 1, 1, "critics")
    assert largest_difference(first["state"], alone["state"], "loss.terms.adversarial") > 1e-4
    assert largest_difference(first["state"], alone["state"], "loss.terms.cooccurrence") > 1e-4


def test_a_parameter_that_takes_no_part_in_the_loss_is_named() -> None:
    module = nn.Linear(2, 2)
    module(torch.ones(1, 2)).sum().backward()
    module.bias.grad = None
    with pytest.raises(RuntimeError, match="1 parameters take no part in the loss, such as bias"):
        average_gradients(list(module.named_parameters()))
