"""The Lightning module: PDNLA under hybrid supervision."""

import math
import time
from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from pdnla.color import replace_luminance
from pdnla.data.modules import Batch
from pdnla.losses import HybridLoss, Supervision
from pdnla.metrics import fidelity
from pdnla.network import PDNLA
from pdnla.network.layers import equalised_parameters
from pdnla.training.ema import averaged_copy, update_average, warmed_decay

LINE_EVERY = 50  # steps between two lines of progress where there is no progress bar
MEASURES = ("psnr", "ssim", "ciede2000", "chroma_error")


class ColorizationModule(pl.LightningModule):
    """Train a network on pairs, by manual optimisation, with an average of its weights.

    Args:
        network: the network.
        loss: the supervision's terms.
        optimizer: makes the optimiser of a list of parameter groups.
        steps: optimiser steps of the whole training, over which the learning rate falls.
        warmup: steps over which the learning rate rises linearly at the start.
        equalised_lr: learning rate of the equalised layers over that of the ordinary ones. Their weights are near 1
            where ordinary ones are near 0.1, and Adam moves both equally far: at one rate, the encoders learn slowly.
        final_lr: the learning rate's last value as a part of its highest; it falls linearly (published: 1/200).
        clip: largest norm of the gradient; a larger one is scaled down to it.
        ema_decay: decay of the average of the weights (published: 0.999).
    """

    def __init__(
        self,
        network: PDNLA,
        loss: HybridLoss,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        steps: int,
        warmup: int = 200,
        equalised_lr: float = 5.0,
        final_lr: float = 1 / 200,
        clip: float = 1.0,
        ema_decay: float = 0.999,
    ) -> None:
        super().__init__()
        # Generator and critics take their steps in turn, each with its own optimiser.
        self.automatic_optimization = False
        self.network = network
        self.ema = cast(PDNLA, averaged_copy(network))
        self.loss = loss
        self.make_optimizer = optimizer
        self.steps, self.warmup, self.final_lr = steps, warmup, final_lr
        self.equalised_lr = equalised_lr
        self.clip, self.ema_decay = clip, ema_decay
        self.left_out = {"grey": 0, "unreadable": 0}
        self.validation = nn.ModuleDict(
            {f"{who}_{name}": MeanMetric() for who in ("result", "grey") for name in MEASURES}
        )
        self._step_started = 0.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the count of photographs left out."""
        checkpoint["left_out"] = dict(self.left_out)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting photographs left out."""
        self.left_out = dict(checkpoint.get("left_out", self.left_out))

    def forward(self, target: Tensor, reference: Tensor) -> Tensor:
        """Return the averaged network's result under the target's luminance, sRGB in [-1, 1], ``(B, 3, H, W)``."""
        return replace_luminance(target, self.ema(target, reference).out)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the generator's optimiser and its schedule."""
        equalised = equalised_parameters(self.network)
        known = {id(parameter) for parameter in equalised}
        ordinary = [parameter for parameter in self.network.parameters() if id(parameter) not in known]
        optimizer = self.make_optimizer([{"params": ordinary}, {"params": equalised}])
        optimizer.param_groups[1]["lr"] *= self.equalised_lr
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, self.lr_factor)}

    def lr_factor(self, step: int) -> float:
        """Return the learning rate after ``step`` steps, as a part of its highest."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = 1 - (1 - self.final_lr) * min(1.0, step / max(1, self.steps))
        return rise * fall

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Remember when the step began."""
        self._step_started = time.perf_counter()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one step on a batch of pairs."""
        optimizer = cast(Optimizer, self.optimizers())
        pairs = batch.pairs
        result = self.network(pairs.target, pairs.reference)
        supervision = Supervision(*pairs, result.mid.float(), result.out.float())
        total, terms = self.loss(supervision)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(total)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        optimizer.step()
        schedule = self.lr_schedulers()
        assert isinstance(schedule, LambdaLR)
        schedule.step()
        update_average(self.ema, self.network, warmed_decay(self.ema_decay, self.global_step))

        self.left_out["grey"] += batch.grey
        self.left_out["unreadable"] += batch.unreadable
        self.log("train/loss/total", total.detach(), prog_bar=True)
        self.log_dict({f"train/loss/{name}": value for name, value in terms.items()})
        self.log("train/gradient_norm", norm)
        self.log("train/lr", optimizer.param_groups[0]["lr"])
        self.log_dict({f"data/{kind}_left_out": float(count) for kind, count in self.left_out.items()})

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the speed of the step, this device's images per second."""
        seconds = time.perf_counter() - self._step_started
        speed = len(batch.pairs.target) / seconds
        self.log("perf/images_per_second", speed)
        if self.trainer.progress_bar_callback is None and self.global_step % LINE_EVERY == 0:
            loss = float(self.trainer.callback_metrics["train/loss/total"])
            self.print(f"step {self.global_step} of {self.steps}: loss {loss:.3f}, {speed:.1f} images/s")

    def on_train_end(self) -> None:
        """Say how many photographs were left out."""
        grey, unreadable = self.left_out["grey"], self.left_out["unreadable"]
        if grey or unreadable:
            self.print(f"left out while drawing: {grey} grey photographs, {unreadable} that could not be read")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the averaged network's results, and grey ones beside them, against the truth."""
        pairs = batch.pairs
        truth = (pairs.truth + 1) / 2
        results = {"result": (self(pairs.target, pairs.reference) + 1) / 2, "grey": (pairs.target + 1) / 2}
        for who, picture in results.items():
            for name, values in fidelity(picture, truth).items():
                cast(MeanMetric, self.validation[f"{who}_{name}"]).update(values)

    def on_validation_epoch_end(self) -> None:
        """Log the measures; ``val/chroma_error_ratio`` is the result's chroma error over the grey result's."""
        means = {name: cast(MeanMetric, metric).compute() for name, metric in self.validation.items()}
        for metric in self.validation.values():
            cast(MeanMetric, metric).reset()
        for name in MEASURES:
            self.log(f"val/{name}", means[f"result_{name}"])
            self.log(f"val/grey/{name}", means[f"grey_{name}"])
        ratio = means["result_chroma_error"] / means["grey_chroma_error"]
        self.log("val/chroma_error_ratio", ratio, prog_bar=True)
        if self.trainer.is_global_zero and not self.trainer.sanity_checking and math.isfinite(float(ratio)):
            self.print(
                f"step {self.global_step}: chroma error {means['result_chroma_error']:.2f},"
                f" {100 * ratio:.0f}% of the grey result's {means['grey_chroma_error']:.2f};"
                f" PSNR {means['result_psnr']:.1f} dB (grey {means['grey_psnr']:.1f})"
            )
