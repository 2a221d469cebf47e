"""The best validation of a run, and pruning: an early end for a run that is worse than others of its sweep."""

import json
import math
import statistics
from pathlib import Path

import pytorch_lightning as pl

from pdnla.evaluation import measures
from pdnla.files import replacing

OBJECTIVE = measures.logged(measures.OBJECTIVE)
_MEASURE = measures.MEASURES[measures.OBJECTIVE]
FILE = "validations.json"


class BestValidation(pl.Callback):
    """Keep the measures of the best validation, by the objective, and of the last one.

    Args:
        measures: logged names of the measures to keep.
    """

    def __init__(self, measures: tuple[str, ...]) -> None:
        self.measures = measures
        self.step: int | None = None
        self.best: dict[str, float] = {}
        self.last: dict[str, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the validation with the best."""
        if trainer.sanity_checking:
            return
        self.last = {name: float(trainer.callback_metrics[name]) for name in self.measures}
        value, badness = self.last[OBJECTIVE], _MEASURE.badness
        if math.isfinite(value) and (not self.best or badness(value) < badness(self.best[OBJECTIVE])):
            self.step, self.best = trainer.global_step, self.last


class PruneBadRuns(pl.Callback):
    """End a run that is worse than the other runs of its sweep, by the median rule of Golovin et al. (2017).

    A run ends at step s if its best objective up to s is worse than the median of the other runs' mean objectives up to
    s; only runs that ended without pruning count. Each run writes its values to ``validations.json``, so runs share
    only a file system. ``pruned`` says whether this run was ended.

    Args:
        folder: folder of the run; the folders next to it are the other runs.
        warmup_validations: number of first validations at which the run is never ended.
        least_runs: number of other runs that must have ended without pruning, at this step or later.
    """

    def __init__(self, folder: str, warmup_validations: int = 2, least_runs: int = 4) -> None:
        self.folder = Path(folder)
        self.warmup_validations, self.least_runs = warmup_validations, least_runs
        self.values: list[tuple[int, float]] = []
        self.pruned = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the value and end the run if it is bad."""
        if trainer.sanity_checking:
            return
        step = trainer.global_step
        self.values.append((step, float(trainer.callback_metrics[OBJECTIVE])))
        median = None
        if trainer.is_global_zero:
            self._write(ended=False)
            median = self.median(step)
        median = trainer.strategy.broadcast(median)
        finite = [value for _, value in self.values if math.isfinite(value)]
        best = min(finite, key=_MEASURE.badness, default=math.nan)
        worse = median is not None and not _MEASURE.badness(best) <= _MEASURE.badness(median)  # NaN counts as worse
        if worse and len(self.values) > self.warmup_validations:
            self.pruned = trainer.should_stop = True
            pl_module.print(
                f"step {step}: pruned, its {_MEASURE.label} is {best:.2f} at best and the median of the other runs is"
                f" {median:.2f}"
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let later runs be compared with this one, unless it was pruned."""
        if trainer.is_global_zero and not self.pruned:
            self._write(ended=True)

    def median(self, step: int) -> float | None:
        """Return the median of the other runs' mean values up to ``step``; None if there are too few runs."""
        means = []
        for file in self.folder.parent.glob(f"*/{FILE}"):
            if file.parent == self.folder:
                continue
            other = json.loads(file.read_text())
            until = [value for at, value in other["values"] if at <= step and math.isfinite(value)]
            if until and other["ended"] and other["values"][-1][0] >= step:
                means.append(statistics.fmean(until))
        return statistics.median(means) if len(means) >= self.least_runs else None

    def _write(self, ended: bool) -> None:
        with replacing(self.folder / FILE) as temporary:
            temporary.write_text(json.dumps({"ended": ended, "values": self.values}))
