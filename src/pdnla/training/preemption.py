"""Preemption: SIGTERM saves the run and ends it with exit status 143."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

from pdnla.errors import Preempted


class SaveOnTermination(pl.Callback):
    """On SIGTERM, which clusters and spot machines send, finish the step, save ``last.ckpt`` and exit.

    With several devices, a signal to one process is enough.

    Args:
        folder: folder of the checkpoint.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.terminated = False
        self._previous: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace Lightning's signal handler, which would exit without saving."""
        self._previous = signal.signal(signal.SIGTERM, self._terminate)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the previous signal handler."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the previous signal handler."""
        self._restore()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and exit after a signal."""
        terminated = self.terminated
        if trainer.world_size > 1:
            votes = torch.tensor(float(terminated), device=pl_module.device)
            terminated = bool(trainer.strategy.reduce(votes, reduce_op="sum") > 0)
        if terminated:
            checkpoint = self.folder / "last.ckpt"
            trainer.save_checkpoint(checkpoint)
            raise Preempted(checkpoint)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None
