"""Sweeps: each run's ``result.json``, one table of them all, and a run that starts processes of its own."""

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
from pdnla.training.distributed import is_first

OBJECTIVE = measures.logged(measures.OBJECTIVE)
MEASURES = measures.compared_in_sweeps()
FILE = "result.json"
STARTED, DONE, PRUNED, STOPPED = "started", "done", "pruned", "stopped"


@dataclass
class Result:
    """The result of one run.

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


def read_results(folder: Path) -> list[Result]:
    """Return the results of the runs in the folder of a sweep: the best objective first, failed runs last."""
    results = [Result.read(file.parent) for file in folder.rglob(FILE)]
    badness = measures.MEASURES[measures.OBJECTIVE].badness

    def order(run: Result) -> tuple[bool, float, int]:
        objective = run.measures.get(OBJECTIVE)
        return run.failed, math.inf if objective is None else badness(objective), run.number or 0

    return sorted(results, key=order)


def write_tables(results: list[Result], folder: Path) -> tuple[list[str], list[list[str]]]:
    """Write ``results.csv`` and ``results.md`` in the folder of a sweep.

    The first has a column for every override; the other for those in which the runs differ, and numbers to four digits.

    Returns:
        the header and the rows of the second.
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


def train_apart(result: Result, folder: Path) -> None:
    """Train one run of a sweep by a command of its own, and take its result over.

    Lightning starts the processes of further devices by the command line again, which must not be the sweep's; and it
    kills them all, the first included, when one fails.

    Args:
        result: the run's, with its number and overrides.
        folder: the run's.

    Raises:
        UserError: the run failed.
        Preempted: it was told to leave.
    """
    own = [f'hydra.run.dir="{folder}"', "hydra.mode=RUN", f"hydra.job.num={result.number}"]
    with subprocess.Popen([sys.executable, "-m", "pdnla.cli.train", *result.overrides, *own]) as command:
        before = signal.signal(signal.SIGTERM, lambda *_: command.terminate())
        try:
            status = command.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if status == Preempted.status:
        raise Preempted(folder / "last.ckpt")
    left = Result.read(folder)
    if left.failed:
        reason = left.status.removeprefix("failed: ")
        raise UserError(f"its processes ended with status {status}" if reason == STARTED else reason)
    result.status, result.objective, result.step, result.measures = (
        left.status,
        left.objective,
        left.step,
        left.measures,
    )
