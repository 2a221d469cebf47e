"""The training run of a composed configuration."""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.callbacks import RichProgressBar, Timer

from pdnla.configuration import record
from pdnla.devices import choose_device, choose_precision
from pdnla.errors import Preempted, UserError
from pdnla.processes import is_first
from pdnla.training import sweeps
from pdnla.training.distributed import end_together, trainer_strategy
from pdnla.training.module import ColorizationModule
from pdnla.training.pruning import BestValidation, PruneBadRuns
from pdnla.training.resuming import check_prior, keep_metrics, resume_from, start_from
from pdnla.training.sweeps import Result
from pdnla.training.wandb_report import wandb_loggers

log = logging.getLogger(__name__)

SHARED_MEMORY = re.compile(r"shared memory\(shm\)|out of shared memory|</torch_|Bus error")
"""Messages of torch when /dev/shm is too small for worker processes; there is no exception class for this."""


def train_network(config: DictConfig, result: Result) -> None:
    """Train with a configuration and fill in ``result``.

    All files go to ``trainer.default_root_dir``.

    Raises:
        UserError: the configuration names something that does not exist.
        Preempted: the run received SIGTERM.
    """
    folder = Path(config.trainer.default_root_dir)
    if is_first():
        keep_metrics(folder)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    network = instantiate(config.model)
    start_from(config.weights, network)
    checkpoint = resume_from(config.ckpt_path, network, seconds(config.trainer.max_time), config.trainer.max_steps)
    if checkpoint is None:
        check_prior(network)
    data = instantiate(config.data, backbone=config.backbone)
    # Converted, because checkpoints keep an optimiser's lists and must hold no objects of Hydra's.
    optimizer, critic_optimizer = (instantiate(c, _convert_="all") for c in (config.optim, config.critic_optim))
    module = ColorizationModule(
        network,
        instantiate(config.loss),
        optimizer,
        steps=config.trainer.max_steps,
        critic_optimizer=critic_optimizer,
        backbone=config.backbone,
        **config.schedule,
    )
    loggers = [instantiate(logger) for logger in config.logger.values()]
    callbacks = [instantiate(callback) for callback in config.callbacks.values() if callback is not None]
    progress = config.trainer.enable_progress_bar and sys.stderr.isatty()
    validations = BestValidation(sweeps.MEASURES)
    trainer: pl.Trainer = instantiate(
        config.trainer,
        logger=loggers or False,
        callbacks=[*callbacks, *([RichProgressBar(leave=True)] if progress else []), validations],
        precision=trainer_precision(config.trainer.precision, config.trainer.accelerator),
        strategy=trainer_strategy(config.trainer),
        enable_progress_bar=progress,
    )
    if trainer.is_global_zero:
        record(config, folder)
    log.info("writing to %s", folder)
    try:
        fit(trainer, module, data, checkpoint)
    finally:
        for logger in wandb_loggers(trainer):  # otherwise the next run of a sweep would write to it
            logger.experiment.finish()
        result.step, result.measures = validations.step, validations.best
    if trainer.checkpoint_callback is not None:
        trainer.save_checkpoint(folder / "last.ckpt")
    end_together()
    pruned = any(isinstance(callback, PruneBadRuns) and callback.pruned for callback in callbacks)
    result.status = sweeps.PRUNED if pruned else sweeps.DONE
    result.objective = (validations.last if pruned else validations.best).get(sweeps.OBJECTIVE)
    if out_of_time(trainer):
        log.info(
            "trainer.max_time=%s is over after %d of trainer.max_steps=%s steps; to go on, give it more and resume"
            " with ckpt_path=%s",
            *(config.trainer.max_time, trainer.global_step, config.trainer.max_steps, folder / "last.ckpt"),
        )
    log.info("the run is in %s", folder)


def fit(trainer: pl.Trainer, module: ColorizationModule, data: pl.LightningDataModule, checkpoint: str | None) -> None:
    """Train, from a checkpoint if one is given.

    Raises:
        UserError: the reading processes have too little shared memory.
        Preempted: the run received SIGTERM.
    """
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    except Preempted as preempted:
        log.warning("%s; resume with ckpt_path=%s", preempted, preempted.checkpoint)
        raise
    except (RuntimeError, OSError) as error:
        if SHARED_MEMORY.search(str(error)):
            raise UserError(
                "data.workers: the processes that read photographs have too little shared memory (/dev/shm) for the"
                " batches; give the machine or container more, such as docker run --shm-size=2g, or set data.workers=0"
            ) from error
        raise


def seconds(duration: str | None) -> float | None:
    """Convert ``DAYS:HOURS:MINUTES:SECONDS`` to seconds."""
    if duration is None:
        return None
    days, hours, minutes, rest = (int(part) for part in duration.split(":"))
    return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)


def out_of_time(trainer: pl.Trainer) -> bool:
    """Return whether the run has used up ``trainer.max_time``."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]
    return any((timer.time_remaining() or 0.0) <= 0 for timer in timers)


def trainer_precision(precision: str, accelerator: str) -> Any:
    """Return Lightning's name of a precision; ``auto`` is bfloat16 where the hardware supports it."""
    device = choose_device("cpu" if accelerator == "cpu" else "auto")
    if str(precision) != "auto":
        if str(precision).startswith("bf16"):
            choose_precision("bfloat16", device)  # for its warning
        return precision
    return "bf16-mixed" if choose_precision("auto", device) == torch.bfloat16 else "32-true"
