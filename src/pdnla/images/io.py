"""Reading of images of any mode, orientation and colour profile, and atomic writing.

This module does not import torch: commands import it before they know whether there is work to do.
"""

import contextlib
import io
import logging
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageStat, UnidentifiedImageError

from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.images.formats import (
    FORMATS,
    is_raw,
    named_as_picture,
    readable_formats,
    why_unidentified,
    why_unread,
)
from pdnla.images.metadata import Metadata, metadata_of
from pdnla.images.profiles import colour_to_srgb, grey_to_srgb, read_profile
from pdnla.images.sixteen_bits import Pixels, encode_png, write_tiff

_logger = logging.getLogger(__name__)

_WRITABLE: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {"compress_level": 2}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".webp": ("WEBP", {"quality": 95}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".bmp": ("BMP", {}),
}
_WITHOUT_ALPHA = frozenset({"JPEG", "BMP"})
WRITABLE_SUFFIXES = tuple(_WRITABLE)
"""The suffixes of formats that are written."""
DEEP_SUFFIXES = (".png", ".tif", ".tiff")
"""Suffixes of formats with 16 bits per channel in colour."""
TIFF_SUFFIXES = (".tif", ".tiff")
"""Suffixes of the format with several pages."""
_FRAMED = ("GIF", "WEBP", "PNG", "AVIF")  # formats whose further pictures are frames of an animation
_LARGE_TEXT = 1 << 20  # bytes of texts or profile above which Pillow refuses a PNG
_BIG_TEXT = 64 << 20  # largest uncompressed size of a PNG's colour profile in bytes
_MOST_PACKED = 1032  # zlib's largest compression ratio

_NO_FILE = "{}: is a pipe or a device, which could wait for ever; copy it to a file"
_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Openable(Protocol):
    """An object with the ``open`` of a :class:`~pathlib.Path`, and a name as its ``str``."""

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """Open the encoded picture for reading."""
        ...


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright sRGB picture of any size, stored as compactly as its source allows.

    Attributes:
        colour: mode ``RGB``; for a grey picture ``L``, or ``F`` in [0, 1] if its source has more than 8 bits.
        alpha: mode ``L`` of the same size, or None for an opaque picture.
        animated: whether this is the first frame of an animation.
        pages: number of pages of its file, of which this is one.
    """

    colour: Image.Image
    alpha: Image.Image | None = None
    animated: bool = False
    pages: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.colour.size

    def rows(self, top: int, bottom: int) -> NDArray[np.float32]:
        """Return the rows from ``top`` up to ``bottom`` as sRGB in [0, 1], ``(bottom - top, W, 3 or 1)``."""
        strip = self.colour.crop((0, top, self.colour.width, bottom))
        values = np.asarray(strip, dtype=np.float32)
        if values.ndim == 2:
            values = values[..., np.newaxis]
        return np.clip(values, 0, 1) if self.colour.mode == "F" else values / np.float32(255)

    def rgb(self) -> Image.Image:
        """Return the visible picture in mode ``RGB`` with 8 bits; a grey one has three equal channels."""
        visible = self.visible()
        if visible.colour.mode != "F":
            return visible.colour.convert("RGB")
        values = visible.rows(0, self.size[1])[..., 0]
        return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")

    def resized(self, size: tuple[int, int]) -> "Picture":
        """Return the visible picture at ``size`` (width, height), antialiased."""
        visible = self.visible()
        if size == self.size:
            return visible
        return Picture(visible.colour.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))

    def visible(self) -> "Picture":
        """Return the picture on a ground of its visible parts' mean luma, which adds neither colour nor contrast.

        Pixels that alpha hides have no effect: they can be anything, such as the green behind a cut-out figure.
        """
        if self.alpha is None:
            return Picture(self.colour)
        if self.colour.mode == "F":
            weights = np.asarray(self.alpha, dtype=np.float32) / np.float32(255)
            seen = self.rows(0, self.size[1])[..., 0] * weights
            mean = seen.sum(dtype=np.float64) / max(weights.sum(dtype=np.float64), 1.0)
            return Picture(Image.fromarray(seen + (1 - weights) * np.float32(mean)))
        black = Image.new("L", self.size)
        luma = ImageStat.Stat(Image.composite(self.colour.convert("L"), black, self.alpha)).sum[0]
        opacity = ImageStat.Stat(self.alpha).sum[0] / 255
        grey = round(luma / max(opacity, 1.0))
        ground = Image.new(self.colour.mode, self.size, grey if self.colour.mode == "L" else (grey,) * 3)
        return Picture(Image.composite(self.colour, ground, self.alpha))


def read_image(path: str | Path | Openable, side: int | None = None) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF, BMP or GIF file of any mode, upright and in sRGB.

    AVIF is read if Pillow supports it, and HEIC if pillow-heif is installed. EXIF orientation is applied and an ICC
    profile is converted to sRGB (a broken one is ignored with a warning in the log). Grey pictures of more than 8 bits
    keep their precision; others are read at 8 bits. Of several pages or frames, the first is read.

    Args:
        path: the file, or another object that can be opened.
        side: sufficient length of the shorter side in pixels: a JPEG may be decoded faster at a fraction of its size,
            not below this length. None for the full size.

    Raises:
        UserError: the file is missing, a folder, empty, truncated, not an image, or larger than Pillow's limit of
            about 178 megapixels (twice ``PIL.Image.MAX_IMAGE_PIXELS``).
    """
    with _opened(path) as image:
        if side is not None:
            image.draft(None, (side, side))
        pages = _pages(image)
        image.seek(pages[0])
        animated = image.format in _FRAMED and bool(getattr(image, "is_animated", False))
        picture = picture_from_pil(image, str(path))
        return Picture(picture.colour, picture.alpha, animated, len(pages))


class Header(NamedTuple):
    """The properties of a picture that are known before it is decoded.

    Attributes:
        size: width and height in pixels, as stored.
        bits: bits per channel that are read: 8, or 16 for a grey picture of more than 8.
        pages: number of pages of the file.
        animated: whether it is the first frame of an animation.
    """

    size: tuple[int, int]
    bits: int
    pages: int
    animated: bool


def read_header(path: str | Path | Openable) -> Header:
    """Return the header of a picture, without decoding it.

    Raises:
        UserError: see :func:`read_image`, for reasons that are known without decoding.
    """
    with _opened(path) as image:
        pages = _pages(image)
        image.seek(pages[0])
        animated = image.format in _FRAMED and bool(getattr(image, "is_animated", False))
        return Header(image.size, 16 if image.mode.startswith(("I", "F")) else 8, len(pages), animated)


class Page(NamedTuple):
    """A page of a file, with its metadata."""

    picture: Picture
    metadata: Metadata


def read_pages(path: str | Path | Openable) -> Iterator[Page]:
    """Yield the pages of a file, each read as by :func:`read_image`.

    Raises:
        UserError: see :func:`read_image`; the message names the page.
    """
    with _opened(path) as image:
        pages = _pages(image)
        for number, frame in enumerate(pages, 1):
            try:
                image.seek(frame)
                name = f"{path}, page {number}"
                metadata = metadata_of(image, name)
                picture = picture_from_pil(image, name)
            except (UserError, MemoryError, Image.DecompressionBombError):
                raise
            except Exception as error:  # as in _opened
                raise UserError(
                    f"{path}: page {number} cannot be read ({_plain(error)}); copy or save the file again"
                ) from error
            colour = image.copy() if picture.colour is image else picture.colour  # `image` becomes the next page
            yield Page(Picture(colour, picture.alpha, pages=len(pages)), metadata)


def count_pages(path: str | Path | Openable) -> int:
    """Return the number of pages of a file; 1 if it cannot be read, and for all formats but TIFF."""
    try:
        with _opened(path) as image:
            return len(_pages(image))
    except UserError:
        return 1


def read_metadata(path: str | Path | Openable) -> Metadata:
    """Return the metadata that the result of a file keeps; empty if the file cannot be read."""
    try:
        with _opened(path) as image:
            if image.format == "PNG":
                image.load()  # texts may follow the pixels
            return metadata_of(image, str(path))
    except UserError:
        return Metadata()


def _pages(image: Image.Image) -> list[int]:
    """Return the numbers of the frames that are pages: in a TIFF, those that are neither thumbnails nor masks."""
    if image.format != "TIFF" or getattr(image, "n_frames", 1) == 1:
        return [0]
    pages = []
    for frame in range(getattr(image, "n_frames", 1)):
        image.seek(frame)
        kind = getattr(image, "tag_v2", {}).get(254, 0)
        if not isinstance(kind, int) or not kind & 0b101:
            pages.append(frame)
    return pages or [0]


@contextlib.contextmanager
def _opened(path: str | Path | Openable) -> Iterator[Image.Image]:
    """Open a picture's file; errors in the block that its contents cause become a UserError.

    Raises:
        UserError: see :func:`read_image`.
    """
    path = Path(path) if isinstance(path, str) else path
    try:
        if isinstance(path, Path):
            _check_is_file(path)
        with path.open("rb") as file, warnings.catch_warnings():
            if not file.read(1):
                raise UserError(f"{path}: is empty (0 bytes); copy it again")
            if is_raw(path):
                raise UserError(why_unread(Path(str(path))) or "")
            file.seek(0)
            # Pillow warns about odd metadata, and above half of its size limit, which large scans exceed.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            try:
                image = _open(file)
            except UnidentifiedImageError as error:
                raise UserError(why_unidentified(path, file)) from error
            with image:
                if image.format == "JPEG" and file.seek(0, io.SEEK_END) * 8 < image.width * image.height // 64:
                    # Each block of 8×8 pixels takes at least a bit; decoding missing blocks could take minutes.
                    raise UserError(f"{path}: is truncated or damaged (too short for its size); copy or save it again")
                yield image
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such image; check the path") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise UserError(f"{path}: has more than {limit} million pixels; make it smaller or cut it") from error
    except MemoryError as error:
        raise UserError(f"{path}: does not fit in this machine's memory; make it smaller or cut it") from error
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders can raise anything for a damaged file
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        raise UserError(f"{path}: is truncated or damaged ({_plain(error)}); copy or save it again") from error


def _check_is_file(path: Path) -> None:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder; name an image in it")
    if not stat.S_ISREG(mode):
        raise UserError(_NO_FILE.format(path))


def _plain(error: Exception) -> str:
    """Return the message of an error as one printable line: decoders quote bytes of the file."""
    return "".join(c for c in " ".join(str(error).split()) if c.isprintable())


def _open(file: IO[bytes]) -> Image.Image:
    """Open a picture; a PNG without large texts and profile, which Pillow refuses as an attack.

    Raises:
        UnidentifiedImageError: Pillow finds no picture.
    """
    light, profile = _light_png(file)
    image = Image.open(light, formats=readable_formats())
    if profile:
        image.info["icc_profile"] = profile
    return image


def _light_png(file: IO[bytes]) -> tuple[IO[bytes], bytes | None]:
    """Return the file, or a copy without large texts and profile if it is such a PNG, and the removed profile."""
    if file.read(8) != b"\x89PNG\r\n\x1a\n":
        file.seek(0)
        return file, None
    kept: list[tuple[int, int]] = []  # start and length of chunks
    texts: list[int] = []  # positions of texts in `kept`
    weight, profile, dropped = 0, None, False
    start = 8
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"iCCP":
            unpacked = _unpacked_profile(file.read(min(length, _BIG_TEXT)))
            if len(unpacked) > _LARGE_TEXT:
                profile, dropped = unpacked if len(unpacked) <= _BIG_TEXT else None, True
                start = file.seek(start + length + 12)
                continue
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            texts.append(len(kept))
            packed = kind == b"zTXt" or (kind == b"iTXt" and file.read(81).partition(b"\0")[2][:1] == b"\1")
            weight += length * (_MOST_PACKED if packed else 1)
        kept.append((start, length + 12))
        start = file.seek(start + length + 12)
    if weight > _LARGE_TEXT:
        kept = [place for number, place in enumerate(kept) if number not in texts]
    elif not dropped:
        file.seek(0)
        return file, None
    light = io.BytesIO()
    for start, length in [(0, 8), *kept]:
        file.seek(start)
        light.write(file.read(length))
    light.seek(0)
    return light, profile


def _unpacked_profile(chunk: bytes) -> bytes:
    """Return the profile in a PNG's ``iCCP`` chunk, cut to one byte above the limit; empty if it is broken."""
    try:
        return zlib.decompressobj().decompress(chunk.partition(b"\0")[2][1:], _BIG_TEXT + 1)
    except zlib.error:
        return b""


def picture_from_pil(image: Image.Image, name: str = "image") -> Picture:
    """Return a PIL image of any mode as an upright sRGB :class:`Picture`; ``image`` is not changed.

    Args:
        image: its EXIF orientation and ICC profile, if any, are applied.
        name: its name in warnings.

    Raises:
        UserError: the image's mode is not that of a picture, or the image has no pixels.
    """
    if 0 in image.size:
        raise UserError(f"{name}: has no pixels ({image.width}×{image.height}); choose another image")
    image.load()
    profile = read_profile(image, name)
    upright = _upright(image, name)
    alpha = _alpha(upright)
    if upright.mode.startswith(("I", "F")):
        colour = _grey_from_numbers(upright, image)
        return Picture(grey_to_srgb(colour, profile, name), alpha)
    if upright.mode in ("1", "L", "LA", "La"):
        grey = upright.convert("LA") if upright.mode == "La" else upright
        grey = grey if grey.mode == "L" else grey.convert("L")
        return Picture(grey_to_srgb(grey, profile, name), alpha)
    return Picture(colour_to_srgb(_plain_colour(upright, name), profile, name), alpha)


def write_image(path: str | Path, image: Image.Image | Pixels, metadata: Metadata | None = None) -> None:
    """Write ``image`` atomically in the format of the suffix; after a failure, an earlier file is unchanged.

    JPEG and WebP are written at quality 95 (JPEG without chroma subsampling), PNG and TIFF without loss. In JPEG and
    BMP, which have no transparency, the picture is on white. An sRGB profile is embedded.

    Args:
        path: the file.
        image: sRGB of 8 bits, or of 16 bits as an array, ``(H, W, 3 or 4)``, for PNG and TIFF.
        metadata: the metadata to write.

    Raises:
        UserError: the suffix is unknown, the format cannot hold the image, the disk is full, or the file
            cannot be written.
    """
    path = Path(path)
    check_writable_suffix(path, 8 if isinstance(image, Image.Image) else 16)
    # The image is encoded in memory first: Pillow does not notice a short write to a file.
    encoded = _encoded(path, image, metadata or Metadata())
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def write_pages(path: str | Path, pages: Iterable[tuple[Image.Image | Pixels, Metadata]]) -> None:
    """Write pages into one TIFF atomically, each before the next is requested; see :func:`write_image`.

    Raises:
        UserError: the suffix is not that of a TIFF; or see :func:`write_image`.
    """
    path = Path(path)
    if path.suffix.lower() not in TIFF_SUFFIXES:
        raise UserError(f"{path}: only a TIFF holds several pages; use one of {', '.join(TIFF_SUFFIXES)}")
    with replacing(path) as temporary, temporary.open("w+b") as file:
        try:
            write_tiff(file, ((_samples(image), metadata.options("TIFF")) for image, metadata in pages))
        except ValueError as error:
            raise UserError(f"{path}: TIFF cannot hold these pages ({error}); split the file") from error


def _encoded(path: Path, image: Image.Image | Pixels, metadata: Metadata) -> io.BytesIO:
    format_name, options = _WRITABLE[path.suffix.lower()]
    encoded = io.BytesIO()
    try:
        if format_name == "TIFF":
            write_tiff(encoded, [(_samples(image), metadata.options(format_name))])
            return encoded
        if not isinstance(image, Image.Image):
            return io.BytesIO(encode_png(image, metadata.options(format_name)))
        if format_name in _WITHOUT_ALPHA and image.mode == "RGBA":
            ground = Image.new("RGB", image.size, "white")
            ground.paste(image, mask=image.getchannel("A"))
            image = ground
        options = {**options, **metadata.options(format_name)}
        if image.mode not in ("RGB", "RGBA"):  # the sRGB profile is not one of a grey picture
            del options["icc_profile"]
        image.save(encoded, format=format_name, **options)
    except (OSError, ValueError, struct.error) as error:
        height, width = image.shape[:2] if not isinstance(image, Image.Image) else image.size[::-1]
        picture = f"this {width}×{height} picture"
        raise UserError(f"{path}: {format_name} cannot hold {picture} ({error}); choose .png") from error
    return encoded


def _samples(image: Image.Image | Pixels) -> NDArray[Any]:
    """Return an image's pixels, ``(H, W, 3 or 4)``."""
    if not isinstance(image, Image.Image):
        return image
    return np.asarray(image if image.mode in ("RGB", "RGBA") else image.convert("RGB"))


def check_writable_suffix(path: Path, depth: int = 8) -> str:
    """Return the suffix of ``path`` in lower case.

    Args:
        path: the name of a picture.
        depth: required bits per channel, 8 or 16.

    Raises:
        UserError: :func:`write_image` knows no format with this suffix, or the format has fewer bits.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITABLE:
        known = ", ".join(_WRITABLE)
        reason = (
            f"the suffix {path.suffix} is not known" if suffix else "there is no suffix, which determines the format"
        )
        raise UserError(f"{path}: {reason}; use one of {known}")
    if depth > 8 and suffix not in DEEP_SUFFIXES:
        raise UserError(f"{path}: {suffix} holds 8 bits per channel; use one of {', '.join(DEEP_SUFFIXES)} for {depth}")
    return suffix


def list_images(folder: str | Path, left_out: Callable[[str], None] | None = None, natural: bool = True) -> list[Path]:
    """Return all images below ``folder``, sorted: files whose suffix, in any case, is that of a readable format.

    Hidden files and folders are left out. Links to folders are followed, except in a circle. Pictures of formats that
    are not read are always reported.

    Args:
        folder: the folder.
        left_out: called with a sentence for each subfolder that cannot be listed and each picture of a format that is
            not read. None: such a folder is an error, and such pictures are counted in a warning in the log.
        natural: sort numbers in names by value. False: sort paths as text, the order on which the draws of training
            and evaluation are based.

    Raises:
        UserError: the folder is missing, is a file, cannot be listed, or contains no image.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UserError(f"{folder}: there is no such folder; check the path")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; name the folder with the images")
    order = natural_order if natural else None
    images, unread = [], []
    for path in sorted(_walk(folder, frozenset(), left_out), key=order):
        why = why_unread(path)
        if why is None:
            images.append(path)
        else:
            unread.append(why)
            if left_out is not None:
                left_out(why)
    if not images and unread:
        raise UserError(f"{folder}: holds no image that can be read; {len(unread)} cannot, the first: {unread[0]}")
    if not images:
        raise UserError(f"{folder}: holds no image ({FORMATS}); choose another folder")
    if unread and left_out is None:
        _logger.warning("%s: %d pictures in it are not read, the first: %s", folder, len(unread), unread[0])
    return images


def natural_order(path: Path) -> tuple[list[list[str | int]], Path]:
    """Return a key that sorts paths by their parts, and numbers in them by value: f2 comes before f10."""
    parts = [re.split("([0-9]+)", part) for part in path.parts]
    return [[int(piece) if place % 2 else piece for place, piece in enumerate(part)] for part in parts], path


def _walk(folder: Path, above: frozenset[str], left_out: Callable[[str], None] | None) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        sentence = f"{folder}: cannot be listed ({error.strerror}); check its permissions"
        if left_out is None or not above:
            raise UserError(sentence) from error
        left_out(sentence)
        return
    above = above | {os.path.realpath(folder)}
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            continue
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a link to itself
            if os.path.realpath(path) not in above:
                yield from _walk(path, above, left_out)
        elif named_as_picture(path):
            # A link is followed when it is opened: it may lead nowhere, or to itself.
            if entry.is_symlink() or entry.is_file():
                yield path
            elif left_out is None:
                _logger.warning("left out: %s", _NO_FILE.format(path))
            else:
                left_out(_NO_FILE.format(path))


def _upright(image: Image.Image, name: str) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception as error:  # broken EXIF data are no reason to refuse the picture
        _logger.warning("%s: its EXIF data is broken and ignored (%s)", name, error)
        return image
    transpose = _ORIENTATIONS.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _alpha(image: Image.Image) -> Image.Image | None:
    if not image.has_transparency_data or image.mode in ("F", "CMYK"):
        return None
    if image.mode.startswith("I"):
        opaque = np.asarray(image) != image.info["transparency"]
        return Image.fromarray(opaque.astype(np.uint8) * np.uint8(255))
    if "A" in image.getbands() or "a" in image.getbands():
        return image.getchannel(len(image.getbands()) - 1)
    return image.convert("LA" if image.mode in ("1", "L") else "RGBA").getchannel("A")


def _plain_colour(image: Image.Image, name: str) -> Image.Image:
    """Return ``image`` in the mode of its profile: RGB, CMYK or LAB."""
    if image.mode in ("RGB", "CMYK", "LAB"):
        return image
    if image.mode in ("RGBa", "PA") or image.has_transparency_data:  # these cannot be converted to RGB directly
        image = image.convert("RGBA")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise UserError(f"{name}: its mode {image.mode} is not a picture's; convert it to RGB") from error


def _grey_from_numbers(image: Image.Image, source: Image.Image) -> Image.Image:
    """Convert 16-bit, 32-bit and float grey pictures to mode F in [0, 1].

    Integers up to 65535 are 16-bit values; floats up to 1 are used unchanged, up to 255 and 65535 as 8-bit and 16-bit
    values. If there are larger numbers, the largest is white.
    """
    numbers = np.asarray(image)
    whole = numbers.dtype.kind != "f"
    values = np.nan_to_num(numbers.astype(np.float32), nan=0.0, posinf=np.nan)
    largest = float(np.nanmax(values, initial=0.0))
    values = np.nan_to_num(values, copy=False, nan=largest)
    scales = (65535.0,) if whole else (1.0, 255.0, 65535.0)
    values /= next((scale for scale in scales if largest <= scale), largest)
    np.clip(values, 0, 1, out=values)
    tags = getattr(source, "tag_v2", {})
    if tags.get(262) == 0:  # TIFF's "white is zero", which Pillow inverts only up to 8 bits
        np.subtract(1, values, out=values)
    return Image.fromarray(values)
