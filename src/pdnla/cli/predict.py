"""``pdnla-predict``: colour very many pictures, on several devices and machines."""

import csv
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig
from rich.console import Console

from pdnla.cli._hydra import check_numbers, run_composed
from pdnla.cli._run import progress_bar
from pdnla.configuration import record
from pdnla.data.pairing import read_pairs
from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.inference.album import Job, plan_jobs, plan_pairs, plan_shards
from pdnla.training.distributed import end_together, is_first, trainer_strategy

if TYPE_CHECKING:  # torch takes seconds to import
    from pdnla.inference.prediction import Totals

log = logging.getLogger(__name__)

SOME_FAILED = 1
_LINES = 20  # of progress at most, where there is no terminal


def predict(config: DictConfig) -> int:
    """Colour as ``config`` says.

    Returns:
        the command's exit status: 0, or 1 if pictures could not be coloured.

    Raises:
        UserError: the configuration asks for what is not there, or nothing could be coloured.
    """
    check_numbers(config, "predict")
    if config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size}: must be at least 1")
    out = Path(config.out)
    jobs, unmatched = plan(config)
    if not jobs:
        raise UserError(f"targets={config.targets}: no target has a reference; the first: {unmatched[0]}")
    import pytorch_lightning as pl

    from pdnla.inference.prediction import Prediction, ResultsWriter

    for chatty in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    if is_first():
        record(config, out / ".predict")
    module = Prediction(
        jobs,
        config.batch_size,
        config.overwrite,
        weights=config.weights,
        precision=config.precision,
        size=config.size,
        compile=config.compile,
    )
    with _progress(module) as tell:
        writer = ResultsWriter(tell)
        trainer: pl.Trainer = hydra.utils.instantiate(
            config.trainer,
            logger=False,
            callbacks=[writer],
            precision="32-true",  # of what Lightning itself does; the colorizer has its own
            strategy=trainer_strategy(config.trainer),
            enable_progress_bar=False,
            enable_checkpointing=False,
        )
        trainer.predict(module, return_predictions=False)
    end_together()
    totals = writer.totals
    assert totals is not None
    if not trainer.is_global_zero:
        return 0
    return _conclude(totals, unmatched, out, trainer.world_size)


def plan(config: DictConfig) -> tuple[list[Job], list[str]]:
    """Return the jobs, the same on every device, and a sentence for each target without a reference.

    Raises:
        UserError: targets or references are missing, or do not go together.
    """
    given = [name for name in ("targets", "references") if config[name] is not None]
    if config.pairs_file is not None:
        if given:
            raise UserError(f"{given[0]}={config[given[0]]}: pairs_file is given as well; leave one of them out")
        return plan_pairs(read_pairs(Path(config.pairs_file)), Path(config.out)), []
    if len(given) < 2:
        missing = "references" if given == ["targets"] else "targets"
        raise UserError(f"{missing} is not set; give targets=FOLDER references=PICTURE, or pairs_file=FILE")
    targets, references, out = Path(config.targets), Path(config.references), Path(config.out)
    if (targets / "plan.json").is_file():
        from pdnla.data.shards import Shards

        if not references.is_file():
            raise UserError(f"references={references}: must be one picture where the targets are shards")
        return plan_shards(Shards(targets), references, out), []
    if targets.exists() and not targets.is_dir():
        raise UserError(f"targets={targets}: is a file; name a folder, or use pdnla-colorize for one picture")
    found = plan_jobs(targets, references, out)
    if found.remark:
        log.info("%s", found.remark)
    return found.jobs, found.unmatched


@contextmanager
def _progress(module: Any) -> Iterator[Any]:
    """Yield what counts this device's pictures as they are done: the first device shows them, all say what failed."""
    console = Console(stderr=True)
    done = 0
    with progress_bar("colouring", console) as bar:
        task = bar.add_task("", total=None)

        def tell() -> None:
            nonlocal done
            done += 1
            total = len(module.share.jobs)
            if not module.trainer.is_global_zero:
                return
            bar.update(task, completed=done, total=total)
            step = max(1, -(-total // _LINES))
            if not console.is_terminal and (done % step == 0 or done == total):
                whose = "" if module.trainer.world_size == 1 else " of the first device's"
                print(f"{done}/{total} pictures{whose}", flush=True)

        def failed(sentence: str) -> None:
            print(f"failed: {sentence}", file=sys.stderr, flush=True)
            tell()

        module.on_failure = failed
        yield tell


def _conclude(totals: "Totals", unmatched: list[str], out: Path, devices: int) -> int:
    """Say what came of it; leave a list of what failed, if anything did."""
    for sentence in unmatched:
        print(f"failed: {sentence}", file=sys.stderr)
    failures = [*unmatched, *totals.failures]
    list_of_failures = out / ".predict" / "failed.csv"
    list_of_failures.unlink(missing_ok=True)
    if failures:
        with replacing(list_of_failures) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["reason"], *([sentence] for sentence in failures)])
    speed = f", {totals.coloured / totals.seconds:.2f} pictures/s on {devices} device(s)" if totals.coloured else ""
    print(f"{totals.coloured} coloured, {totals.skipped} skipped, {len(failures)} failed{speed}", flush=True)
    if failures and not totals.coloured and not totals.skipped:
        raise UserError(f"out={out}: nothing could be coloured; the reasons are in {list_of_failures}")
    return SOME_FAILED if failures else 0


def main() -> None:
    """Run the command."""
    run_composed("predict", predict)


if __name__ == "__main__":
    main()
