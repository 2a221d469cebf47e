"""What lies beside results: the list of what failed, and what a killed run has left."""

import csv
from collections.abc import Sequence
from pathlib import Path

from pdnla.errors import UserError
from pdnla.files import remove_stale_temporaries, replacing
from pdnla.inference.planning import Album
from pdnla.processes import Rank


def prepare_folders(album: Album) -> None:
    """Make the folder of results, and remove the temporary files that a killed run has left.

    Raises:
        UserError: the folder cannot be made.
    """
    if album.folder is not None:
        try:
            album.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{album.folder}: cannot be made ({error.strerror}); choose another with -o") from error
    for folder in {task.result.parent for task in album.tasks}:
        remove_stale_temporaries(folder)


def write_failures(folder: Path, sentences: Sequence[str], rank: Rank) -> None:
    """Write ``failed.csv``, a sentence for each picture that failed, or remove it if none did.

    Each of several launched processes has a list of its own, ``failed_0_of_8.csv``.

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
        # Names may hold bytes that are no UTF-8.
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows([["reason"], *([sentence] for sentence in sentences)])
