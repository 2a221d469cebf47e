"""A picture of what a run has learned, at every validation."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchvision.utils import make_grid, save_image

from pdnla.color import replace_luminance
from pdnla.data.modules import Batch
from pdnla.files import replacing
from pdnla.training.module import ColorizationModule

COLUMNS = ("target", "reference", "mid", "out", "truth")


class PictureGrid(pl.Callback):
    """Write ``step_N.png`` at every validation: a row a pair, of target, reference, mid, out, truth.

    ``mid`` is as the network gives it; ``out`` has the target's luminance, as a user gets it.

    Args:
        folder: where the pictures go.
        rows: pairs shown, always the first of the validation.
    """

    def __init__(self, folder: str, rows: int = 8) -> None:
        self.folder, self.rows = Path(folder), rows
        self.shown: list[Tensor] = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first rows."""
        missing = self.rows - len(self.shown)
        if trainer.is_global_zero and missing > 0:
            assert isinstance(pl_module, ColorizationModule)
            target, reference, truth = (part[:missing] for part in batch.pairs)
            with torch.inference_mode():
                mid, out = pl_module.ema(target, reference)
            row = [target, reference, mid.float(), replace_luminance(target, out.float()), truth]
            self.shown.extend(torch.stack(row, dim=1).cpu())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the picture."""
        if not self.shown:
            return
        pictures = (torch.cat(self.shown) + 1) / 2
        self.shown.clear()
        if trainer.sanity_checking:
            return
        grid = make_grid(pictures.clamp(0, 1), nrow=len(COLUMNS), padding=4, pad_value=1.0)
        with replacing(self.folder / f"step_{trainer.global_step:07d}.png") as temporary:
            save_image(grid, temporary)
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                logger.experiment.add_image("val/pictures", grid, trainer.global_step)
            elif isinstance(logger, pl.loggers.WandbLogger):
                logger.log_image("val/pictures", [grid], step=trainer.global_step, caption=[" | ".join(COLUMNS)])
