"""``pdnla-eval``: measure weights beside baselines and published results, and leave a page to look at."""

import logging
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from pdnla.cli._hydra import check_numbers, record, revision, run_composed
from pdnla.cli._run import progress_bar
from pdnla.errors import UserError
from pdnla.training import sweeps

if TYPE_CHECKING:  # torch takes seconds to import, and --help needs none of it
    from pdnla.evaluation.runner import Evaluation, Progress

log = logging.getLogger(__name__)

_LINES = 20  # of progress at most, where there is no terminal


def evaluate(config: DictConfig) -> "Evaluation":
    """Evaluate as ``config`` says; everything is written under Hydra's output folder of the run.

    Raises:
        UserError: the configuration asks for what is not there.
    """
    import torch

    from pdnla.evaluation import downloads, methods, report, runner

    check_numbers(config, "eval")
    _check(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    weights: Any = OmegaConf.to_container(config.weights) if OmegaConf.is_config(config.weights) else config.weights
    methods.check_baselines(config.baselines)
    protocol = hydra.utils.instantiate(config.protocol)  # before the measures, which may wait for a download
    settings = runner.Settings(
        weights=methods.name_weights(weights),
        baselines=tuple(config.baselines),
        size=config.size,
        device=config.device,
        precision=config.precision,
        available=downloads.available(config.measures),
        side=config.report.side if config.report.pictures else 0,
    )
    if not settings.weights and not settings.baselines:
        raise UserError("there is nothing to evaluate; give weights=FILE, or name some baselines")
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    record(config, folder)
    pictures = folder / ".pictures"
    chosen = HydraConfig.get().runtime.choices["protocol"]
    try:
        with _progress(len(protocol)) as progress:
            evaluation = runner.evaluate({chosen: protocol}, settings, config.devices, pictures, progress)[chosen]
        for sentence in evaluation.left_out:
            log.warning("left out: %s", sentence)
        count = f"{len(evaluation.records)} pictures"
        versions = {"pdnla": revision(), "torch": torch.__version__, "python": platform.python_version()}
        configuration = OmegaConf.to_container(config, resolve=True)
        assert isinstance(configuration, dict)
        report.write_metrics(evaluation, folder, {str(key): value for key, value in configuration.items()}, versions)
        report.write_page(
            evaluation,
            folder / "report.html",
            pictures / chosen,
            config.report.pictures,
            f"Evaluation: {chosen}",
            [count, f"{len(evaluation.methods)} methods", versions["pdnla"]],
            OmegaConf.to_yaml(config, resolve=True),
        )
    finally:
        shutil.rmtree(pictures, ignore_errors=True)
    _print(evaluation, f"{chosen}, {count}: {folder}/report.html, metrics.csv, metrics.json")
    return evaluation


def _check(config: DictConfig) -> None:
    """Raise :class:`UserError` for what no part of the evaluation would notice in time."""
    if sweeps.processes() > 1:
        raise UserError("leave out torchrun or srun: devices=N starts the processes of an evaluation itself")
    for key, least in (("devices", 1), ("report.pictures", 0), ("report.side", 16)):
        value = OmegaConf.select(config, key)
        if value < least:
            raise UserError(f"{key}={value}: must be at least {least}")


@contextmanager
def _progress(total: int) -> Iterator["Progress"]:
    """Yield a function of the number of pictures done: it moves a bar on a terminal and prints lines elsewhere."""
    console = Console(stderr=True)
    step = max(1, -(-total // _LINES))
    shown = 0
    with progress_bar("evaluating", console) as bar:
        task = bar.add_task("", total=total)

        def progress(done: int) -> None:
            nonlocal shown
            bar.update(task, completed=done)
            if not console.is_terminal and done != shown and (done // step > shown // step or done == total):
                shown = done
                print(f"evaluated {done}/{total} pictures", flush=True)

        yield progress


def _print(evaluation: "Evaluation", title: str) -> None:
    from pdnla.evaluation import report
    from pdnla.evaluation.measures import MEASURES

    table = Table("", title=title, title_justify="left")
    for measure in evaluation.measures:
        table.add_column(f"{MEASURES[measure].label} {report.ARROWS[MEASURES[measure].better]}", justify="right")
    winners = {measure: report.ranked(evaluation, measure) for measure in evaluation.measures}
    for method in evaluation.methods:
        cells = []
        for measure in evaluation.measures:
            cell = report.printed(evaluation, method, measure)
            cells.append(f"[bold green]{cell}[/]" if method in winners[measure] else cell)
        table.add_row(method, *cells)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # nothing is folded that a file has room for
    console.print(table)


def main() -> None:
    """Run the command."""

    def command(config: DictConfig) -> None:
        evaluate(config)

    run_composed("eval", command)


if __name__ == "__main__":
    main()
