"""Processes and devices: how many there are, which is the first, how they work together and end together.

Commands ask before they start, so torch is not imported before it is needed.
"""

import os
from collections.abc import Mapping
from typing import Any

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Environment variables in which torchrun, Lightning and Slurm number the processes of a run."""
COUNTS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""Environment variables in which torchrun and Slurm count them."""


def processes() -> int:
    """Return how many processes torchrun or srun started this command in, 1 without them."""
    return max(int(os.environ.get(name, 1)) for name in COUNTS)


def is_first() -> bool:
    """Return whether this is the first of a run's processes, however they were started."""
    return not any(int(os.environ.get(name, 0)) for name in RANKS)


def several_devices() -> bool:
    """Return whether several devices work together now."""
    import torch.distributed

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    return torch.distributed.get_world_size() > 1


def end_together() -> None:
    """Wait for the other processes, if there are any, and let go of them.

    The first one holds what all speak through: one that leaves later than it would be ended by an abort.
    """
    if several_devices():
        import torch.distributed

        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def trainer_strategy(trainer: Mapping[str, Any]) -> Any:
    """Return Lightning's strategy: with several devices, the training loop itself averages their gradients.

    Args:
        trainer: the trainer's configuration: ``strategy``, ``devices``, ``num_nodes`` and ``accelerator``.

    Returns:
        ``auto`` for one device, a strategy for several, or what ``strategy`` is if it is neither ``auto`` nor ``ddp``.
    """
    strategy, devices, nodes = trainer["strategy"], str(trainer["devices"]), trainer["num_nodes"]
    if strategy not in ("auto", "ddp"):
        return strategy
    if strategy == "auto" and nodes == 1:
        if devices == "1":
            return "auto"
        if devices in ("auto", "-1"):
            import torch

            if trainer["accelerator"] == "cpu" or torch.cuda.device_count() < 2:
                return "auto"
    from pdnla.training.gradients import AveragedGradients

    return AveragedGradients()
