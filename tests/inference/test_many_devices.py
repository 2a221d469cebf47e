"""Which device each process colours on, and which of several processes this is."""

import pytest
import torch

from pdnla import UserError
from pdnla.inference.many_devices import choose_devices
from pdnla.processes import Rank, launched_rank

ALONE = Rank(0, 0, 1)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch believe that the machine has four CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)


def test_processes_on_a_cpu_share_it() -> None:
    assert choose_devices("cpu", 3, ALONE) == [torch.device("cpu")] * 3


@pytest.mark.usefixtures("four_gpus")
def test_each_process_has_a_cuda_device_of_its_own() -> None:
    for name in ("auto", "cuda"):
        assert choose_devices(name, 3, ALONE) == [torch.device("cuda", number) for number in range(3)]
    # Two processes of torchrun on this machine, each of which starts two.
    assert [device.index for rank in (0, 1) for device in choose_devices("cuda", 2, Rank(rank, rank, 2))] == [
        0,
        1,
        2,
        3,
    ]
    assert choose_devices("cuda:1", 1, ALONE) == [torch.device("cuda", 1)]


@pytest.mark.usefixtures("four_gpus")
def test_more_processes_than_cuda_devices_are_refused() -> None:
    with pytest.raises(UserError, match=r"--devices 5: this machine has 4 CUDA device\(s\)"):
        choose_devices("cuda", 5, ALONE)
    with pytest.raises(UserError, match="--device cuda:1: is one device; use --device cuda with --devices 2"):
        choose_devices("cuda:1", 2, ALONE)


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, ALONE),
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}, Rank(5, 1, 8)),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4"}, Rank(3, 1, 4)),
        # In a batch script, outside of srun.
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}, ALONE),
    ],
)
def test_the_rank_comes_from_torchrun_or_srun(
    environment: dict[str, str], rank: Rank, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_rank() == rank
