"""The film of a user: find its shots, let the user change their references, and colour it with progress."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from pdnla.errors import UserError
from pdnla.film.planning import Film, plan_film
from pdnla.film.shots import Shot, write_shots
from pdnla.film.source import is_video
from pdnla.images.io import Picture
from pdnla.inference.colorizer import Colorizer, Encoded
from pdnla.network.correspondence import Carried
from pdnla.web.choosing import usable_uploads
from pdnla.web.studio import Studio
from pdnla.web.uploads import Upload, check_count, keep_upload

_ABOUT = {"weights": "of the page"}  # the page has one network, so its weights need no name
SHOWN = (".mp4", ".m4v", ".webm")
"""Suffixes of the films that browsers play."""


class ShotRow(NamedTuple):
    """A shot: the numbers of its first and last frame, from 0, and of its references, from 1, such as ``1, 3``."""

    first: int
    last: int
    references: str


class Shots(NamedTuple):
    """The shots of a film.

    Attributes:
        rows: the shots.
        frames: a coloured frame of each shot.
        remarks: sentences to show to the user.
    """

    rows: list[ShotRow]
    frames: list[Image.Image]
    remarks: list[str]


class FilmProgress(NamedTuple):
    """The progress of a film.

    Attributes:
        done: number of finished frames.
        total: number of frames.
        remarks: sentences to show to the user.
        result: the coloured film; None until it is finished.
    """

    done: int
    total: int
    remarks: list[str]
    result: Path | None = None


class Stopped(Exception):
    """The user stopped the work or closed the page."""


def has_film() -> bool:
    """Return whether the extra ``pdnla[film]`` is installed."""
    return find_spec("av") is not None and find_spec("cv2") is not None


class FilmDesk:
    """The Film tab of one user.

    Args:
        studio: the shared network.
        folder: the folder for this user's films.
        closed: set when the page is closed; it stops the work.
    """

    def __init__(self, studio: Studio, folder: Path, closed: threading.Event) -> None:
        self.studio, self.folder, self.closed = studio, folder, closed
        self.references: list[Upload] = []
        self._film: Film | None = None
        self._busy = threading.Lock()  # not an RLock: an iterator may continue in another thread

    def take(self, target: str | Path | None, references: Sequence[str | Path]) -> list[str]:
        """Store a film and its references, and return a sentence for each reference that cannot be used.

        Raises:
            UserError: there is no film, no reference, or none that can be used.
        """
        with self._working():
            self._film = None
            if target is None:
                raise UserError("there is no film; choose a video file first")
            if not references:
                raise UserError("there is no reference; choose pictures in colour")
            check_count(references, self.studio.limits, "references")
            film = keep_upload(target, self.folder / "film")
            if not is_video(film.path):
                raise UserError(f"{film}: is not a video file; choose one that ends in .mp4, .mov, .mkv or the like")
            kept = [keep_upload(path, self.folder / "references") for path in references]
            self.references, left_out = usable_uploads(kept, self.studio.limits)
            if not self.references:
                raise UserError(left_out[0])
            try:
                self._film = plan_film(film.path, [one.path for one in self.references], None)
            except UserError as error:
                raise UserError(film.hide_path(error)) from error
            self._film = self._film._replace(size=self.studio.colorizer.size)
            return left_out

    def find_shots(
        self, progress: Callable[[int, int], None], previewed: Callable[[int, int], None] | None = None
    ) -> Shots:
        """Find the shots of the film, choose references for them, and colour a frame of each.

        Args:
            progress: called with the number of searched frames and the number of all frames.
            previewed: called with the number of coloured previews and the number of shots.

        Raises:
            UserError: the film or a reference cannot be read.
        """
        from pdnla.film.colouring import Work

        with self._working(), self._hiding_paths():
            film = self._taken()
            colorizer = InTurns(self.studio)
            observer = _Observer(self.closed, progress, lambda done, total: None)
            work = Work(film, _ABOUT, observer)
            megapixels = work.source.size[0] * work.source.size[1] / 1e6
            if megapixels > self.studio.limits.megapixels:
                most = self.studio.limits.megapixels
                raise UserError(f"{film.target}: has {megapixels:.0f} million pixels, and this page takes {most}")
            _, middle_frame, references, choices = work.prepare(colorizer)
            rows, frames = [], []
            for number, (shot, _) in enumerate(choices):
                observer.check()
                if previewed is not None:
                    previewed(number, len(choices))
                numbers = [film.references.index(path) + 1 for path in shot.references]
                rows.append(ShotRow(shot.start, shot.end - 1, ", ".join(map(str, numbers))))
                references.use(shot.references)
                frames.append(colorizer.colorize(middle_frame(number)))
            return Shots(rows, frames, self._hide_paths(observer.remarks))

    def colour(self, rows: Sequence[ShotRow], stop: threading.Event) -> Generator[FilmProgress, None, None]:
        """Colour the film with the user's table of shots, and yield the progress.

        Other users have their turns between two frames.

        Args:
            rows: the shots.
            stop: set to stop the work. Closing the iterator or the page stops it too.

        Raises:
            UserError: the shots do not fit the film, or something cannot be read or written.
        """
        from pdnla.film.colouring import colour_film

        with self._working(), self._hiding_paths():
            film = self._taken()._replace(shots=self.folder / "shots.csv")
            assert film.shots is not None
            write_shots(film.shots, [self._shot(row) for row in rows])
            events: queue.SimpleQueue[tuple[int, int] | BaseException | Path] = queue.SimpleQueue()
            left = threading.Event()
            observer = _Observer(self.closed, lambda done, total: None, lambda *counts: events.put(counts), stop, left)

            def work() -> None:
                try:
                    events.put(colour_film(film, InTurns(self.studio), _ABOUT, False, observer))
                except BaseException as error:  # raised again in the thread that waits for events
                    events.put(error)

            thread = threading.Thread(target=work, name="film")
            thread.start()
            try:
                done = total = 0
                while not isinstance(event := events.get(), Path):
                    if isinstance(event, BaseException):
                        raise event
                    done, total = event
                    yield FilmProgress(done, total, self._hide_paths(observer.remarks))
                yield FilmProgress(total, total, self._hide_paths(observer.remarks), event)
            finally:
                left.set()
                thread.join()

    @property
    def busy(self) -> bool:
        """Whether the film is being worked on."""
        return self._busy.locked()

    @contextmanager
    def _working(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise UserError("this film is already being worked on; wait until it is finished, or stop it")
        try:
            yield
        finally:
            self._busy.release()

    def _taken(self) -> Film:
        if self._film is None:
            raise UserError("there is no film; choose a video file and references, and find its shots")
        return self._film

    def _shot(self, row: ShotRow) -> Shot:
        numbers = [number.strip() for number in row.references.replace(";", ",").split(",") if number.strip()]
        for number in numbers:
            if not number.isdecimal() or not 1 <= int(number) <= len(self.references):
                raise UserError(
                    f"shot {row.first} to {row.last}: there is no reference {number}; give numbers from 1 to"
                    f" {len(self.references)}"
                )
        return Shot(row.first, row.last + 1, tuple(self.references[int(number) - 1].path for number in numbers))

    def _hide_paths(self, sentences: Sequence[str]) -> list[str]:
        """Replace paths in sentences by the names that the user knows."""
        named = []
        for sentence in sentences:
            for upload in self.references:
                sentence = upload.hide_path(sentence)
            if self._film is not None:
                for path in (self._film.target, self._film.out):
                    sentence = sentence.replace(str(path), path.name)
            named.append(sentence.replace(f"{self.folder / 'shots.csv'}", "the table of shots"))
        return named

    @contextmanager
    def _hiding_paths(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            raise UserError(self._hide_paths([str(error)])[0]) from error


class InTurns(Colorizer):
    """A colorizer that shares a studio's network, has its own references, and waits for its turn at each frame.

    Args:
        studio: the shared network.
    """

    def __init__(self, studio: Studio) -> None:
        self.__dict__.update(studio.colorizer.__dict__)  # shares the network instead of copying it
        self._studio = studio
        self._held = False

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._held:  # one of the methods below called another
            yield
            return
        with self._studio.turn():
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def encode(self, reference: Image.Image | Picture) -> Encoded:
        """Wait for a turn and encode a reference."""
        with self._turn():
            return super().encode(reference)

    def predict(self, grey: Tensor, reference: Tensor | None = None) -> Tensor:
        """Wait for a turn and run the network."""
        with self._turn():
            return super().predict(grey, reference)

    def estimate(self, grey: Tensor) -> Carried:
        """Wait for a turn and match the references."""
        with self._turn():
            return super().estimate(grey)


class _Observer:
    """Collects the remarks on a film and reports its progress; raises :class:`Stopped` once an end is set."""

    def __init__(
        self,
        closed: threading.Event,
        scanned: Callable[[int, int], Any],
        coloured: Callable[[int, int], Any],
        *ends: threading.Event,
    ) -> None:
        self.remarks: list[str] = []
        self._ends = (closed, *ends)
        self._scanned, self._coloured = scanned, coloured

    def check(self) -> None:
        if any(end.is_set() for end in self._ends):
            raise Stopped

    def remark(self, sentence: str) -> None:
        self.remarks.append(sentence)

    def damage(self, sentence: str) -> None:
        self.remarks.append(sentence)

    def scanned(self, done: int, total: int) -> None:
        self.check()
        self._scanned(done, total)

    def coloured(self, done: int, total: int) -> None:
        self.check()
        self._coloured(done, total)
