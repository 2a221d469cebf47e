"""The Still tab: a user colours, adjusts, corrects and saves one picture."""

import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from PIL import Image, ImageDraw

from pdnla.errors import UserError
from pdnla.images.greys import read_reference
from pdnla.images.io import (
    DEEP_SUFFIXES,
    WRITABLE_SUFFIXES,
    Header,
    Openable,
    Picture,
    read_image,
    read_metadata,
    write_image,
)
from pdnla.inference.correcting import REACH
from pdnla.inference.editing import Adjustment, Editor, Source
from pdnla.web.choosing import BEST, Candidate, choose_candidates, usable_uploads
from pdnla.web.studio import Studio
from pdnla.web.uploads import Upload, check_count, check_upload, keep_upload

SHOWN_PIXELS = 1_200_000
"""Larger pictures are shown reduced to about this number of pixels, unless full size is requested."""
_THUMBNAIL = 320  # longest side in pixels
_QUALITY = 92  # of the JPEG and WebP files that are shown
_LARGEST_WEBP = 16_383  # pixels of a side
_KEPT = 64  # shown files that a browser may still be loading
_RING = 0.018  # radius of a mark, of the longer side
_LONGEST = 200  # bytes of a name, so that file systems have room for what is added
_NO_REFERENCE = "there is no reference; choose one or more, or a folder of them"
_NOTHING = "nothing is coloured; choose a grey picture and a reference, and colour it"


class Comparison(NamedTuple):
    """Two files of one size to compare: the target and the result."""

    before: Path
    after: Path


class Offered(NamedTuple):
    """A reference that is offered, and its picture as it is shown."""

    candidate: Candidate
    picture: Picture


class Marked(NamedTuple):
    """Files that show the marked point of the result and the place that its colour comes from.

    Attributes:
        result: the result.
        reference: the reference with this place.
        name: the name of the reference.
        source: this place; None if no point is marked.
    """

    result: Path
    reference: Path
    name: str
    source: Source | None


class Still:
    """The Still tab of one user. Each method may be called in a thread of its own.

    Args:
        studio: the network and the limits that all users share.
        folder: the folder for this user's files.
        shown_pixels: larger pictures are shown reduced to about this number of pixels.
    """

    def __init__(self, studio: Studio, folder: Path, shown_pixels: int = SHOWN_PIXELS) -> None:
        self.studio, self.folder, self.shown_pixels = studio, folder, shown_pixels
        self.target: Upload | None = None
        self.chosen = 0  # of the candidates, for colouring
        self.editor: Editor | None = None
        self.point: tuple[float, float] | None = None
        self._references: list[Upload] = []
        self._header: Header | None = None
        self._result: Image.Image | None = None  # as it is shown
        self._usable: tuple[list[Upload], list[str]] | None = None  # the references, and why others are left out
        self._offered: list[Offered] = []
        self._used: list[Offered] = []  # the references that the result is made with
        self._seen: Offered | None = None  # the reference that is shown beside the result
        self._written: deque[Path] = deque()
        self._lock = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def candidates(self) -> list[Candidate]:
        """The references that are offered, most similar first."""
        return [candidate for candidate, _ in self._offered]

    def take_target(self, path: str | Path) -> Path:
        """Take a picture to colour, and return a file that shows it.

        Raises:
            UserError: it cannot be coloured here.
        """
        with self._lock:
            self.drop_target()
            shutil.rmtree(self.folder / "targets", ignore_errors=True)
            upload = keep_upload(path, self.folder / "targets")
            header = check_upload(upload, self.studio.limits)
            if header.animated:
                raise UserError(f"{upload}: is an animation; export its frames and colour them as an album")
            if header.pages > 1:
                raise UserError(f"{upload}: is a TIFF of {header.pages} pages; colour it as an album, which keeps them")
            picture = _read(upload)
            self.target, self._header = upload, header
            return self._write(_preview(picture, _reduced(picture.size, self.shown_pixels)))

    def drop_target(self) -> None:
        """Remove the picture and its result."""
        with self._lock:
            self.target = self._header = self.editor = self.point = self._result = None
            self._offered, self._used, self._seen, self.chosen = [], [], None, 0

    def take_references(self, paths: Sequence[str | Path]) -> None:
        """Take references to choose from; none: those on this machine. A result keeps those that it is made with.

        Raises:
            UserError: there are too many, or they cannot be kept.
        """
        with self._lock:
            check_count(paths, self.studio.limits, "references")
            shutil.rmtree(self.folder / "references", ignore_errors=True)
            self._references = [keep_upload(path, self.folder / "references") for path in paths]
            self._usable = None
            self._offered, self.chosen = [], 0

    def choose_candidates(self, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Choose the references most like the target as :attr:`candidates`; return a sentence for each unusable one.

        Nothing happens before there are a target and references.

        Raises:
            UserError: none can be used.
        """
        with self._lock:
            if self.target is None or not (self._references or self.studio.candidates):
                return []
            self._offered, self.chosen = [], 0
            if self._usable is None:
                self._usable = usable_uploads(self._references, self.studio.limits)
            references, left_out = self._usable[0], list(self._usable[1])
            if self._references and not references:
                raise UserError(left_out[0])
            cache = self.folder / "descriptors"
            for candidate in choose_candidates(
                self.studio, self.target, references, cache, BEST, progress, left_out.append
            ):
                try:
                    picture = _read(candidate.upload, read_reference)
                except UserError as error:
                    left_out.append(str(error))
                    continue
                small = Picture(picture.resized(_reduced(picture.size, self.shown_pixels)).colour)
                self._offered.append(Offered(candidate, small))
            if not self._offered:
                raise UserError(left_out[0])
            return left_out

    def thumbnails(self) -> list[tuple[Path, str]]:
        """Return pictures of the candidates, with captions."""
        with self._lock:
            return [self._thumbnail(offered) for offered in self._offered]

    def used(self) -> list[tuple[Path, str]]:
        """Return pictures of the references that the result is made with, with captions; none if only one was offered.

        Colours of corrections may come from others.
        """
        with self._lock:
            if len(self._used) < 2:
                return []
            main = self._edited().main
            return [self._thumbnail(offered) for offered in (self._used if main is None else [self._used[main]])]

    def _thumbnail(self, offered: Offered) -> tuple[Path, str]:
        small = offered.picture.rgb()
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
        score = offered.candidate.score
        return self._write(small), f"{offered.candidate.upload}{'' if score is None else f' · {score:.2f}'}"

    def choose(self, number: int) -> Path:
        """Choose one of the candidates, for colouring and for corrections, and return a file that shows it.

        Raises:
            UserError: there is no candidate with this number.
        """
        with self._lock:
            if not 0 <= number < len(self._offered):
                raise UserError(f"reference {number + 1}: there are {len(self._offered)}; choose one of them")
            self.chosen, self._seen = number, self._offered[number]
            return self._write(self._seen.picture.rgb())

    def colour(self, together: bool = False) -> None:
        """Colour the target with the colours of the chosen candidate.

        Args:
            together: use all candidates; correspondence chooses among the places of all.

        Raises:
            UserError: there is no target or no reference, or the network fails.
        """
        with self._lock:
            target = self._ready()
            self.editor = self.point = self._result = None
            self._used, self._seen = list(self._offered), self._offered[self.chosen]
            picture = _read(target)
            with self.studio.turn() as colorizer:
                references = (_read(candidate.upload) for candidate in self.candidates)
                self.editor = Editor(colorizer, picture, references, None if together else self.chosen)

    def compare(self, adjustment: Adjustment, full: bool = False) -> Comparison:
        """Return the two files for the comparison.

        Args:
            adjustment: how the result is shown.
            full: at full size, even if that is large.
        """
        with self._lock:
            editor = self._edited()
            target = editor.target
            reduced = _reduced(target.size, self.shown_pixels)
            size = target.size if full else reduced
            with self.studio.turn():
                result = editor.image(adjustment, size)
            if size == reduced:
                self._result = result
            return Comparison(self._write(_preview(target, size)), self._write(result))

    def mark(self, point: tuple[float, float] | None = None) -> Marked:
        """Mark a point of the result, x and y in [0, 1], and where its colour comes from; None: the last one.

        The reference of this place is then the one that is shown and that :meth:`correct` uses.
        """
        with self._lock:
            editor = self._edited()
            self.point = point or self.point
            assert self._result is not None
            result, source = self._result, None
            if self.point is not None:
                result = _marked(result, self.point)
                with self.studio.turn():
                    source = editor.source(*self.point)
                self._seen = self._used[source.number]
            assert self._seen is not None
            reference = self._seen.picture.rgb()
            if source is not None:
                reference = _marked(reference, (source.x, source.y))
            return Marked(self._write(result), self._write(reference), self._seen.candidate.upload.name, source)

    def correct(self, reference: tuple[float, float], reach: float = REACH) -> None:
        """Let the region around the marked point take its colours from around a point of the reference that is shown.

        Raises:
            UserError: no point is marked, or the result is not made with the reference.
        """
        with self._lock:
            editor = self._edited()
            if self.point is None:
                raise UserError("no point of the result is marked; click the place there that is wrong first")
            numbers = [number for number, used in enumerate(self._used) if used is self._seen]
            if not numbers:
                raise UserError("this reference is newer than the result; press Colour, then correct")
            with self.studio.turn():
                editor.correct(self.point, reference, numbers[0], reach)

    def undo(self) -> bool:
        """Undo the last correction; return False if there is none."""
        with self._lock:
            return self._edited().undo() is not None

    def save(self, adjustment: Adjustment) -> Path:
        """Write the result at full size, in the target's format and depth and with its metadata, and return the file.

        If the format can only be read, the result is a PNG.

        Raises:
            UserError: it cannot be written.
        """
        with self._lock:
            editor, target, header = self._edited(), self.target, self._header
            assert target is not None
            assert header is not None
            path = self._next() / result_name(target, "_colorized")
            deep = header.bits == 16 and path.suffix.lower() in DEEP_SUFFIXES
            with self.studio.turn():
                result = editor.image_16_bits(adjustment) if deep else editor.image(adjustment)
            try:
                write_image(path, result, read_metadata(target))
            except UserError as error:
                raise UserError(str(error).replace(str(path), path.name)) from error
            return path

    @property
    def compared(self) -> int:
        """Number of references that are compared with the target; 0 for a single one, and without a target."""
        count = len(self._references or self.studio.candidates)
        return count if self.target is not None and count > 1 else 0

    @property
    def reduced(self) -> bool:
        """Whether the result is shown with fewer pixels than it has."""
        return self.editor is not None and self._edited().target.size != self.result_size

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result in full."""
        return self._edited().target.size

    @property
    def pixels(self) -> int:
        """Pixels of the picture that is kept in memory."""
        editor = self.editor
        return 0 if editor is None else editor.target.size[0] * editor.target.size[1]

    @property
    def result_size(self) -> tuple[int, int]:
        """Width and height of the result as :meth:`mark` shows it."""
        if self._result is None:
            raise UserError(_NOTHING)
        return self._result.size

    @property
    def reference_size(self) -> tuple[int, int]:
        """Width and height of the reference that is shown."""
        if self._seen is None:
            raise UserError(_NO_REFERENCE)
        return self._seen.picture.size

    def _ready(self) -> Upload:
        if self.target is None:
            raise UserError("there is no grey picture; choose one first")
        if not self._offered:
            raise UserError(_NO_REFERENCE)
        return self.target

    def _edited(self) -> Editor:
        if self.editor is None:
            raise UserError(_NOTHING)
        return self.editor

    def _write(self, image: Image.Image) -> Path:
        """Write an image to show, under a new name: browsers keep files by their names."""
        folder = self._next()
        if image.mode == "RGB":
            image.save(folder / "shown.jpg", quality=_QUALITY, subsampling=0)
            return folder / "shown.jpg"
        if max(image.size) <= _LARGEST_WEBP:
            image.save(folder / "shown.webp", quality=_QUALITY, method=1)
            return folder / "shown.webp"
        image.save(folder / "shown.png", compress_level=1)
        return folder / "shown.png"

    def _next(self) -> Path:
        """Return a new folder, and remove the oldest one, which no page shows any more."""
        top = self.folder / "shown"
        top.mkdir(parents=True, exist_ok=True)  # gone if the page was closed meanwhile; its session removes it again
        self._written.append(Path(tempfile.mkdtemp(dir=top)))
        if len(self._written) > _KEPT:
            shutil.rmtree(self._written.popleft(), ignore_errors=True)
        return self._written[-1]


def result_name(target: Upload, addition: str = "") -> str:
    """Return the name of a target's result: in its own format, or .png if that can only be read; long names are cut."""
    name = PurePath(target.name)
    suffix = name.suffix if name.suffix.lower() in WRITABLE_SUFFIXES else ".png"
    return f"{name.stem.encode()[:_LONGEST].decode(errors='ignore')}{addition}{suffix}"


def _read(upload: Upload, read: Callable[[Openable], Picture] = read_image) -> Picture:
    try:
        return read(upload)
    except UserError as error:
        raise UserError(upload.hide_path(error)) from error


def _reduced(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    factor = min(1.0, (pixels / (size[0] * size[1])) ** 0.5)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _preview(picture: Picture, size: tuple[int, int]) -> Image.Image:
    """Return a picture at ``size``, ``RGB``, or ``RGBA`` where it is transparent like its result."""
    preview = picture.resized(size).rgb()
    if picture.alpha is not None:
        preview.putalpha(picture.alpha if size == picture.size else picture.alpha.resize(size))
    return preview


def _marked(image: Image.Image, point: tuple[float, float]) -> Image.Image:
    """Return an image with a ring around a point: white in black, so that it shows on any colour."""
    marked = image.convert("RGBA" if image.mode == "RGBA" else "RGB")
    draw = ImageDraw.Draw(marked)
    x, y = point[0] * image.width, point[1] * image.height
    radius = max(7.0, _RING * max(image.size))
    for colour, width, more in (("black", 0.55, 0.0), ("white", 0.25, -0.15)):
        r = radius * (1 + more)
        draw.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=max(1, round(radius * width)))
    draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill="white")
    return marked
