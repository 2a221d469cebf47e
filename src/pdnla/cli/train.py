"""``pdnla-train``: compose a configuration, train, and write all results to one folder."""

import gc
import logging
import os
import time
import traceback
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pdnla.cli.command import run
from pdnla.cli.composition import HydraBypass, explain, prepare_arguments, sentence
from pdnla.cli.sweep import SweepStart, conclude
from pdnla.configuration import config_folder, follow_moves
from pdnla.errors import Preempted, UserError
from pdnla.files import replacing
from pdnla.memory import keep_freed_memory
from pdnla.options import check_options
from pdnla.processes import is_first, process_count
from pdnla.training import sweeps
from pdnla.training.distributed import single_process
from pdnla.training.options import OPTIONS
from pdnla.training.sweeps import Result

log = logging.getLogger(__name__)

SOME_FAILED = 1
_NO_BEST_RUN = "No trials are completed"  # how Optuna says it, in a ValueError


def train(config: DictConfig) -> float | None:
    """Train with a configuration; all results go to Hydra's output folder of the run.

    Returns:
        The objective that a search minimises: ``val/chroma_error`` of the best validation, of the last one if the run
        was pruned, or None without a validation.

    Raises:
        UserError: the configuration names something that does not exist.
    """
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    number = None if OmegaConf.is_missing(hydra_config.job, "num") else int(hydra_config.job.num)
    result = Result(number, list(hydra_config.overrides.task))
    result.write(folder)
    began = time.monotonic()
    try:
        follow_moves(config)
        check_options(config, OPTIONS)
        sweeping = hydra_config.mode == RunMode.MULTIRUN
        if sweeping and process_count() == 1 and not single_process(config.trainer):
            if config.trainer.num_nodes > 1:
                raise UserError(
                    f"trainer.num_nodes={config.trainer.num_nodes}: each run of a sweep uses one machine; use"
                    " hydra/launcher=submitit_slurm, or scripts/slurm_train.sh for each run"
                )
            sweeps.train_in_subprocess(result, folder)
        else:
            _train_here(config, result)
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


def _train_here(config: DictConfig, result: Result) -> None:
    keep_freed_memory()
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    from pdnla.training.run import train_network  # importing torch and Lightning takes seconds

    for package in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)  # their import sets INFO
    if not is_first():
        logging.getLogger().setLevel(logging.ERROR)  # only the first process prints
    train_network(config, result)


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
def _compose_and_train(config: DictConfig) -> float | None:
    try:
        return train(config)
    except Exception as error:
        explained = explain(error, "train")
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            _report_failure(error, explained)
            return None
        if explained:
            raise HydraBypass(explained) from error
        raise
    finally:
        gc.collect()  # a reference cycle of network and trainer; the next run of a sweep needs the memory


def _report_failure(error: Exception, explained: UserError | None) -> None:
    """Log in one line that a run of a sweep failed; the traceback of a bug goes to the run's folder."""
    hydra_config = HydraConfig.get()
    reason = str(explained)
    if explained is None:
        file = Path(hydra_config.runtime.output_dir) / "traceback.txt"
        with replacing(file) as temporary:
            temporary.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="replace")
        reason = f"{type(error).__name__}: {sentence(error)}; see {file}"
    log.error("run %s (%s) failed: %s", hydra_config.job.num, " ".join(hydra_config.overrides.task), reason)


def main() -> None:
    """Run the command."""
    # Otherwise Hydra prints its own traceback and exits with status 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    SweepStart.folder = None

    def command() -> int:
        prepare_arguments()
        failure: Exception | None = None
        try:
            status = train_all()
        except Exception as error:
            failure, status = error, SOME_FAILED
        finally:
            results = conclude(SweepStart.folder) if SweepStart.folder else []
        failed = [result for result in results if result.failed]
        if isinstance(failure, UserError) and results:
            log.error("the sweep ended early: %s", failure)
        elif failure and (not results or len(failed) < len(results)):  # a search whose runs all failed has no best run
            if _NO_BEST_RUN not in str(failure) or any(result.objective is not None for result in results):
                raise failure
            log.error(
                "the search has no best run, because none was validated; trainer.val_check_interval must be at most the"
                " number of steps"
            )
        return status or (SOME_FAILED if failed else 0)

    def train_all() -> int:
        try:
            _compose_and_train()
        except HydraBypass as error:
            raise error.reason from error
        except Preempted:
            return Preempted.status
        except Exception as error:
            explained = explain(error, "train")
            if explained is None:
                raise
            raise explained from error
        return 0

    run("pdnla-train", command)


if __name__ == "__main__":
    main()
