"""What a sweep does at its start and at its end, on the side of the command."""

from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pdnla.cli._hydra import Explained
from pdnla.errors import UserError
from pdnla.training.distributed import processes
from pdnla.training.sweeps import Result, read_results, write_tables


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


def conclude(folder: Path) -> list[Result]:
    """Write the tables of a sweep in its folder and print one; return the results.

    Nothing is written where no run began.
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
        console.width = 200  # nothing is folded that a file has room for
    console.print(table)
    return results
