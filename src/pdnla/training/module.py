"""The Lightning module: PDNLA under hybrid supervision."""

import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from pdnla.backbones import Backbone, load_backbone
from pdnla.color import at_least_float32, replace_luminance
from pdnla.data.modules import Batch
from pdnla.data.pseudo_pairs import Pairs
from pdnla.errors import UserError
from pdnla.losses import HeadCodes, HybridLoss, Supervision
from pdnla.losses.hybrid import judged_by
from pdnla.metrics import colourfulness, fidelity, histogram_intersection
from pdnla.network import PDNLA, Colorization
from pdnla.network.guide import Guide
from pdnla.network.layers import equalised_parameters
from pdnla.training.distributed import average_gradients, mean_over_devices
from pdnla.training.ema import averaged_copy, update_average, warmed_decay

LINE_EVERY = 50  # steps between two lines of progress where there is no progress bar
MEASURES = ("psnr", "ssim", "ciede2000", "chroma_error")
SHOWN = ("train/loss/total", "train/loss/pixel", "train/loss/chroma")  # on the progress bar
PAIR_MEASURES = ("histogram_intersection", "colourfulness_ratio")

MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]


class ColorizationModule(pl.LightningModule):
    """Train a network on pairs, by manual optimisation, with an average of its weights.

    A step: the network's results and their loss, its backward pass, the gradients' mean over devices, their clipping,
    the optimiser's step; then the same for each critic, on the same results.

    Args:
        network: the network.
        loss: the supervision's terms.
        optimizer: makes the network's optimiser of a list of parameter groups.
        steps: optimiser steps of the whole training, over which the learning rates fall.
        critic_optimizer: makes each critic's optimiser; None where there are no critics.
        backbone: name of the frozen network that terms compare features by.
        warmup: steps over which the learning rates rise linearly at the start.
        equalised_lr: learning rate of the equalised layers over that of the ordinary ones. Their weights are near 1
            where ordinary ones are near 0.1, and Adam moves both equally far: at one rate, the encoders learn slowly.
        final_lr: the learning rates' last value as a part of their highest; they fall linearly (published: 1/200).
        clip: largest norm of a gradient; a larger one is scaled down to it.
        ema_decay: decay of the average of the weights (published: 0.999).
        accumulate: parts of a batch that are computed one after the other: the memory of a part, the step of the whole.
        max_skipped: steps skipped in a row, because a loss or gradient was not finite, that end the run.
        compile: compile the network (``torch.compile``) for the training steps.
    """

    def __init__(
        self,
        network: PDNLA,
        loss: HybridLoss,
        optimizer: MakeOptimizer,
        steps: int,
        critic_optimizer: MakeOptimizer | None = None,
        backbone: str = "efficientnet_lite0",
        warmup: int = 200,
        equalised_lr: float = 5.0,
        final_lr: float = 1 / 200,
        clip: float = 1.0,
        ema_decay: float = 0.999,
        accumulate: int = 1,
        max_skipped: int = 10,
        compile: bool = False,
    ) -> None:
        super().__init__()
        for option, number in (("accumulate", accumulate), ("max_skipped", max_skipped)):
            if number < 1:
                raise UserError(f"schedule.{option}={number}: must be at least 1")
        # Generator and critics take their steps in turn, each with its own optimiser.
        self.automatic_optimization = False
        self.network = network
        for encoder in (network.target_encoder, network.reference_encoder):
            encoder.head.requires_grad_(loss.needs("codes"))
        self.ema = cast(PDNLA, averaged_copy(network))
        self.loss = loss
        self.make_optimizer, self.make_critic_optimizer = optimizer, critic_optimizer
        if loss.critics and critic_optimizer is None:
            raise ValueError(f"{', '.join(loss.critics)} learn and there is no critic_optimizer")
        self.steps, self.warmup, self.final_lr = steps, warmup, final_lr
        self.equalised_lr = equalised_lr
        self.clip, self.ema_decay = clip, ema_decay
        self.accumulate, self.max_skipped, self.compile_network = accumulate, max_skipped, compile
        self.counts: Counter[str] = Counter(grey=0, unreadable=0, skipped=0)
        self.skipped_in_a_row = 0
        self.validation = nn.ModuleDict(
            {f"{who}_{name}": MeanMetric() for who in ("result", "grey") for name in MEASURES}
            | {f"pairs_{name}": MeanMetric() for name in PAIR_MEASURES}
        )
        # Frozen and shared: neither in checkpoints nor among the module's parameters.
        self._frozen: list[Backbone] = [load_backbone(backbone)] if loss.needs("backbone") else []
        self._compiled: list[Callable[..., Colorization]] = []
        self._step_started = 0.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the counts of photographs left out and of steps skipped."""
        checkpoint["counts"] = dict(self.counts)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting."""
        self.counts.update(checkpoint.get("counts", {}))

    def on_fit_start(self) -> None:
        """Bring the frozen network to the device and compile the other.

        Raises:
            UserError: the crops do not fit a critic.
        """
        for name, term in self.loss.critics.items():
            size = term.sees(cast(Any, self.trainer).datamodule.size)
            stride = cast(Any, term.critic).stride
            if size % stride:
                raise UserError(
                    f"loss.terms.{name}: its critic halves {size} pixels to a fraction; set data.size or its size"
                    f" to a multiple of {stride}, or loss.terms.{name}.critic.blocks to fewer"
                )
        for backbone in self._frozen:
            backbone.to(self.device, torch.promote_types(self.dtype, torch.float32))
        if self.compile_network and not self._compiled:
            self._compiled.append(torch.compile(self.network))

    def forward(self, target: Tensor, reference: Tensor, *guide: Guide) -> Colorization:
        """Return the averaged network's results, ``out`` under the target's luminance, sRGB in [-1, 1]."""
        mid, out = self.ema(target.to(self.dtype), reference.to(self.dtype), *guide)
        return Colorization(mid.to(target.dtype), replace_luminance(target, out.to(target.dtype)))

    def configure_optimizers(self) -> list[dict[str, Any]]:
        """Return the network's optimiser and each critic's, with their schedules."""
        equalised = {id(parameter) for parameter in equalised_parameters(self.network)}
        groups: list[dict[str, Any]] = [{"params": []}, {"params": []}]
        for parameter in self.network.parameters():
            if parameter.requires_grad:
                groups[id(parameter) in equalised]["params"].append(parameter)
        optimizers = [self.make_optimizer(groups)]
        optimizers[0].param_groups[1]["lr"] *= self.equalised_lr
        for term in self.loss.critics.values():
            assert self.make_critic_optimizer is not None
            optimizers.append(self.make_critic_optimizer([{"params": list(term.critic.parameters())}]))
        return [{"optimizer": o, "lr_scheduler": LambdaLR(o, self.lr_factor)} for o in optimizers]

    def lr_factor(self, step: int) -> float:
        """Return the learning rate after ``step`` steps, as a part of its highest."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = 1 - (1 - self.final_lr) * min(1.0, step / max(1, self.steps))
        return rise * fall

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Remember when the step began."""
        self._step_started = time.perf_counter()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one step on a batch of pairs, and each critic one on the same results."""
        optimizers = self.optimizers()
        optimizer, *critic_optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        step = self.global_step
        optimizer.zero_grad(set_to_none=True)
        judged: list[Supervision] = []
        terms: dict[str, Tensor] = {}
        for part in in_parts(batch, self.accumulate):
            supervision = self.supervise(part)
            total, values = self.loss(supervision, whole=(len(batch.pairs.target), batch.unpaired))
            if not total.requires_grad or (len(supervision.unpaired) and not self.loss.judges_unpaired):
                raise UserError(
                    "loss: no term judges these pairs; choose loss=hybrid for unpaired ones, or set"
                    " data.unpaired_fraction=0"
                )
            self.manual_backward(total)
            judged.append(supervision.detached())
            for name, value in {**values, "total": total.detach()}.items():
                terms[name] = terms.get(name, torch.zeros_like(value)) + value
        measured: dict[str, Any] = {f"train/loss/{name}": value for name, value in terms.items()}
        measured["train/gradient_norm"] = norm = self._clipped_mean("network", self.network)
        if self._finite(norm, terms):
            measured["train/lr"] = optimizer.param_groups[0]["lr"]
            optimizer.step()  # the wrapper's: this is what counts as the run's step
            for name, value in self._train_critics(critic_optimizers, judged, batch, step).items():
                measured[f"critics/{name}"] = value
            schedules = self.lr_schedulers()
            for schedule in schedules if isinstance(schedules, list) else [schedules]:
                cast(LambdaLR, schedule).step()
            update_average(self.ema, self.network, warmed_decay(self.ema_decay, self.global_step))

        self.counts.update(grey=batch.grey, unreadable=batch.unreadable)
        for name, weight in self.loss.weights.items():
            if name in terms:
                measured[f"train/weighted/{name}"] = weight * terms[name]
        measured |= {f"data/{kind}_left_out": float(self.counts[kind]) for kind in ("grey", "unreadable")}
        measured["train/skipped_steps"] = float(self.counts["skipped"])
        measured["data/unpaired"] = float(batch.unpaired)
        for name, value in mean_over_devices(measured).items():
            self.log(name, value, prog_bar=name in SHOWN)

    def supervise(self, batch: Batch) -> Supervision:
        """Return the network's results on a batch, and all that the loss asks for."""
        wide = torch.promote_types(self.dtype, torch.float32)
        pairs = Pairs(*(pictures.to(wide) for pictures in batch.pairs))
        target, reference = pairs.target.to(self.dtype), pairs.reference.to(self.dtype)
        guide = () if batch.guide is None else (batch.guide,)
        codes = None
        if self.loss.needs("codes"):
            stages = self.network.stages(target, reference)
            result = Colorization(stages.mid, stages.out)
            encoder = self.network.reference_encoder
            codes = HeadCodes(*self.network.codes(stages), encoder.codes(encoder(result.out)[-1]))
        else:
            network = self._compiled[0] if self._compiled else self.network
            result = network(target, reference, *guide)
        return Supervision(
            *pairs,
            at_least_float32(result.mid),
            at_least_float32(result.out),
            unpaired=batch.unpaired,
            seed=batch.seed,
            backbone=self._frozen[0] if self._frozen else None,
            codes=codes,
        )

    def _train_critics(
        self,
        optimizers: Sequence[LightningOptimizer],
        judged: Sequence[Supervision],
        batch: Batch,
        step: int,
    ) -> dict[str, Tensor]:
        """Take each critic's step; return what to log of them."""
        measured: dict[str, Tensor] = {}
        for (name, term), optimizer in zip(self.loss.critics.items(), optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            parts = [part for part in (judged_by(term, whole) for whole in judged) if len(part)]
            pairs = sum(len(part) for part in parts)
            for part in parts:
                loss, scores = term.critic_loss(part, step)
                share = len(part) / pairs
                self.manual_backward(loss * share)
                for what, value in {"loss": loss.detach(), **scores}.items():
                    measured[f"{name}/{what}"] = measured.get(f"{name}/{what}", torch.zeros_like(value)) + share * value
            if not parts:
                continue
            norm = measured[f"{name}/gradient_norm"] = self._clipped_mean(f"loss.terms.{name}.critic", term.critic)
            if self._finite(norm, {f"the critic of {name}": measured[f"{name}/loss"]}):
                measured[f"{name}/lr"] = torch.tensor(optimizer.param_groups[0]["lr"])
                optimizer.optimizer.step()  # not the wrapper's, which would count as a step of the run
        return measured

    def _clipped_mean(self, name: str, module: nn.Module) -> Tensor:
        """Average a module's gradients over the devices and clip them; return their norm before."""
        learning = [(f"{name}.{n}", p) for n, p in module.named_parameters() if p.requires_grad]
        average_gradients(learning)
        return nn.utils.clip_grad_norm_([parameter for _, parameter in learning], self.clip)

    def _finite(self, norm: Tensor, terms: dict[str, Tensor]) -> bool:
        """Return whether a step can be taken; count those that cannot, and end the run after many in a row.

        The norm is of the devices' mean gradient, so that all of them decide alike.
        """
        if math.isfinite(float(norm)):
            self.skipped_in_a_row = 0
            return True
        self.counts["skipped"] += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= self.max_skipped:
            wrong = [name for name, value in terms.items() if name != "total" and not math.isfinite(float(value))]
            raise UserError(
                f"loss: {self.skipped_in_a_row} steps in a row were not finite"
                f" ({', '.join(wrong) or 'the gradient, of finite losses'}); lower optim.lr or that term's weight, or"
                " resume from an earlier checkpoint"
            )
        return False

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the speed of the step, this device's images per second."""
        seconds = time.perf_counter() - self._step_started
        speed = len(batch.pairs.target) / seconds
        self.log("perf/images_per_second", speed)
        self.log("perf/memory_gb", peak_memory(self.device))
        if self.trainer.progress_bar_callback is None and self.global_step % LINE_EVERY == 0:
            loss = float(self.trainer.callback_metrics["train/loss/total"])
            self.print(f"step {self.global_step} of {self.steps}: loss {loss:.3f}, {speed:.1f} images/s")

    def on_train_end(self) -> None:
        """Say how many photographs were left out."""
        grey, unreadable, skipped = (self.counts[kind] for kind in ("grey", "unreadable", "skipped"))
        if grey or unreadable:
            self.print(f"left out while drawing: {grey} grey photographs, {unreadable} that could not be read")
        if skipped:
            self.print(f"steps skipped because a gradient was not finite: {skipped}")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Colorization:
        """Measure the averaged network's results: against the truth, or pairs without one against their reference.

        Returns:
            the results, ``out`` with the target's luminance, for who shows them.
        """
        pairs = batch.pairs
        shown = self(pairs.target, pairs.reference, *(() if batch.guide is None else (batch.guide,)))
        result = (shown.out + 1) / 2
        if dataloader_idx:
            reference = (pairs.reference + 1) / 2
            found = {
                "histogram_intersection": histogram_intersection(result, reference),
                "colourfulness_ratio": colourfulness(result) / colourfulness(reference).clamp_min(1e-3),
            }
            for name, values in found.items():
                cast(MeanMetric, self.validation[f"pairs_{name}"]).update(values)
            return shown
        truth = (pairs.truth + 1) / 2
        for who, picture in {"result": result, "grey": (pairs.target + 1) / 2}.items():
            for name, values in fidelity(picture, truth).items():
                cast(MeanMetric, self.validation[f"{who}_{name}"]).update(values)
        return shown

    def on_validation_epoch_end(self) -> None:
        """Log the measures; ``val/chroma_error_ratio`` is the result's chroma error over the grey result's."""
        metrics = {name: cast(MeanMetric, metric) for name, metric in self.validation.items()}
        means = {name: metric.compute() for name, metric in metrics.items() if metric.update_called}
        for metric in metrics.values():
            metric.reset()
        for name in PAIR_MEASURES:
            if f"pairs_{name}" in means:
                self.log(f"val/pairs/{name}", means[f"pairs_{name}"])
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


def peak_memory(device: torch.device) -> float:
    """Return the most memory that this process has had on its device so far, in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def in_parts(batch: Batch, count: int) -> list[Batch]:
    """Return a batch in ``count`` parts, each with its share of unpaired and of paired pairs."""
    if count == 1:
        return [batch]
    rows = torch.arange(len(batch.pairs.target))
    parts = []
    for part in range(count):
        unpaired, paired = rows[: batch.unpaired][part::count], rows[batch.unpaired :][part::count]
        chosen = torch.cat([unpaired, paired]).to(batch.pairs.target.device)
        if len(chosen):
            pairs = Pairs(*(pictures[chosen] for pictures in batch.pairs))
            guide = None if batch.guide is None else batch.guide.rows(chosen)
            parts.append(batch._replace(pairs=pairs, unpaired=len(unpaired), seed=batch.seed + part, guide=guide))
    return parts
