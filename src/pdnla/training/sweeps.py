"""Sweeps: each run's ``result.json``, the table of all runs, and training a run in a subprocess."""

import csv
import json
import math
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pdnla.errors import Preempted, UserError
from pdnla.evaluation import measures
from pdnla.files import replacing
from pdnla.processes import is_first

OBJECTIVE = measures.logged(measures.OBJECTIVE)
MEASURES = measures.compared_in_sweeps()
FILE = "result.json"
STARTED, DONE, PRUNED, STOPPED = "started", "done", "pruned", "stopped"


@dataclass
class Result:
    """The result of one run.

    ``measures`` are those of the best validation, after ``step`` steps. A search minimises ``objective``. ``status`` is
    ``started``, ``done``, ``pruned``, ``stopped`` (by a signal; the run can be resumed) or ``failed: REASON``.
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
    def read(cls, folder: Path) -> "Result":
        """Read the result of the run in ``folder``."""
        return cls(**json.loads((folder / FILE).read_text()))

    def write(self, folder: Path) -> None:
        """Write ``result.json`` to ``folder``, in the first process of the run only."""
        if is_first():
            with replacing(folder / FILE) as temporary:
                temporary.write_text(json.dumps(asdict(self), indent=1))

    @property
    def failed(self) -> bool:
        """Whether the run failed; a run whose status is still ``started`` was killed."""
        return self.status.startswith(("failed", STARTED))


def read_results(folder: Path) -> list[Result]:
    """Return the results of the runs in the folder of a sweep, the best objective first and failed runs last."""
    results = [Result.read(file.parent) for file in folder.rglob(FILE)]
    badness = measures.MEASURES[measures.OBJECTIVE].badness

    def order(run: Result) -> tuple[bool, float, int]:
        objective = run.measures.get(OBJECTIVE)
        return run.failed, math.inf if objective is None else badness(objective), run.number or 0

    return sorted(results, key=order)


def write_tables(results: list[Result], folder: Path) -> tuple[list[str], list[list[str]]]:
    """Write ``results.csv`` and ``results.md`` to the folder of a sweep.

    ``results.csv`` has a column for every override. ``results.md`` has columns for the overrides in which the runs
    differ, and numbers with four digits.

    Returns:
        The header and the rows of ``results.md``.
    """
    overrides = [{key: value for key, _, value in (o.partition("=") for o in run.overrides)} for run in results]
    keys = list(dict.fromkeys(key for chosen in overrides for key in chosen))
    differing = [key for key in keys if len({chosen.get(key) for chosen in overrides}) > 1]

    with replacing(folder / "results.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_header(keys))
        writer.writerows(_row(*run, keys, shortened=False) for run in zip(results, overrides, strict=True))

    header = _header(differing)
    rows = [_row(*run, differing, shortened=True) for run in zip(results, overrides, strict=True)]
    with replacing(folder / "results.md") as temporary:
        lines = [header, ["---"] * len(header), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
        temporary.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")
    return header, rows


def _header(keys: list[str]) -> list[str]:
    return ["run", *keys, *MEASURES, "step", "seconds", "status"]


def _row(run: Result, overrides: dict[str, str], keys: list[str], shortened: bool) -> list[str]:
    number = "{:.4g}" if shortened else "{}"
    values = [number.format(run.measures[name]) if name in run.measures else "" for name in MEASURES]
    status = "failed: killed" if run.status == STARTED else run.status
    chosen = [overrides.get(key, "") for key in keys]
    if shortened:
        chosen = [_shortened(value) for value in chosen]
    step = "" if run.step is None else str(run.step)
    return [str(run.number), *chosen, *values, step, f"{run.seconds:.0f}", status]


def _shortened(value: str) -> str:
    """Return a fraction with four digits, because a search draws many, and any other value unchanged."""
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value


def train_in_subprocess(result: Result, folder: Path) -> None:
    """Train one run of a sweep in a subprocess and copy its result.

    Lightning starts the processes of further devices with the same command line, which must not be the sweep's. It also
    kills all of them, the first included, when one fails.

    Args:
        result: the result of the run, with its number and overrides.
        folder: the folder of the run.

    Raises:
        UserError: the run failed.
        Preempted: the run received SIGTERM.
    """
    own = [f'hydra.run.dir="{folder}"', "hydra.mode=RUN", f"hydra.job.num={result.number}"]
    with subprocess.Popen([sys.executable, "-m", "pdnla.cli.train", *result.overrides, *own]) as command:
        previous = signal.signal(signal.SIGTERM, lambda *_: command.terminate())
        try:
            status = command.wait()
        finally:
            signal.signal(signal.SIGTERM, previous)
    if status == Preempted.status:
        raise Preempted(folder / "last.ckpt")
    trained = Result.read(folder)
    if trained.failed:
        reason = trained.status.removeprefix("failed: ")
        raise UserError(f"its processes ended with status {status}" if reason == STARTED else reason)
    result.status, result.objective, result.step, result.measures = (
        trained.status,
        trained.objective,
        trained.step,
        trained.measures,
    )
