"""The processes of a command: ranks from torchrun, Lightning and Slurm, and children that end with their parent."""

import multiprocessing
import os
import signal
import sys
import threading
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import NamedTuple


class Rank(NamedTuple):
    """A process of a command: its number, its number on its machine, and the number of processes."""

    number: int
    local: int
    world: int


_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Environment variables in which torchrun, Lightning and Slurm number the processes of a run."""
_COUNTS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""Environment variables in which torchrun, Lightning and srun give the number of processes."""


def process_count() -> int:
    """Return the number of processes in which torchrun or srun started this command; 1 without them."""
    return max(int(os.environ.get(name, 1)) for name in _COUNTS)


def is_first() -> bool:
    """Return whether this is the first process of a run, whatever started the processes."""
    return not any(int(os.environ.get(name, 0)) for name in _RANKS)


def launched_rank() -> Rank:
    """Return the rank that torchrun or srun gave this process; the only one without them."""
    variables = os.environ
    if "RANK" in variables and "WORLD_SIZE" in variables:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    elif "SLURM_STEP_NUM_TASKS" in variables:  # only srun sets it; sbatch sets the other two as well
        names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS")
    else:
        return Rank(0, 0, 1)
    number, local, world = (int(variables.get(name, 0)) for name in names)
    return Rank(number, local, world)


def leave_together() -> None:
    """Wait for the other processes of torchrun, which ends all of them when one exits with a status other than 0."""
    if launched_rank().world == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    from torch import distributed

    # The last process may arrive hours after the first.
    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    distributed.barrier()
    distributed.destroy_process_group()


def start_child(child: BaseProcess) -> None:
    """Start a process that ignores Ctrl-C from the beginning: its parent ends it."""
    if threading.current_thread() is not threading.main_thread():  # handlers can be set in the main thread only
        child.start()
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child inherits it
    try:
        child.start()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)


def become_child(on_interrupt: signal.Handlers = signal.SIG_IGN) -> None:
    """Set up a child process: it ends when its parent terminates it or is killed.

    A child that is terminated first finishes the file that it is writing.

    Args:
        on_interrupt: the effect of Ctrl-C, which reaches the parent and its children: none (the parent terminates its
            children), or ``SIG_DFL`` (the child ends at once).
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=leave_with_parent, daemon=True).start()
