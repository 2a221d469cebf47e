"""The network that all users of the page share, and the order of its use."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pdnla.inference.colorizer import Colorizer
from pdnla.web.uploads import Limits


class Turns:
    """A lock with first-come, first-served order, so an album does not keep others waiting."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def __len__(self) -> int:
        """Return the number of threads that hold the lock or wait for it."""
        return len(self._waiting)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and hold it in the block."""
        mine = threading.Event()
        with self._guard:
            self._waiting.append(mine)
            self._waiting[0].set()
        mine.wait()
        try:
            yield
        finally:
            with self._guard:
                self._waiting.popleft()
                if self._waiting:
                    self._waiting[0].set()


class Studio:
    """The network, the limits and the references that all users of the page share.

    Args:
        colorizer: the colorizer, which one user uses at a time.
        limits: the limits of uploads.
        folder: a folder of references on this machine for users without their own.
        candidates: the pictures in this folder.
    """

    def __init__(
        self,
        colorizer: Colorizer,
        limits: Limits | None = None,
        folder: Path | None = None,
        candidates: Sequence[Path] = (),
    ) -> None:
        self.colorizer = colorizer
        self.limits = limits or Limits()
        self.folder = folder
        self.candidates = candidates
        self.turns = Turns()

    @contextmanager
    def turn(self) -> Iterator[Colorizer]:
        """Wait for a turn, and hold the colorizer in the block."""
        with self.turns.turn():
            yield self.colorizer
