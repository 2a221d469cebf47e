"""``pdnla-train``: compose a configuration, train, and leave a folder with all that came of it."""

import gc
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pdnla.cli._hydra import Explained, check_numbers, config_folder, explain, record, sentence
from pdnla.cli._run import PREEMPTED, run
from pdnla.errors import Preempted, UserError
from pdnla.files import replacing
from pdnla.training import sweeps
from pdnla.training.sweeps import Result, SweepStart

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import nn

log = logging.getLogger(__name__)

SOME_FAILED = 1


def train(config: DictConfig) -> float | None:
    """Train as ``config`` says; everything is written under Hydra's output folder of the run.

    Returns:
        ``val/chroma_error`` of the best validation, of the last one of a run that was pruned, or None without any:
        what a search minimises.

    Raises:
        UserError: the configuration asks for what is not there.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    result = Result.of_this_run()
    result.write(folder)
    began = time.monotonic()
    try:
        sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
        apart = sweeping and sweeps.processes() == 1 and trainer_strategy(config.trainer) != "auto"
        (_train_apart if apart else _train)(config, result)
    except Exception as error:
        result.status = f"failed: {explain(error, 'train') or f'{type(error).__name__}: {sentence(error)}'}"
        raise
    except BaseException:
        result.status = sweeps.STOPPED
        raise
    finally:
        result.seconds = time.monotonic() - began
        result.write(folder)
    return result.objective


def _train(config: DictConfig, result: Result) -> None:
    import pytorch_lightning as pl

    from pdnla.memory import keep_freed_memory
    from pdnla.training.distributed import end_together
    from pdnla.training.module import ColorizationModule
    from pdnla.training.pruning import BestValidation, PruneBadRuns
    from pdnla.weights import build_network, check_model, read_weights

    for chatty in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # their import sets INFO
    if not sweeps.is_first():
        logging.getLogger().setLevel(logging.ERROR)  # the first process speaks for all
    check_numbers(config, "train")
    keep_freed_memory()
    folder = Path(config.trainer.default_root_dir)
    if sweeps.is_first():
        keep_metrics(folder)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    network = hydra.utils.instantiate(config.model)
    if config.weights:
        start = read_weights(config.weights)
        check_model(f"weights={config.weights}", start, network)
        network.load_state_dict(build_network(start, config.weights).state_dict())
    checkpoint = resume_from(config.ckpt_path, network)
    data = hydra.utils.instantiate(config.data, backbone=config.backbone)
    module = ColorizationModule(
        network,
        hydra.utils.instantiate(config.loss),
        hydra.utils.instantiate(config.optim),
        steps=config.trainer.max_steps,
        critic_optimizer=hydra.utils.instantiate(config.critic_optim),
        backbone=config.backbone,
        **config.schedule,
    )
    loggers = [hydra.utils.instantiate(c) for c in config.logger.values() if isinstance(c, DictConfig)]
    callbacks = [hydra.utils.instantiate(c) for c in config.callbacks.values() if isinstance(c, DictConfig)]
    progress = config.trainer.enable_progress_bar and sys.stderr.isatty()
    if progress:
        callbacks.append(pl.callbacks.RichProgressBar(leave=True))
    validations = BestValidation(sweeps.MEASURES)
    trainer: pl.Trainer = hydra.utils.instantiate(
        config.trainer,
        logger=loggers or False,
        callbacks=[*callbacks, validations],
        precision=trainer_precision(config.trainer.precision, config.trainer.accelerator),
        strategy=trainer_strategy(config.trainer),
        enable_progress_bar=progress,
    )
    if trainer.is_global_zero:
        record(config, folder)
    log.info("writing to %s", folder)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    except Preempted as leaving:
        log.warning("%s; resume with ckpt_path=%s", leaving, leaving.checkpoint)
        raise
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.WandbLogger):
                logger.experiment.finish()  # or the next run of a sweep would go on writing to this one
        result.step, result.measures = validations.step, validations.best
    if trainer.checkpoint_callback is not None:
        trainer.save_checkpoint(folder / "last.ckpt")
    end_together()
    pruned = any(isinstance(callback, PruneBadRuns) and callback.pruned for callback in callbacks)
    result.status = sweeps.PRUNED if pruned else sweeps.DONE
    result.objective = (validations.last if pruned else validations.best).get(sweeps.OBJECTIVE)
    log.info("the run is in %s", folder)


def _train_apart(config: DictConfig, result: Result) -> None:
    """Train by a command of its own.

    Lightning starts the processes of further devices by the command line again, which must not be the sweep's; and it
    kills them all, the first included, when one fails.
    """

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if config.trainer.num_nodes > 1:
        raise UserError(
            f"trainer.num_nodes={config.trainer.num_nodes}: a sweep's runs are of one machine; use"
            " hydra/launcher=submitit_slurm, or scripts/slurm_train.sh for each run"
        )
    own = [f'hydra.run.dir="{folder}"', "hydra.mode=RUN", f"hydra.job.num={hydra_config.job.num}"]
    with subprocess.Popen([sys.executable, "-m", "pdnla.cli.train", *result.overrides, *own]) as command:
        before = signal.signal(signal.SIGTERM, lambda *_: command.terminate())
        try:
            status = command.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if status == PREEMPTED:
        raise Preempted(folder / "last.ckpt")
    found = Result.read(folder)
    if found.failed:
        reason = found.status.removeprefix("failed: ")
        raise UserError(f"its processes ended with status {status}" if reason == sweeps.STARTED else reason)
    result.status, result.objective = found.status, found.objective
    result.step, result.measures = found.step, found.measures


def keep_metrics(folder: Path) -> None:
    """Move the ``metrics.csv`` of an earlier part of a run aside: Lightning's logger begins by deleting it."""
    metrics = folder / "metrics.csv"
    if metrics.is_file():
        part = next(n for n in itertools.count(1) if not (folder / f"metrics_{n}.csv").exists())
        metrics.rename(folder / f"metrics_{part}.csv")


def resume_from(path: str | None, network: "nn.Module") -> str | None:
    """Return the checkpoint to resume from, having looked that it is one of this model.

    A folder means the newest whole checkpoint in it: one that a crash left truncated is skipped with a warning.

    Raises:
        UserError: there is none, or it is of no run of this model.
    """
    if path is None:
        return None
    if not Path(path).is_dir():
        _check_checkpoint(path, network)
        return path
    found = sorted(Path(path).glob("*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in found:
        try:
            _check_checkpoint(str(file), network)
        except UserError as error:
            log.warning("skipped: %s", error)
        else:
            log.info("resuming from %s", file)
            return str(file)
    raise UserError(f"ckpt_path={path}: holds no checkpoint that can be resumed; name another run's folder")


def _check_checkpoint(path: str, network: "nn.Module") -> None:
    from pdnla.checkpoints import load_pickle
    from pdnla.weights import check_model, read_weights

    found = read_weights(path)
    if Path(path).suffix == ".safetensors" or "optimizer_states" not in load_pickle(Path(path)):
        raise UserError(f"ckpt_path={path}: holds weights alone; use weights={path} to start a new training from them")
    check_model(f"ckpt_path={path}", found, network, resuming=True)


def trainer_strategy(trainer: DictConfig) -> Any:
    """Return how devices work together: with several, their gradients are averaged by the training loop itself."""
    if trainer.strategy not in ("auto", "ddp"):
        given = trainer.strategy
        return hydra.utils.instantiate(given) if isinstance(given, DictConfig) else given
    devices = trainer.devices
    if trainer.strategy == "auto" and trainer.num_nodes == 1 and str(devices) in ("1", "auto", "-1"):
        import torch

        alone = str(devices) == "1" or trainer.accelerator == "cpu" or torch.cuda.device_count() < 2
        if alone:
            return "auto"
    from pdnla.training.distributed import AveragedGradients

    return AveragedGradients()


def trainer_precision(precision: str, accelerator: str) -> str:
    """Return Lightning's name of a precision; ``auto`` is bfloat16 where the hardware has it."""
    if str(precision) != "auto":
        return precision
    import torch

    from pdnla.devices import choose_device, choose_precision

    device = choose_device("cpu" if accelerator == "cpu" else "auto")
    return "bf16-mixed" if choose_precision("auto", device) == torch.bfloat16 else "32-true"


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
def _compose_and_train(config: DictConfig) -> float | None:
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    try:
        return train(config)
    except Exception as error:
        explained = explain(error, "train")
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            _report_failure(error, explained)
            return None
        if explained:
            raise Explained(explained) from error
        raise
    finally:
        gc.collect()  # network and trainer refer to each other, and the next run of a sweep needs their memory


def _report_failure(error: Exception, explained: UserError | None) -> None:
    """Say in one line that a run of a sweep failed; a fault of ours leaves its traceback in the run's folder."""
    hydra_config = HydraConfig.get()
    reason = str(explained)
    if explained is None:
        file = Path(hydra_config.runtime.output_dir) / "traceback.txt"
        with replacing(file) as temporary:
            temporary.write_text("".join(traceback.format_exception(error)))
        reason = f"{type(error).__name__}: {sentence(error)}; see {file}"
    log.error("run %s (%s) failed: %s", hydra_config.job.num, " ".join(hydra_config.overrides.task), reason)


def main() -> None:
    """Run the command."""
    # Hydra would print its own traceback and leave with status 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    SweepStart.folder = None

    def command() -> int:
        failure: Exception | None = None
        try:
            status = train_all()
        except Exception as error:
            failure, status = error, SOME_FAILED
        finally:
            results = sweeps.conclude(SweepStart.folder) if SweepStart.folder else []
        failed = [result for result in results if result.failed]
        if isinstance(failure, UserError) and results:
            log.error("the sweep ended early: %s", failure)
        elif failure and (not results or len(failed) < len(results)):  # a search in which all failed has no best
            raise failure
        return status or (SOME_FAILED if failed else 0)

    def train_all() -> int:
        try:
            _compose_and_train()
        except Explained as error:
            raise error.reason from error
        except Preempted:
            return PREEMPTED
        except Exception as error:
            explained = explain(error, "train")
            if explained is None:
                raise
            raise explained from error
        return 0

    run("pdnla-train", command)


if __name__ == "__main__":
    main()
