"""Sessions: the state and files of an open page, removed when it is closed."""

import shutil
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from pdnla.errors import UserError
from pdnla.memory import return_freed_memory
from pdnla.web.film import FilmDesk
from pdnla.web.still import Still
from pdnla.web.studio import Studio

MOST, MOST_PIXELS = 32, 400_000_000
"""Largest numbers of pages, and of pixels of all their pictures; above, the page that was idle longest is closed."""


class Session:
    """One open page. Handlers use it in a block, at whose end the memory of large pictures goes back to the system.

    If the page was closed meanwhile, its files are removed then.

    Args:
        studio: the shared network.
        folder: the folder for its files; removed at the end.
        uploads: the folder of uploaded files.
    """

    def __init__(self, studio: Studio, folder: Path, uploads: Path) -> None:
        self.folder, self.uploads = folder, uploads
        self.still = Still(studio, folder / "still")
        self.closed = threading.Event()
        self.stop_album, self.stop_film = threading.Event(), threading.Event()
        self.stop_album.set()  # until an album begins
        self.film = FilmDesk(studio, folder / "film", self.closed)
        self._uploaded: dict[Path, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.closed.is_set():
            self._remove()
        return_freed_memory()

    def claim_uploads(self, paths: list[str] | str | None) -> list[Path]:
        """Return the paths of uploaded files, and let the session remove them at its end.

        Raises:
            UserError: another file is named, which is neither read nor removed.
        """
        listed = [paths] if isinstance(paths, str) else paths or []
        files = [Path(path) for path in listed]
        for path in files:
            if not path.resolve().is_relative_to(self.uploads.resolve()):
                raise UserError(f"{path.name}: was not sent to this page; send it")
            self._uploaded[path] = _identity(path)
        return files

    def close(self) -> None:
        """Stop the work for this page, and remove its files."""
        self.closed.set()
        self._remove()

    def _remove(self) -> None:
        for path, identity in self._uploaded.items():
            if _identity(path) == identity:  # another page may have uploaded the same file to the same path since
                path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _identity(path: Path) -> tuple[int, int]:
    """Return values that change if another file replaces a file; zeros if there is none."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


class Sessions:
    """The open pages, by their keys.

    Args:
        studio: the shared network.
        uploads: the folder of uploaded files; a folder in it holds the files of all pages.
        most: largest number of pages.
        most_pixels: largest number of pixels of their pictures in memory.
    """

    def __init__(self, studio: Studio, uploads: Path, most: int = MOST, most_pixels: int = MOST_PIXELS) -> None:
        self.studio, self.uploads, self.most, self.most_pixels = studio, uploads, most, most_pixels
        self.folder = uploads / "sessions"
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Session:
        """Return a page's session, a new one at its first call."""
        idle: list[Session] = []
        with self._lock:
            if key not in self._sessions:
                self.folder.mkdir(parents=True, exist_ok=True)
                folder = Path(tempfile.mkdtemp(dir=self.folder))
                self._sessions[key] = Session(self.studio, folder, self.uploads)
            self._sessions.move_to_end(key)
            while len(self._sessions) > 1 and self._too_many():
                idle.append(self._sessions.popitem(last=False)[1])
            session = self._sessions[key]
        for other in idle:
            other.close()
        return session

    def _too_many(self) -> bool:
        pixels = sum(session.still.pixels for session in self._sessions.values())
        return len(self._sessions) > self.most or pixels > self.most_pixels

    def close(self, key: str) -> None:
        """End a page's session, if it has one."""
        with self._lock:
            session = self._sessions.pop(key, None)
        if session is not None:
            session.close()

    def __len__(self) -> int:
        return len(self._sessions)
