"""Reports to Weights & Biases, apart from metrics: tables of pictures, attention maps, the best checkpoint."""

from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor
from torch.nn import functional

from pdnla.data.modules import Batch
from pdnla.evaluation.measures import MEASURES, OBJECTIVE, logged, measured
from pdnla.network import PDNLA
from pdnla.network.attention_maps import attention_maps
from pdnla.training.module import ColorizationModule
from pdnla.training.pictures import COLUMNS, FirstResults

PIXELS = ((0.5, 0.5), (0.2, 0.2), (0.8, 0.8))
"""Pixels whose attention is shown, as (x, y) relative to the picture's width and height."""
_MARK = (1.0, 0.0, 1.0)


class WandbReport(FirstResults):
    """Log to W&B if the run has such a logger.

    At the start it logs the composed configuration; at every validation ``val/table`` (one row per pair: target,
    reference, mid, out, truth and the objective) and ``val/attention`` (the reference shaded by the attention of a few
    marked pixels of the target); at the end the best checkpoint as an artifact, with its step and objective as aliases.

    Args:
        folder: folder of the run, with its ``config.yaml``.
        rows: number of pairs.
    """

    def __init__(self, folder: str, rows: int = 8) -> None:
        super().__init__(rows)
        self.folder = Path(folder)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the configuration, and for each measure whether higher or lower is better."""
        for logger in wandb_loggers(trainer):
            config = self.folder / "config.yaml"
            if config.is_file():
                logger.experiment.config.update(
                    yaml.safe_load(config.read_text(encoding="utf-8")), allow_val_change=True
                )
            for measure in measured("validation", "truth"):
                summary = {"up": "max", "down": "min", "one": "last"}[measure.better]
                logger.experiment.define_metric(logged(measure.name), summary=summary)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first rows, if there is a W&B logger."""
        if wandb_loggers(trainer):
            super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the first rows."""
        shown = self.take()
        if not shown:
            return
        import wandb

        target, reference, _, out, truth = shown
        errors = MEASURES[OBJECTIVE]((out + 1) / 2, (truth + 1) / 2).tolist()
        rows = [
            [*(wandb.Image(as_pixels(picture)) for picture in pictures), error]
            for *pictures, error in zip(*shown, errors, strict=True)
        ]
        network = cast(ColorizationModule, pl_module).ema
        target, reference = (picture.to(pl_module.device, pl_module.dtype) for picture in (target, reference))
        strips = attention_strips(network, target, reference) if isinstance(network, PDNLA) else []
        overlays = [wandb.Image(as_pixels(strip)) for strip in strips]
        for logger in wandb_loggers(trainer):
            table = wandb.Table(columns=[*COLUMNS, OBJECTIVE], data=rows)
            logger.log_metrics({"val/table": table, "val/attention": overlays}, step=trainer.global_step)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the best checkpoint."""
        best = next(
            (
                callback
                for callback in trainer.checkpoint_callbacks
                if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path
            ),
            None,
        )
        if best is None or best.best_model_score is None:
            return
        import wandb

        score = float(best.best_model_score)
        for logger in wandb_loggers(trainer):
            step = Path(best.best_model_path).stem.rpartition("_")[2]
            measures = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
            artifact = wandb.Artifact(
                f"pdnla-{logger.experiment.id}",
                type="model",
                description=f"The checkpoint of the best {MEASURES[OBJECTIVE].label}, for pdnla-colorize --weights.",
                metadata={logged(OBJECTIVE): score, "last": measures},
            )
            artifact.add_file(best.best_model_path, name="best.ckpt")
            aliases = ["best", f"{OBJECTIVE}_{score:.2f}", f"step_{int(step) if step.isdigit() else step}"]
            logger.experiment.log_artifact(artifact, aliases=aliases)


def wandb_loggers(trainer: pl.Trainer) -> list[WandbLogger]:
    """Return the run's W&B loggers; none on devices other than the first."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    return loggers if trainer.is_global_zero else []


def as_pixels(picture: Tensor) -> Any:
    """Return a picture in [-1, 1], ``(3, H, W)``, as uint8 ``(H, W, 3)``."""
    return ((picture.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def attention_strips(network: PDNLA, target: Tensor, reference: Tensor) -> Tensor:
    """Return for each pair the target with its marked pixels, and the reference shaded by the attention of each pixel.

    Brightness is proportional to the attention, relative to its maximum.

    Args:
        network: the network.
        target: ``(B, 3, H, W)`` in [-1, 1].
        reference: the same shape.

    Returns:
        Strips ``(B, 3, H, (1 + pixels) * W)`` in [-1, 1].
    """
    height, width = target.shape[2:]
    pixels = torch.tensor(PIXELS, device=target.device).expand(len(target), -1, -1)
    maps = attention_maps(network, target, reference, pixels)
    weight = maps / maps.amax(dim=(2, 3), keepdim=True)
    weight = functional.interpolate(weight, size=reference.shape[2:], mode="bilinear")
    marked = target.float().clone()
    radius = max(1, height // 48)
    for x, y in PIXELS:
        row, column = round(y * height), round(x * width)
        mark = torch.tensor(_MARK, device=target.device).view(1, 3, 1, 1) * 2 - 1
        marked[:, :, row - radius : row + radius + 1, column - radius : column + radius + 1] = mark
    shaded = [((reference.float() + 1) * (0.15 + 0.85 * weight[:, p : p + 1])) - 1 for p in range(len(PIXELS))]
    return torch.cat([marked, *shaded], dim=3)
