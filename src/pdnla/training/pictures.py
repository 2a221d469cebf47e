"""Pictures of the first results of every validation, one pair per row."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.utils import make_grid, save_image

from pdnla.data.modules import Batch
from pdnla.files import replacing

COLUMNS = ("target", "reference", "mid", "out", "truth")


class FirstResults(pl.Callback):
    """Keeps the first pairs of each validation and their results.

    ``shown`` holds one tensor for each of :data:`COLUMNS`, sRGB in [-1, 1], ``(rows, 3, H, W)``. It is empty between
    validations and on all devices except the first. References are resized to the targets' size.

    Args:
        rows: number of pairs.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.shown: tuple[Tensor, ...] = ()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first rows of the validation step's results."""
        missing = self.rows - (len(self.shown[0]) if self.shown else 0)
        if not trainer.is_global_zero or trainer.sanity_checking or dataloader_idx or missing <= 0:
            return
        target, reference, truth = batch.pairs
        if reference.shape != target.shape:
            size = (target.shape[-2], target.shape[-1])
            reference = functional.interpolate(reference, size, mode="bilinear", antialias=True)
        parts = [part[:missing].float().cpu() for part in (target, reference, *outputs, truth)]
        self.shown = tuple(torch.cat(both) for both in zip(self.shown, parts, strict=True)) if self.shown else (*parts,)

    def take(self) -> tuple[Tensor, ...]:
        """Return the kept pictures and clear them."""
        shown, self.shown = self.shown, ()
        return shown


class PictureGrid(FirstResults):
    """Write ``step_N.png`` at every validation: one row per pair, with target, reference, mid, out and truth.

    ``mid`` is the network's own; ``out`` has the target's luminance, like a user's result.

    Args:
        folder: folder of the pictures.
        rows: number of pairs, always the first of the validation.
    """

    def __init__(self, folder: str, rows: int = 8) -> None:
        super().__init__(rows)
        self.folder = Path(folder)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the picture."""
        shown = self.take()
        if not shown:
            return
        pictures = (torch.stack(shown, dim=1).flatten(0, 1) + 1) / 2
        grid = make_grid(pictures.clamp(0, 1), nrow=len(COLUMNS), padding=4, pad_value=1.0)
        with replacing(self.folder / f"step_{trainer.global_step:07d}.png") as temporary:
            save_image(grid, temporary)
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                logger.experiment.add_image("val/pictures", grid, trainer.global_step)
            elif isinstance(logger, pl.loggers.WandbLogger):
                logger.log_image("val/pictures", [grid], step=trainer.global_step, caption=[" | ".join(COLUMNS)])
