"""Sessions: what belongs to one open page, and goes when it is closed."""

import shutil
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

from pdnla.web.still import Still
from pdnla.web.studio import Studio

MOST = 32
"""Pages whose pictures are kept; with a further one, the page that was idle for the longest is forgotten."""


class Session:
    """One open page.

    Args:
        studio: what all share.
        folder: where its files go; removed at the end.
    """

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.folder = folder
        self.still = Still(studio, folder / "still")
        self.closed = threading.Event()
        self._sent: set[Path] = set()

    def sent(self, paths: list[str] | str | None) -> list[Path]:
        """Return the paths of files that were sent, to be removed with the session."""
        listed = [paths] if isinstance(paths, str) else paths or []
        files = [Path(path) for path in listed]
        self._sent.update(files)
        return files

    def close(self) -> None:
        """Stop what still works for this page and remove its files."""
        self.closed.set()
        for path in self._sent:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """The open pages, by their keys.

    Args:
        studio: what all share.
        folder: where the files of all go.
        most: pages that are kept.
    """

    def __init__(self, studio: Studio, folder: Path, most: int = MOST) -> None:
        self.studio, self.folder, self.most = studio, folder, most
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Session:
        """Return a page's session, a new one at its first call."""
        idle = None
        with self._lock:
            if key not in self._sessions:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._sessions[key] = Session(self.studio, Path(tempfile.mkdtemp(dir=self.folder)))
            self._sessions.move_to_end(key)
            if len(self._sessions) > self.most:
                _, idle = self._sessions.popitem(last=False)
            session = self._sessions[key]
        if idle is not None:
            idle.close()
        return session

    def close(self, key: str) -> None:
        """End a page's session, if it has one."""
        with self._lock:
            session = self._sessions.pop(key, None)
        if session is not None:
            session.close()

    def __len__(self) -> int:
        return len(self._sessions)
