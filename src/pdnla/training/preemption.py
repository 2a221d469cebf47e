"""Being told to leave: SIGTERM saves the run and ends it with a status that says so."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

from pdnla.errors import Preempted


class SaveOnTermination(pl.Callback):
    """On SIGTERM, as clusters and spot machines send it, finish the step, save ``last.ckpt`` and leave.

    With several devices, one being told is enough.

    Args:
        folder: where the checkpoint goes.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.told = False
        self._before: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, in place of Lightning, which would leave without saving."""
        self._before = signal.signal(signal.SIGTERM, self._tell)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen no more."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self._restore()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and leave if told to."""
        told = self.told
        if trainer.world_size > 1:
            votes = torch.tensor(float(told), device=pl_module.device)
            told = bool(trainer.strategy.reduce(votes, reduce_op="sum") > 0)
        if told:
            checkpoint = self.folder / "last.ckpt"
            trainer.save_checkpoint(checkpoint)
            raise Preempted(checkpoint)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self.told = True

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None
