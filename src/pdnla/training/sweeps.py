"""What the runs of a sweep leave: a ``result.json`` each, and one table of them all."""

import csv
import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pdnla.cli._hydra import Explained
from pdnla.errors import UserError
from pdnla.evaluation import measures
from pdnla.files import replacing

OBJECTIVE = measures.logged(measures.OBJECTIVE)
MEASURES = measures.compared_in_sweeps()
FILE = "result.json"
STARTED, DONE, PRUNED, STOPPED = "started", "done", "pruned", "stopped"


class SweepStart(Callback):
    """Hydra's callback that remembers where the sweep under way writes; ``folder`` is None before one starts."""

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder.

        Raises:
            Explained: this is one of several processes, which would each start the sweep, or the folder has results.
        """
        if processes() > 1:
            launchers = "leave out torchrun or srun: each run starts the processes of its trainer.devices itself"
            raise Explained(UserError(f"-m: a sweep is started by one process and this is one of several; {launchers}"))
        folder = Path(config.hydra.sweep.dir).absolute()
        if read_results(folder):
            raise Explained(UserError(f"hydra.sweep.dir={folder}: holds the results of a sweep; choose another folder"))
        SweepStart.folder = folder


@dataclass
class Result:
    """What came of one run.

    ``measures`` are those of the best validation, after ``step`` steps; ``objective`` is what a search minimises;
    ``status`` is ``started``, ``done``, ``pruned``, ``stopped`` (told to leave, can be resumed) or ``failed: REASON``;
    ``number`` is None outside a sweep.
    """

    number: int | None
    overrides: list[str]
    status: str = STARTED
    seconds: float = 0.0
    step: int | None = None
    measures: dict[str, float] = field(default_factory=dict)
    objective: float | None = None

    @classmethod
    def of_this_run(cls) -> "Result":
        """Return the result of the run that Hydra has just started."""
        hydra = HydraConfig.get()
        number = None if OmegaConf.is_missing(hydra.job, "num") else int(hydra.job.num)
        return cls(number, list(hydra.overrides.task))

    @classmethod
    def read(cls, folder: Path) -> "Result":
        """Return what the run in ``folder`` has left."""
        return cls(**json.loads((folder / FILE).read_text()))

    def write(self, folder: Path) -> None:
        """Write ``result.json`` in ``folder``, if this is the first of the run's processes."""
        if is_first():
            with replacing(folder / FILE) as temporary:
                temporary.write_text(json.dumps(asdict(self), indent=1))

    @property
    def failed(self) -> bool:
        """Return whether the run failed; one that never wrote its end was killed."""
        return self.status.startswith(("failed", STARTED))


def processes() -> int:
    """Return how many processes torchrun or srun started this command in, 1 without them."""
    return max(int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))


def is_first() -> bool:
    """Return whether this is the first of a run's processes, however they were started."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return not any(int(os.environ.get(name, 0)) for name in ranks)


def read_results(folder: Path) -> list[Result]:
    """Return the results of the runs in the folder of a sweep: the best objective first, failed runs last."""
    results = [Result.read(file.parent) for file in folder.rglob(FILE)]
    badness = measures.MEASURES[measures.OBJECTIVE].badness

    def order(run: Result) -> tuple[bool, float, int]:
        objective = run.measures.get(OBJECTIVE)
        return run.failed, math.inf if objective is None else badness(objective), run.number or 0

    return sorted(results, key=order)


def conclude(folder: Path) -> list[Result]:
    """Write ``results.csv`` and ``results.md`` in the folder of a sweep and print them; return the results.

    Nothing is written where no run began. The first has a column for every override; the other two for those in which
    the runs differ.
    """
    results = read_results(folder)
    if not results:
        return []
    overrides = [{key: value for key, _, value in (o.partition("=") for o in run.overrides)} for run in results]
    keys = list(dict.fromkeys(key for chosen in overrides for key in chosen))
    differing = [key for key in keys if len({chosen.get(key) for chosen in overrides}) > 1]

    with replacing(folder / "results.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_header(keys))
        writer.writerows(_row(*run, keys, shortened=False) for run in zip(results, overrides, strict=True))

    header = _header(differing)
    rows = [_row(*run, differing, shortened=True) for run in zip(results, overrides, strict=True)]
    with replacing(folder / "results.md") as temporary:
        lines = [header, ["---"] * len(header), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
        temporary.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))

    table = Table(*map(escape, header), title=escape(f"{folder}/results.csv, results.md"), title_justify="left")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    if not console.is_terminal:
        console.width = 200  # nothing is folded that a file has room for
    console.print(table)
    return results


def _header(keys: list[str]) -> list[str]:
    return ["run", *keys, *MEASURES, "step", "seconds", "status"]


def _row(run: Result, overrides: dict[str, str], keys: list[str], shortened: bool) -> list[str]:
    number = "{:.4g}" if shortened else "{}"
    values = [number.format(run.measures[name]) if name in run.measures else "" for name in MEASURES]
    status = "failed: ended before its time" if run.status == STARTED else run.status
    chosen = [overrides.get(key, "") for key in keys]
    if shortened:
        chosen = [_shortened(value) for value in chosen]
    step = "" if run.step is None else str(run.step)
    return [str(run.number), *chosen, *values, step, f"{run.seconds:.0f}", status]


def _shortened(value: str) -> str:
    """Return a fraction to four digits, as a search draws them with many, and anything else as it is."""
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value
