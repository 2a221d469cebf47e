"""Devices that train together: how many there are, Lightning's strategy for them, and how they end.

Commands import this module before they start, so it imports torch only where it needs it. Which process this is:
:mod:`pdnla.processes`.
"""

from collections.abc import Mapping
from typing import Any


def several_devices() -> bool:
    """Return whether this process trains together with others now."""
    import torch.distributed

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    return torch.distributed.get_world_size() > 1


def end_together() -> None:
    """Wait for the other processes, if there are any, and close the process group.

    The first process holds the store that all of them use: a process that ends after it would be aborted.
    """
    if several_devices():
        import torch.distributed

        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def trainer_strategy(trainer: Mapping[str, Any]) -> Any:
    """Return Lightning's strategy. With several devices, the training loop itself averages their gradients.

    Args:
        trainer: the trainer's configuration: ``strategy``, ``devices``, ``num_nodes`` and ``accelerator``.

    Returns:
        ``auto`` for one device, a strategy for several, or what ``strategy`` is if it is neither ``auto`` nor ``ddp``.
    """
    strategy = trainer["strategy"]
    if strategy not in ("auto", "ddp"):
        return strategy
    if single_process(trainer):
        return "auto"
    from pdnla.training.gradients import AveragedGradients

    return AveragedGradients()


def single_process(trainer: Mapping[str, Any]) -> bool:
    """Return whether a trainer's configuration asks for one device and no strategy, so that one process trains."""
    devices = str(trainer["devices"])
    if trainer["strategy"] != "auto" or trainer["num_nodes"] > 1:
        return False
    if devices in ("auto", "-1"):
        import torch

        return trainer["accelerator"] == "cpu" or torch.cuda.device_count() < 2
    return devices == "1"
