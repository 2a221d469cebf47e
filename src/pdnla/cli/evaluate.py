"""``pdnla-eval``: compare weights with baselines and published results, and write a report."""

import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pdnla.cli.composition import run_composed
from pdnla.cli.progress import Progress
from pdnla.configuration import record, revision
from pdnla.errors import UserError
from pdnla.evaluation.options import OPTIONS
from pdnla.options import check_options
from pdnla.pretrained import check_weights
from pdnla.processes import process_count

if TYPE_CHECKING:  # importing torch takes seconds, and --help does not need it
    from pdnla.evaluation.results import Evaluation
    from pdnla.evaluation.suite import Part

log = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> "dict[str, Evaluation]":
    """Evaluate with a configuration; all results go to Hydra's output folder of the run.

    Raises:
        UserError: the configuration names something that does not exist.
    """
    import torch

    from pdnla.devices import choose_device
    from pdnla.evaluation import downloads, methods, runner, suite
    from pdnla.evaluation.protocols import Clips
    from pdnla.film.motion import require_cv2

    if process_count() > 1:
        raise UserError("do not use torchrun or srun: devices=N starts the processes of an evaluation")
    check_options(config, OPTIONS)
    folder = Path(HydraConfig.get().runtime.output_dir)
    chosen = HydraConfig.get().runtime.choices["protocol"]
    weights: Any = OmegaConf.to_container(config.weights) if OmegaConf.is_config(config.weights) else config.weights
    methods.check_baselines(config.baselines)
    choose_device(config.device)
    named_weights = methods.name_weights(weights)
    for path in named_weights.values():
        check_weights(path, "weights")
    if not named_weights and not config.baselines:
        raise UserError("there is nothing to evaluate; give weights=FILE, or name some baselines")
    protocol = hydra.utils.instantiate(config.protocol)  # before the measures, whose weights may have to be downloaded
    parts = suite.parts_of(protocol, chosen)
    for option in getattr(protocol, "left_out", []):
        log.warning("protocol.%s is not given; its part of the suite is left out", option)
    settings = runner.Settings(
        weights=named_weights,
        baselines=tuple(config.baselines),
        size=config.size,
        device=config.device,
        precision=config.precision,
        available=downloads.available(config.measures),
        side=config.report.side if config.report.pictures else 0,
        film=any(isinstance(part.protocol, Clips) for part in parts.values()),
    )
    if settings.film:
        require_cv2()
    record(config, folder)
    configuration = OmegaConf.to_container(config, resolve=True)
    assert isinstance(configuration, dict)
    provenance = runner.Provenance(
        f"Evaluation: {chosen}",
        {str(key): value for key, value in configuration.items()},
        OmegaConf.to_yaml(config, resolve=True),
        {"pdnla": revision(), "torch": torch.__version__, "python": platform.python_version()},
    )
    with Progress("evaluating", sum(len(part.protocol) for part in parts.values())) as progress:
        evaluations = runner.run(
            parts, settings, config.devices, folder, config.report.pictures, provenance, progress.update
        )
    for evaluation in evaluations.values():
        for sentence in evaluation.left_out:
            log.warning("left out: %s", sentence)
    count = sum(len(evaluation.records) for evaluation in evaluations.values())
    title = f"{chosen}, {count} pictures: {folder}/report.html, metrics.csv, metrics.json"
    _print(evaluations, parts, title)
    return evaluations


def _print(evaluations: "dict[str, Evaluation]", parts: "Mapping[str, Part]", title: str) -> None:
    """Print one table: the measures of a protocol, or those of each part's overview."""
    from pdnla.evaluation import report

    table = Table("", title=escape(title), title_justify="left")
    columns = report.overview(evaluations, parts)
    for column in columns:
        part = f"{escape(column.part)}\n" if len(parts) > 1 else ""
        table.add_column(f"{part}{column.measure.label} {report.ARROWS[column.measure.better]}", justify="right")
    for method in report.kinds(evaluations):
        cells = []
        for column in columns:
            cell = column.values.get(method, "")
            cells.append(f"[bold green]{cell}[/]" if method in column.best else cell)
        table.add_row(escape(method), *cells)
    console = Console()
    if not console.is_terminal:
        console.width = 220  # a file has room for long lines
    console.print(table)


def main() -> None:
    """Run the command."""

    def command(config: DictConfig) -> None:
        evaluate(config)

    run_composed("eval", command)


if __name__ == "__main__":
    main()
