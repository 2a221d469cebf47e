"""Two processes that average their gradients are one process with the whole batch."""

import socket
from pathlib import Path
from typing import Any

import pytest
import skimage
import torch
from processes import start
from torch import nn

from pdnla.training.distributed import single_process, trainer_strategy
from pdnla.training.gradients import AveragedGradients, average_gradients

SCRIPT = Path(__file__).with_name("two_processes.py")
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"

Left = dict[str, Any]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, int], Left]:
    """What each process left, by the kind of training, the number of processes and its rank among them.

    One process, and two together, train side by side, first on pairs and then with critics.
    """
    folder = tmp_path_factory.mktemp("left")
    pairs = folder / "pairs.csv"
    lines = (f"{PHOTOGRAPHS}/{name}.png,{PHOTOGRAPHS}/coffee.png" for name in ("motorcycle_left", "motorcycle_right"))
    pairs.write_text("\n".join(lines))
    running = []
    for processes in (1, 2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
        for rank in range(processes):
            ranks = {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
            running.append(start(SCRIPT, [folder, processes, pairs], **address, **ranks))
    for process in running:
        process.finish(seconds=500)
    names = [
        (kind, processes, rank) for kind in ("paired", "critics") for processes in (1, 2) for rank in range(processes)
    ]
    return {name: torch.load(folder / "{}_{}_{}.pt".format(*name), weights_only=True) for name in names}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], prefix: str = "") -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one if name.startswith(prefix))


@pytest.mark.slow
def test_two_processes_end_with_one_and_the_same_weights_and_with_those_of_one_process(
    left: dict[tuple[str, int, int], Left],
) -> None:
    single, first, second = left["paired", 1, 0], left["paired", 2, 0], left["paired", 2, 1]
    assert largest_difference(first["state"], second["state"]) == 0
    # In float64: steps of Adam magnify float32's rounding.
    assert largest_difference(first["state"], single["state"]) < 1e-5
    # Each sees its own photographs, together those of the one process.
    assert not set(first["seen"]) & set(second["seen"])
    assert sorted(first["seen"] + second["seen"]) == pytest.approx(sorted(single["seen"]), rel=1e-6)


@pytest.mark.slow
def test_measures_are_those_of_all_processes_even_if_one_has_no_picture_to_validate(
    left: dict[tuple[str, int, int], Left],
) -> None:
    single, first, second = (left[name]["logged"] for name in (("paired", 1, 0), ("paired", 2, 0), ("paired", 2, 1)))
    assert {"val/chroma_error", "val/pairs/his", "train/loss/total"} <= single.keys()
    for name, value in single.items():
        if not name.startswith(("perf/", "data/")):
            assert first[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
            assert second[name] == first[name], name


@pytest.mark.slow
def test_critics_stay_the_same_on_both_processes(left: dict[tuple[str, int, int], Left]) -> None:
    first, second = left["critics", 2, 0], left["critics", 2, 1]
    assert largest_difference(first["state"], second["state"]) == 0
    assert largest_difference(first["state"], first["start"], "loss.terms.adversarial") > 1e-4
    assert largest_difference(first["state"], first["start"], "loss.terms.cooccurrence") > 1e-4


def test_a_parameter_that_takes_no_part_in_the_loss_is_named() -> None:
    module = nn.Linear(2, 2)
    module(torch.ones(1, 2)).sum().backward()
    module.bias.grad = None
    with pytest.raises(RuntimeError, match="1 parameters take no part in the loss, such as bias"):
        average_gradients(list(module.named_parameters()))


@pytest.mark.parametrize(
    ("options", "averages"),
    [
        ({}, False),
        ({"devices": "auto"}, False),
        ({"devices": 2}, True),
        ({"devices": [0, 1]}, True),
        ({"num_nodes": 2}, True),
        ({"strategy": "ddp"}, True),
    ],
)
def test_devices_that_work_together_average_their_gradients(options: dict[str, Any], averages: bool) -> None:
    given = {"strategy": "auto", "devices": 1, "num_nodes": 1, "accelerator": "cpu", **options}
    assert isinstance(trainer_strategy(given), AveragedGradients) is averages
    assert single_process(given) is not averages
    assert trainer_strategy({**given, "strategy": "fsdp"}) == "fsdp"
    assert not single_process({**given, "strategy": "fsdp"})
