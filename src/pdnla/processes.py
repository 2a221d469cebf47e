"""Processes of a command: which of torchrun's or Slurm's this is, and children that never outlive their parent."""

import multiprocessing
import os
import signal
import sys
import threading
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import NamedTuple


class Rank(NamedTuple):
    """Which of a command's processes this is: its number, its number on this machine, and how many there are."""

    number: int
    local: int
    world: int


def launched_rank() -> Rank:
    """Return which of the processes of torchrun or srun this is; the only one without them."""
    variables = os.environ
    if "RANK" in variables and "WORLD_SIZE" in variables:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    elif "SLURM_STEP_NUM_TASKS" in variables:  # set by srun alone; sbatch sets the others too
        names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS")
    else:
        return Rank(0, 0, 1)
    number, local, world = (int(variables.get(name, 0)) for name in names)
    return Rank(number, local, world)


def leave_together() -> None:
    """Wait for the other processes of torchrun, which ends them all when one leaves with a status other than 0."""
    if launched_rank().world == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    from torch import distributed

    # The last may come hours after the first.
    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    distributed.barrier()
    distributed.destroy_process_group()


def start_child(child: BaseProcess) -> None:
    """Start a process that ignores Ctrl-C from its first moment on: its parent ends it."""
    if threading.current_thread() is not threading.main_thread():  # where handlers cannot be set
        child.start()
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the child inherits
    try:
        child.start()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)


def become_child(on_interrupt: signal.Handlers = signal.SIG_IGN) -> None:
    """Set up a process that a command has started: it ends when its parent terminates it, and when that is killed.

    A child that is terminated finishes the file it writes.

    Args:
        on_interrupt: what Ctrl-C does, which reaches parent and children alike: nothing, where the parent then
            terminates its children, or ``SIG_DFL``, which ends the child at once.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=leave_with_parent, daemon=True).start()
