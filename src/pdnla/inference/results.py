"""Other files in the folder of results: the list of failures, and temporary files of killed runs."""

import csv
from collections.abc import Sequence
from pathlib import Path

from pdnla.errors import UserError
from pdnla.files import remove_stale_temporaries, replacing
from pdnla.inference.planning import Album
from pdnla.processes import Rank


def prepare_folders(album: Album) -> None:
    """Create the folder of results, and remove the temporary files of killed runs.

    Raises:
        UserError: the folder cannot be created.
    """
    if album.folder is not None:
        try:
            album.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{album.folder}: cannot be created ({error.strerror}); choose another with -o") from error
    for folder in {task.result.parent for task in album.tasks}:
        remove_stale_temporaries(folder)


def write_failures(folder: Path, sentences: Sequence[str], rank: Rank) -> None:
    """Write ``failed.csv`` with a sentence for each failed picture, or remove it if there is none.

    Each of several launched processes has its own list, ``failed_0_of_8.csv``.

    Raises:
        UserError: it cannot be written.
    """
    name = "failed.csv" if rank.world == 1 else f"failed_{rank.number}_of_{rank.world}.csv"
    if rank.number == 0:  # those of runs with another number of processes
        for old in folder.glob("failed*.csv"):
            if not old.name.endswith(f"_of_{rank.world}.csv"):
                old.unlink(missing_ok=True)
    (folder / name).unlink(missing_ok=True)
    if not sentences:
        return
    with (
        replacing(folder / name) as temporary,
        # File names may be invalid UTF-8.
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows([["reason"], *([sentence] for sentence in sentences)])
