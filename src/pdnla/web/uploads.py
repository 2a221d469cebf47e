"""Uploaded files: stored in a separate folder, with limits that are checked by headers."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import IO, Literal, NamedTuple

from pdnla.errors import UserError
from pdnla.images.formats import named_as_picture, why_unread
from pdnla.images.io import Header, read_header


class Limits(NamedTuple):
    """Limits of uploads.

    Attributes:
        megabytes: of one file.
        megapixels: of one picture; it is refused by its header, before anything is decoded.
        files: pictures in an album, or references to choose from.
    """

    megabytes: int = 200
    megapixels: int = 100
    files: int = 1000


class Upload(NamedTuple):
    """An uploaded file: the user's name of it, and its path here."""

    name: str
    path: Path

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """Open the file."""
        return self.path.open(mode)

    def __str__(self) -> str:
        return self.name

    def hide_path(self, sentence: object) -> str:
        """Return a sentence about the file with its name in place of its path."""
        return str(sentence).replace(str(self.path), self.name)


def keep_upload(path: str | Path, folder: Path) -> Upload:
    """Keep an uploaded file under its own name, in a new folder below ``folder``.

    Raises:
        UserError: the file is gone, or the folder cannot be written.
    """
    path = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = Path(tempfile.mkdtemp(dir=folder)) / path.name
        try:
            os.link(path, kept)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, kept)
    except OSError as error:
        raise UserError(f"{path.name}: cannot be kept ({error.strerror}); send it again") from error
    return Upload(path.name, kept)


def check_upload(upload: Upload, limits: Limits) -> Header:
    """Return a picture's header.

    Raises:
        UserError: it is not a readable picture, or it exceeds the limits.
    """
    megabytes = upload.path.stat().st_size / 1e6
    if megabytes > limits.megabytes:
        raise UserError(f"{upload}: has {megabytes:.0f} MB, and this page takes {limits.megabytes}; make it smaller")
    if (why := why_unread(PurePath(upload.name))) is not None:
        raise UserError(why)
    try:
        header = read_header(upload)
    except UserError as error:
        raise UserError(upload.hide_path(error)) from error
    megapixels = header.size[0] * header.size[1] / 1e6
    if megapixels > limits.megapixels:
        raise UserError(
            f"{upload}: has {megapixels:.0f} million pixels, and this page takes {limits.megapixels}; make it smaller"
        )
    return header


def pictures_in(paths: Sequence[str]) -> list[str]:
    """Return those files of a folder whose names are those of pictures, like :func:`~pdnla.images.io.list_images`.

    Pictures of formats that are not read are kept, so that users get a message; hidden and other files are dropped.

    Raises:
        UserError: none is a picture.
    """
    named = map(PurePath, paths)
    pictures = [str(path) for path in named if named_as_picture(path) and not path.name.startswith(".")]
    if not pictures:
        raise UserError("this folder has no pictures; choose another one")
    return pictures


def check_count(paths: Sequence[object], limits: Limits, what: str) -> None:
    """Raise UserError if there are more files than the limits allow."""
    if len(paths) > limits.files:
        raise UserError(f"{len(paths)} {what} are more than this page takes at a time, {limits.files}; send fewer")
