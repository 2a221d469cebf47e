"""The Lightning module: training of PDNLA under hybrid supervision."""

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from pdnla.backbones import Backbone, load_backbone
from pdnla.data.modules import Batch
from pdnla.data.pseudo_pairs import Pairs
from pdnla.errors import UserError
from pdnla.evaluation.measures import MEASURES, OBJECTIVE, logged, measured
from pdnla.fast import accelerate as accelerated
from pdnla.images.color import replace_luminance
from pdnla.losses import HeadCodes, HybridLoss, Supervision
from pdnla.models import describe
from pdnla.network import PDNLA, Colorization, InformedPDNLA
from pdnla.network.guide import Guide
from pdnla.network.layers import at_least_float32, equalised_parameters
from pdnla.training.ema import averaged_copy, update_average, warmed_decay
from pdnla.training.gradients import average_gradients, mean_over_devices

LINE_EVERY = 50  # steps between two lines of progress without a progress bar
SHOWN = ("train/loss/total", "train/loss/pixel", "train/loss/chroma")  # on the progress bar

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]


class ColorizationModule(pl.LightningModule):
    """Train a network on pairs, with manual optimisation and an average of the weights.

    A step computes the results and the loss, runs the backward pass, averages the gradients over the devices, clips
    them and steps the optimiser; then each critic takes the same step on the same results.

    Args:
        network: the network.
        loss: the sum of the loss terms.
        optimizer: creates the network's optimiser from a list of parameter groups.
        steps: optimiser steps of the whole training, over which the learning rates decay; -1 for unlimited training
            without decay.
        critic_optimizer: creates each critic's optimiser; None without critics.
        backbone: name of the frozen network whose features the loss terms compare.
        warmup: steps over which the learning rates rise linearly at the start.
        equalised_lr: ratio of the equalised layers' learning rate to that of the other layers. Their weights are near 1
            where others are near 0.1, and Adam changes both by the same amount: with one rate, the encoders learn
            slowly.
        final_lr: ratio of the last learning rate to the highest; the decay is linear (published: 1/200).
        clip: largest norm of a gradient; a larger one is scaled down to it.
        ema_decay: decay of the average of the weights (published: 0.999).
        accumulate: number of parts of a batch that are computed one after the other, with the memory of a part and the
            gradient of the whole batch.
        max_skipped: number of consecutive steps, skipped because a loss or gradient was not finite, that ends the run.
        compile: compile the network (``torch.compile``) for the training steps.
        accelerate: replace the plain modules of the network and the critics by the fast ones.
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
        accelerate: bool = True,
    ) -> None:
        super().__init__()
        # The network and the critics step in turn, each with its own optimiser.
        self.automatic_optimization = False
        self.network = accelerated(network) if accelerate else network
        if isinstance(network, PDNLA):
            for encoder in (network.target_encoder, network.reference_encoder):
                encoder.head.requires_grad_(loss.needs("codes"))
        elif loss.needs("codes"):
            raise UserError("loss.terms: a term compares the training heads of PDNLA's encoders; leave it out")
        self.ema = cast(PDNLA, averaged_copy(network))
        self.loss = accelerated(loss) if accelerate else loss
        self.make_optimizer, self.make_critic_optimizer = optimizer, critic_optimizer
        if loss.critics and critic_optimizer is None:
            raise ValueError(f"{', '.join(loss.critics)} learn and there is no critic_optimizer")
        self.steps, self.warmup, self.final_lr = steps, warmup, final_lr
        self.equalised_lr = equalised_lr
        self.clip, self.ema_decay = clip, ema_decay
        self.accumulate, self.max_skipped, self.compile_network = accumulate, max_skipped, compile
        self.counts: Counter[str] = Counter(grey=0, unreadable=0, skipped=0)
        self.skipped_in_a_row = 0
        self.with_truth, self.with_reference = measured("validation", "truth"), measured("validation", "reference")
        self.validation = nn.ModuleDict(
            {f"{who}_{m.name}": MeanMetric("ignore") for who in ("result", "grey") for m in self.with_truth}
            | {f"pairs_{m.name}": MeanMetric("ignore") for m in self.with_reference}
        )
        # The backbone is frozen and shared: it is not in checkpoints nor among the module's parameters.
        self._frozen: list[Backbone] = [load_backbone(backbone)] if loss.needs("backbone") else []
        self._compiled: list[Callable[..., Colorization]] = []
        self._step_started = 0.0
        self._figures: dict[str, Tensor | float] = {}  # of the last step, on this device

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the network's description, and the counts of omitted photographs and skipped steps."""
        checkpoint["model"] = describe(self.network)._asdict()
        checkpoint["counts"] = dict(self.counts)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counts."""
        self.counts.update(checkpoint.get("counts", {}))

    def on_fit_start(self) -> None:
        """Move the frozen network to the device, and compile the trained network if asked.

        Raises:
            UserError: a weights file could not describe the network, or the crops do not fit a critic.
        """
        describe(self.network)
        for name, term in self.loss.critics.items():
            size = term.input_size(cast(Any, self.trainer).datamodule.size)
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
        """Return the averaged network's results in sRGB in [-1, 1], ``out`` with the target's luminance."""
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
        """Return the ratio of the learning rate after ``step`` steps to the highest."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        if self.steps < 1:
            return rise
        return rise * (1 - (1 - self.final_lr) * min(1.0, step / self.steps))

    def on_train_start(self) -> None:
        """Print a line if the learning rates will not decay."""
        if self.steps < 1:
            self.print(f"trainer.max_steps={self.steps}: without a last step, the learning rates do not decay")

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Record the start of the step."""
        self._step_started = time.perf_counter()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one step on a batch of pairs, and one step of each critic on the same results.

        Raises:
            UserError: no loss term applies to the pairs, or too many steps in a row were not finite.
        """
        optimizers = self.optimizers()
        optimizer, *critic_optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        step = self.global_step
        optimizer.zero_grad(set_to_none=True)
        supervisions: list[Supervision] = []
        terms: dict[str, Tensor] = {}
        for part in in_parts(batch, self.accumulate):
            supervision = self.supervise(part)
            total, values = self.loss(supervision, whole=(len(batch.pairs.target), batch.unpaired))
            if not total.requires_grad or (len(supervision.unpaired) and not self.loss.applies_to_unpaired):
                raise UserError(
                    "loss: no term applies to these pairs; choose loss=hybrid for unpaired ones, or set"
                    " data.unpaired_fraction=0"
                )
            self.manual_backward(total)
            supervisions.append(supervision.detached())
            for name, value in {**values, "total": total.detach()}.items():
                terms[name] = terms.get(name, torch.zeros_like(value)) + value
        figures: dict[str, Tensor | float] = {f"train/loss/{name}": value for name, value in terms.items()}
        figures["train/gradient_norm"] = norm = self._clipped_mean("network", self.network)
        if self._finite(norm, terms):
            figures["train/lr"] = optimizer.param_groups[0]["lr"]
            optimizer.step()  # Lightning's wrapper, which counts this as a step of the run
            for name, value in self._train_critics(critic_optimizers, supervisions, batch, step).items():
                figures[f"critics/{name}"] = value
            schedules = self.lr_schedulers()
            for schedule in schedules if isinstance(schedules, list) else [schedules]:
                cast(LambdaLR, schedule).step()
            update_average(self.ema, self.network, warmed_decay(self.ema_decay, self.global_step))

        self.counts.update(grey=batch.grey, unreadable=batch.unreadable)
        for name, weight in self.loss.weights.items():
            if name in terms:
                figures[f"train/weighted/{name}"] = weight * terms[name]
        figures |= {f"data/{kind}_left_out": float(self.counts[kind]) for kind in ("grey", "unreadable")}
        figures["train/skipped_steps"] = float(self.counts["skipped"])
        figures["data/unpaired"] = float(batch.unpaired)
        self._figures = figures

    def supervise(self, batch: Batch) -> Supervision:
        """Return the network's results on a batch and the other inputs of the loss."""
        wide = torch.promote_types(self.dtype, torch.float32)
        pairs = Pairs(*(pictures.to(wide) for pictures in batch.pairs))
        target, reference = pairs.target.to(self.dtype), pairs.reference.to(self.dtype)
        guide = self._guide(batch)
        codes = None
        if self.loss.needs("codes"):
            stages = self.network.stages(target, reference, *guide)
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

    def _guide(self, batch: Batch) -> tuple[Guide, ...]:
        """Return what a batch has for the network beyond its pictures."""
        if batch.guide is None:
            return ()
        if not isinstance(self.network, InformedPDNLA):
            raise UserError("data=kept_pairs: its pairs are kept for model=pdnla_informed; choose that, or other data")
        return (batch.guide,)

    def _train_critics(
        self,
        optimizers: Sequence[LightningOptimizer],
        supervisions: Sequence[Supervision],
        batch: Batch,
        step: int,
    ) -> dict[str, Tensor]:
        """Take a step of each critic; return the values to log."""
        figures: dict[str, Tensor] = {}
        for (name, term), optimizer in zip(self.loss.critics.items(), optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            parts = [part for part in (term.select(whole) for whole in supervisions) if len(part)]
            pairs = sum(len(part) for part in parts)
            for part in parts:
                loss, scores = term.critic_loss(part, step)
                share = len(part) / pairs
                self.manual_backward(loss * share)
                for what, value in {"loss": loss.detach(), **scores}.items():
                    figures[f"{name}/{what}"] = figures.get(f"{name}/{what}", torch.zeros_like(value)) + share * value
            if not parts:
                continue
            norm = figures[f"{name}/gradient_norm"] = self._clipped_mean(f"loss.terms.{name}.critic", term.critic)
            if self._finite(norm, {f"the critic of {name}": figures[f"{name}/loss"]}):
                figures[f"{name}/lr"] = torch.tensor(optimizer.param_groups[0]["lr"])
                optimizer.optimizer.step()  # not Lightning's wrapper, which would count it as a step of the run
        return figures

    def _clipped_mean(self, name: str, module: nn.Module) -> Tensor:
        """Average a module's gradients over the devices and clip them; return their norm before clipping."""
        learning = [(f"{name}.{n}", p) for n, p in module.named_parameters() if p.requires_grad]
        average_gradients(learning)
        return nn.utils.clip_grad_norm_([parameter for _, parameter in learning], self.clip)

    def _finite(self, norm: Tensor, terms: dict[str, Tensor]) -> bool:
        """Return whether the gradient is finite; count steps where it is not, and end the run after several in a row.

        The norm is that of the mean gradient of all devices, so all of them reach the same decision.
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
        """Log each value's mean over the devices, and this device's speed, every ``log_every_n_steps`` steps.

        On the other steps the devices do not exchange these values.
        """
        trainer = self.trainer
        logs = (trainer.fit_loop.total_batch_idx + 1) % trainer.log_every_n_steps == 0 or trainer.should_stop
        line = self.global_step % LINE_EVERY == 0
        if not logs and not line:  # the same decision on all devices
            return
        speed = len(batch.pairs.target) / (time.perf_counter() - self._step_started)
        figures = mean_over_devices(self._figures)
        if logs:
            for name, value in figures.items():
                self.log(name, value, prog_bar=name in SHOWN)
            self.log("perf/images_per_second", speed)
            self.log("perf/memory_gb", peak_memory(self.device))
        if line and trainer.progress_bar_callback is None:
            end = f" of {self.steps}" if self.steps > 0 else ""
            loss = float(figures["train/loss/total"])
            self.print(f"step {self.global_step}{end}: loss {loss:.3f}, {speed:.1f} images/s")

    def on_train_end(self) -> None:
        """Print the counts of omitted photographs and skipped steps."""
        grey, unreadable, skipped = (self.counts[kind] for kind in ("grey", "unreadable", "skipped"))
        if grey or unreadable:
            self.print(f"left out while drawing: {grey} grey photographs, {unreadable} that could not be read")
        if skipped:
            self.print(f"steps skipped because a gradient was not finite: {skipped}")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Colorization:
        """Measure the averaged network's results against the truth, or against the reference if there is no truth.

        Returns:
            The results, ``out`` with the target's luminance, for the callbacks that show them.
        """
        pairs = batch.pairs
        # A device without validation pictures gets those of another device and must not count them.
        weight = float(cast(Any, self.trainer).datamodule.validates(dataloader_idx))
        shown = self(pairs.target, pairs.reference, *self._guide(batch))
        result = (shown.out + 1) / 2
        if dataloader_idx:
            reference = (pairs.reference + 1) / 2
            for measure in self.with_reference:
                cast(MeanMetric, self.validation[f"pairs_{measure.name}"]).update(measure(result, reference), weight)
            return shown
        truth = (pairs.truth + 1) / 2
        for who, picture in {"result": result, "grey": (pairs.target + 1) / 2}.items():
            for measure in self.with_truth:
                cast(MeanMetric, self.validation[f"{who}_{measure.name}"]).update(measure(picture, truth), weight)
        return shown

    def on_validation_epoch_end(self) -> None:
        """Log the measures of the results and of grey pictures, and the ratios of the two."""
        metrics = {name: cast(MeanMetric, metric) for name, metric in self.validation.items()}
        means = {name: metric.compute() for name, metric in metrics.items() if metric.update_called}
        for metric in metrics.values():
            metric.reset()
        for measure in self.with_reference:
            if f"pairs_{measure.name}" in means:
                self.log(f"val/pairs/{measure.name}", means[f"pairs_{measure.name}"])
        for measure in self.with_truth:
            value, grey = means[f"result_{measure.name}"], means[f"grey_{measure.name}"]
            if measure.summary == "over_grey":
                self.log(logged(measure.name), value / grey, prog_bar=True)
            else:
                self.log(logged(measure.name), value)
                self.log(f"val/grey/{measure.name}", grey)
        if self.trainer.is_global_zero and not self.trainer.sanity_checking:
            self._print_validation(means)

    def _print_validation(self, means: Mapping[str, Tensor]) -> None:
        """Print the measures that sweeps compare, the objective first and as a part of the grey result's."""
        objective, value, grey = MEASURES[OBJECTIVE], means[f"result_{OBJECTIVE}"], means[f"grey_{OBJECTIVE}"]
        if not math.isfinite(float(value / grey)):
            return
        line = f"step {self.global_step}: {objective.label} {value:.{objective.digits}f}, {100 * value / grey:.0f}%"
        line += f" of the grey result's {grey:.{objective.digits}f}"
        for measure in self.with_truth:
            if "sweeps" in measure.where and measure.summary == "mean" and measure is not objective:
                name, digits = measure.name, measure.digits
                line += (
                    f"; {measure.label} {means[f'result_{name}']:.{digits}f} (grey {means[f'grey_{name}']:.{digits}f})"
                )
        self.print(line)


def peak_memory(device: torch.device) -> float:
    """Return the peak memory of this process on its device in GB; NaN where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if resource is None:
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def in_parts(batch: Batch, count: int) -> list[Batch]:
    """Split a batch into ``count`` parts, each with its share of unpaired and paired rows."""
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
