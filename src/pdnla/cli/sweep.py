"""The beginning and the end of a sweep: its folder is checked, its tables are written and printed."""

from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pdnla.cli.composition import HydraBypass
from pdnla.errors import UserError
from pdnla.processes import process_count
from pdnla.training.sweeps import Result, read_results, write_tables


class SweepStart(Callback):
    """Hydra's callback that keeps the folder of the current sweep; ``folder`` is None before a sweep starts."""

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Keep the folder.

        Raises:
            HydraBypass: several processes would each start the sweep, or the folder already has results.
        """
        if process_count() > 1:
            launchers = "leave out torchrun or srun: each run starts the processes of its trainer.devices itself"
            raise HydraBypass(UserError(f"-m: one process starts a sweep, and this is one of several; {launchers}"))
        folder = Path(config.hydra.sweep.dir).absolute()
        if read_results(folder):
            raise HydraBypass(
                UserError(f"hydra.sweep.dir={folder}: already holds the results of a sweep; choose another folder")
            )
        SweepStart.folder = folder


def conclude(folder: Path) -> list[Result]:
    """Write the tables of a sweep in its folder and print one; return the results.

    Without any run, nothing is written.
    """
    results = read_results(folder)
    if not results:
        return []
    header, rows = write_tables(results, folder)
    table = Table(
        *(escape(name) for name in header), title=f"{escape(str(folder))}/results.csv, results.md", title_justify="left"
    )
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has room for long lines
    console.print(table)
    return results
