"""Reading and writing images as people have them: any mode, orientation and profile in, whole files out.

No torch here: the commands import this module before they know whether there is anything to compute.
"""

import io
import logging
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.images.profiles import colour_to_srgb, grey_to_srgb, read_profile

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib")
"""What the name of an image ends in, in lower case."""

_READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB")
_FORMATS = "PNG, JPEG, WebP, TIFF or BMP"

_logger = logging.getLogger(__name__)

_WRITABLE: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {"compress_level": 2}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".webp": ("WEBP", {"quality": 95}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".bmp": ("BMP", {}),
}
_WITHOUT_ALPHA = frozenset({"JPEG", "BMP"})

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
    """What can be opened as a :class:`~pathlib.Path` can and is named by its ``str``."""

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """Return the encoded picture as a file to read."""
        ...


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright sRGB picture of any size, held as compactly as its source allows.

    Attributes:
        colour: mode ``RGB``; a grey picture's ``L``, or ``F`` in [0, 1] where its source has over 8 bits.
        alpha: mode ``L`` of the same size, or None for an opaque picture.
    """

    colour: Image.Image
    alpha: Image.Image | None = None

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
        """Return the picture, without alpha, in mode ``RGB``: 8 bits, a grey one with three equal channels."""
        if self.colour.mode != "F":
            return self.colour.convert("RGB")
        return Image.fromarray((self.rows(0, self.size[1])[..., 0] * 255).round().astype(np.uint8)).convert("RGB")

    def resized(self, size: tuple[int, int]) -> "Picture":
        """Return the picture, without alpha, at ``size`` (width, height), antialiased."""
        if size == self.size:
            return Picture(self.colour)
        return Picture(self.colour.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def read_image(path: str | Path | Openable, side: int | None = None) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF or BMP file of any mode, upright and in sRGB.

    EXIF orientation is applied and an ICC profile is converted to sRGB (a broken one is ignored, with a
    warning in the log). Grey pictures of more than 8 bits keep their precision; the rest is read at 8 bits.

    Args:
        path: the file, or something else that can be opened.
        side: what is enough of the shorter side, in pixels: a JPEG may be decoded, faster, at a fraction of its size
            that has as many. None for the full size.

    Raises:
        UserError: the file is missing, a folder, empty, truncated, no image, or larger than Pillow's limit of
            about 178 megapixels (twice ``PIL.Image.MAX_IMAGE_PIXELS``).
    """
    path = Path(path) if isinstance(path, str) else path
    if isinstance(path, Path) and path.is_dir():
        raise UserError(f"{path}: is a folder; name an image in it")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            if not file.read(1):
                raise UserError(f"{path}: is empty (0 bytes); copy it again")
            file.seek(0)
            # Pillow warns from half of its limit on, which a large scan reaches; the limit itself stays.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=_READABLE) as image:
                if side is not None:
                    image.draft(None, (side, side))
                image.load()
                return picture_from_pil(image, name=str(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such image; check the path") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: is not an image that can be read; convert it to {_FORMATS}") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise UserError(f"{path}: has more than {limit} million pixels; make it smaller or cut it") from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything at a damaged file
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        raise UserError(f"{path}: is truncated or damaged ({error}); copy or save it again") from error


def picture_from_pil(image: Image.Image, name: str = "image") -> Picture:
    """Return a PIL image of any mode as an upright sRGB :class:`Picture`; ``image`` itself is left as it is.

    Args:
        image: its EXIF orientation and ICC profile, if any, are applied.
        name: what a warning about its profile or EXIF data calls it.

    Raises:
        UserError: the image's mode has no meaning as a picture, or the image has no pixels.
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


def write_image(path: str | Path, image: Image.Image) -> None:
    """Write ``image`` in the format its suffix names, whole: a failure leaves what was there before.

    JPEG and WebP are written at quality 95 (JPEG without chroma subsampling), PNG and TIFF without loss.
    JPEG and BMP hold no transparency: there the picture is laid on white.

    Raises:
        UserError: the suffix is unknown, the format cannot hold the image, the disk is full, or the place
            cannot be written to.
    """
    path = Path(path)
    format_name, options = _WRITABLE[check_writable_suffix(path)]
    if format_name in _WITHOUT_ALPHA and image.mode == "RGBA":
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image.getchannel("A"))
        image = ground
    # Encoding to memory first: Pillow does not notice a short write to a file.
    encoded = io.BytesIO()
    try:
        image.save(encoded, format=format_name, **options)
    except (OSError, ValueError, struct.error) as error:
        picture = f"this {image.width}×{image.height} picture"
        raise UserError(f"{path}: {format_name} cannot hold {picture} ({error}); choose .png") from error
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def check_writable_suffix(path: Path) -> str:
    """Return the suffix of ``path`` in lower case.

    Raises:
        UserError: no format that :func:`write_image` knows has that suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITABLE:
        known = ", ".join(_WRITABLE)
        said = f"the suffix {path.suffix} is not known" if suffix else "there is no suffix to say the format"
        raise UserError(f"{path}: {said}; use one of {known}")
    return suffix


def list_images(folder: str | Path, left_out: Callable[[str], None] | None = None, natural: bool = True) -> list[Path]:
    """Return every image below ``folder``, sorted: files with one of :data:`IMAGE_SUFFIXES`, upper case too.

    Hidden files and folders are left out. Links to folders are followed, but not back to where they started.

    Args:
        folder: where to look.
        left_out: is told, in a sentence, of each folder below that cannot be listed; the rest is listed. None: one
            that cannot be listed is an error.
        natural: sort numbers in names by value, as a person would. False: sort paths as text, the order from which
            training and evaluation draw by seed.

    Raises:
        UserError: the folder is missing, is a file, cannot be listed, or holds no image.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UserError(f"{folder}: there is no such folder; check the path")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; name the folder with the images")
    images = sorted(_walk(folder, frozenset(), left_out), key=natural_order if natural else None)
    if not images:
        raise UserError(f"{folder}: holds no image ({_FORMATS}); choose another folder")
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
        if os.path.isdir(path):  # noqa: PTH112 - the others raise at a link to itself
            if os.path.realpath(path) not in above:
                yield from _walk(path, above, left_out)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def _upright(image: Image.Image, name: str) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception as error:  # many hands write EXIF; a broken one is no reason to refuse the picture
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
    """Return ``image`` in the mode its profile speaks about: RGB, CMYK or LAB."""
    if image.mode in ("RGB", "CMYK", "LAB"):
        return image
    if image.mode in ("RGBa", "PA") or image.has_transparency_data:  # these do not convert straight to RGB
        image = image.convert("RGBA")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise UserError(f"{name}: its mode {image.mode} is not a picture's; convert it to RGB") from error


def _grey_from_numbers(image: Image.Image, source: Image.Image) -> Image.Image:
    """Bring 16-bit, 32-bit and float greys to mode F in [0, 1].

    Whole numbers up to 65535 are 16-bit values; floats up to 1 are taken as they are, up to 255 and up to
    65535 as 8-bit and 16-bit values; where the numbers go beyond, the largest is white.
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
    if tags.get(262) == 0:  # TIFF's "white is zero", which Pillow undoes only up to 8 bits
        np.subtract(1, values, out=values)
    return Image.fromarray(values)
