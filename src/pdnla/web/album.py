"""The album of a user: its pictures are coloured one by one into an archive, with a list of failures."""

import tempfile
import threading
import zipfile
from collections.abc import Generator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.images.io import DEEP_SUFFIXES, Header
from pdnla.inference.pipeline import colour_tasks
from pdnla.inference.planning import Task
from pdnla.inference.results import write_failures
from pdnla.processes import Rank
from pdnla.web.choosing import Candidate, choose_candidates, usable_uploads
from pdnla.web.still import result_name
from pdnla.web.studio import Studio
from pdnla.web.uploads import Upload, check_count, check_upload, keep_upload

ARCHIVE = "coloured.zip"


class PictureRow(NamedTuple):
    """A picture: its reference with the score, or the reason why there is no result."""

    name: str
    reference: str = ""
    score: float | None = None
    failure: str = ""


class AlbumProgress(NamedTuple):
    """The progress of an album.

    Attributes:
        done: number of finished pictures, including failed ones.
        total: number of pictures.
        rows: the finished pictures.
        left_out: a sentence for each reference that cannot be used.
        archive: the results, once all is done; None before, and if there is none.
    """

    done: int
    total: int
    rows: list[PictureRow]
    left_out: list[str]
    archive: Path | None = None


def colour_uploads(
    studio: Studio,
    targets: Sequence[str | Path],
    references: Sequence[str | Path],
    folder: Path,
    stop: threading.Event | None = None,
) -> Generator[AlbumProgress, None, None]:
    """Colour each picture with the most similar reference, and yield the progress after each.

    Others have their turns between two pictures. If the iterator is closed, what is coloured by then is dropped.

    Args:
        studio: the studio.
        targets: files from the user.
        references: one for all, or several to choose from; none: those on this machine.
        folder: the folder for files of this album.
        stop: set to end after the current picture; the archive then holds what is coloured by then.

    Raises:
        UserError: there are no pictures or references, or too many of them, or no reference can be used.
    """
    if not targets:
        raise UserError("there are no pictures; choose some first")
    if not references and not studio.candidates:
        raise UserError("there is no reference; choose one or more, or a folder of them")
    check_count(targets, studio.limits, "pictures")
    check_count(references, studio.limits, "references")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary_folder:
        top = Path(temporary_folder)
        uploads = [keep_upload(path, top / "targets") for path in targets]
        offered, left_out = usable_uploads(
            [keep_upload(path, top / "references") for path in references], studio.limits
        )
        if references and not offered:
            raise UserError(left_out[0])
        names = unique_names([result_name(one) for one in uploads])
        rows: list[PictureRow] = []
        yield AlbumProgress(0, len(uploads), [], left_out)
        for upload, name in zip(uploads, names, strict=True):
            if stop is not None and stop.is_set():
                break
            rows.append(_colour(studio, upload, offered, top, name, left_out))
            yield AlbumProgress(len(rows), len(uploads), list(rows), list(left_out))
        archive = None
        if any((top / "results").glob("*")):
            failures = [row.failure for row in rows if row.failure]
            write_failures(top / "results", failures, Rank(0, 0, 1))
            archive = Path(tempfile.mkdtemp(dir=folder)) / ARCHIVE
            # Stored as they are: pictures do not get smaller.
            with replacing(archive) as temporary, zipfile.ZipFile(temporary, "w") as file:
                for path in sorted((top / "results").glob("*")):
                    file.write(path, path.name)
    yield AlbumProgress(len(rows), len(uploads), rows, left_out, archive)


def _colour(
    studio: Studio,
    upload: Upload,
    references: Sequence[Upload],
    top: Path,
    name: str,
    left_out: list[str],
) -> PictureRow:
    def add_once(sentence: str) -> None:
        if sentence not in left_out:
            left_out.append(sentence)

    try:
        header = check_upload(upload, studio.limits)
        candidate = choose_candidates(studio, upload, references, top / "descriptors", 1, left_out=add_once)[0]
        task = _task(upload, candidate, top / "results" / name, header)
        deep = header.bits == 16 and task.result.suffix.lower() in DEEP_SUFFIXES
        with studio.turn() as colorizer:
            (outcome,) = colour_tasks(colorizer, [task], batch_size=1, depth=16 if deep else 8)
        if outcome.failure is not None:
            raise UserError(candidate.upload.hide_path(outcome.failure.replace(str(task.result), name)))
    except UserError as error:
        sentence = upload.hide_path(error)
        return PictureRow(upload.name, failure=sentence if upload.name in sentence else f"{upload}: {sentence}")
    return PictureRow(upload.name, candidate.upload.name, candidate.score)


def _task(upload: Upload, candidate: Candidate, result: Path, header: Header) -> Task:
    if header.animated:
        raise UserError(f"{upload}: is an animation; export its frames and colour them as an album")
    if header.pages > 1 and result.suffix.lower() not in (".tif", ".tiff"):
        raise UserError(f"{upload}: is a TIFF of {header.pages} pages; end its name in .tif to have them all")
    return Task(upload.name, upload.path, candidate.upload.path, result, candidate.score, pages=header.pages)


def unique_names(names: Sequence[str]) -> list[str]:
    """Return file names that differ even if case is ignored: a.jpg, a_2.jpg."""
    taken: set[str] = set()
    unique = []
    for name in names:
        path, number = PurePath(name), 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}_{number}{path.suffix}"
        taken.add(name.casefold())
        unique.append(name)
    return unique
