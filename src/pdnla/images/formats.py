"""Image formats: those that are read, and error messages for the others."""

import functools
import importlib.util
import warnings
from pathlib import Path, PurePath
from typing import IO

from PIL import features
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_HAS_AVIF = "avif" in features.modules and bool(features.check("avif"))  # Pillow 11.3 and later, as a rule
_HAS_HEIC = importlib.util.find_spec("pillow_heif") is not None
_AVIF, _HEIC = (".avif",), (".heic", ".heif", ".hif")

IMAGE_SUFFIXES = (
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif")
    + _AVIF * _HAS_AVIF
    + _HEIC * _HAS_HEIC
)
"""Suffixes of images that are read, in lower case."""

FORMATS = "PNG, JPEG, WebP, TIFF or BMP"
"""Formats to which messages suggest converting other pictures."""

_RAW = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mrw", ".nef", ".nrw", ".orf",
    ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
_OTHERS = (
    ".ai", ".djvu", ".dpx", ".emf", ".eps", ".exr", ".fits", ".hdr", ".icns", ".ico", ".j2c", ".j2k", ".jp2", ".jpf",
    ".jpm", ".jpx", ".jxl", ".jxr", ".kra", ".mpo", ".pam", ".pbm", ".pcx", ".pgm", ".pict", ".pnm", ".ppm", ".ps",
    ".psb", ".psd", ".qoi", ".ras", ".sgi", ".svg", ".svgz", ".tga", ".wmf", ".xbm", ".xcf", ".xpm",
)  # fmt: skip

_BRANDS = {
    b"avif": _AVIF[0], b"avis": _AVIF[0], b"heic": _HEIC[0], b"heix": _HEIC[0], b"hevc": _HEIC[0], b"heim": _HEIC[0],
    b"heis": _HEIC[0], b"mif1": _HEIC[0], b"msf1": _HEIC[0],
}  # fmt: skip
_START = 16  # bytes at the start of a file that identify its format


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are read."""
    formats = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF"]
    if _HAS_AVIF:
        formats.append("AVIF")
    if _HAS_HEIC:
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats.append("HEIF")
    return tuple(formats)


def why_unread(path: PurePath) -> str | None:
    """Return an error message if a file has the suffix of an image format that is not read, else None."""
    suffix = path.suffix.lower()
    why = None if suffix in IMAGE_SUFFIXES else _why(suffix)
    return why and f"{path}: {why}"


def named_as_picture(path: PurePath) -> bool:
    """Return whether a file has the suffix of an image format, whether that is read or not."""
    return path.suffix.lower() in IMAGE_SUFFIXES or why_unread(path) is not None


def is_raw(path: object) -> bool:
    """Return whether a path has the suffix of a camera's raw file; some look like a TIFF of the preview."""
    return isinstance(path, Path) and path.suffix.lower() in _RAW


def why_unidentified(path: object, file: IO[bytes]) -> str:
    """Return the error message for a file in which Pillow finds no picture, from its first bytes and its name."""
    file.seek(0)
    start = file.read(_START)
    if start[4:8] == b"ftyp" and start[8:12] in _BRANDS:
        suffix = _BRANDS[start[8:12]]
        if suffix not in IMAGE_SUFFIXES:
            return f"{path}: {_why(suffix)}"
        return f"{path}: is truncated or damaged; copy or save it again"
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return f"{path}: {_why_tiff(start, file)}"
    return (why_unread(path) if isinstance(path, PurePath) else None) or (
        f"{path}: is not an image that can be read; convert it to {FORMATS}"
    )


def _why(suffix: str) -> str | None:
    if suffix in _HEIC:
        return (
            'is HEIC, which is read with an extra, pip install "pdnla[heic]"; install it or convert the picture to JPEG'
        )
    if suffix in _AVIF:
        return "is AVIF, which this Pillow does not read; pip install --upgrade pillow, or convert it to JPEG"
    if suffix in _RAW:
        return "is a camera's raw file, which is not read; develop it to TIFF or JPEG"
    if suffix in _OTHERS:
        return f"is a picture of a format that is not read ({suffix[1:].upper()}); convert it to {FORMATS}"
    return None


_KINDS = {1: "whole numbers", 2: "signed numbers", 3: "floats", 5: "complex numbers", 6: "complex numbers"}
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "LAB", 9: "LAB", 10: "LAB"}


def _why_tiff(start: bytes, file: IO[bytes]) -> str:
    damaged = "is truncated or damaged; copy or save it again"
    try:
        tags = ImageFileDirectory_v2(start[: 16 if start[2:3] == b"+" or start[3:4] == b"+" else 8])
        file.seek(tags.next)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the caller reports damage
            tags.load(file)
        bits, kinds, colours = (tags.get(tag, default) for tag, default in ((258, (1,)), (339, (1,)), (262, 1)))
        count, compression = tags.get(277, len(bits)), tags.get(259, 1)
        if not {256, 257, 262} <= set(tags) or not isinstance(colours, int):
            return damaged
        numbers = f"{count} x {max(bits)} bits, {_KINDS.get(max(kinds), 'unknown numbers')}"
    except Exception:  # damaged bytes can raise anything here
        return damaged
    what = f"{_COLOURS.get(colours, 'unknown colours')}, {numbers}, compression {compression}"
    return f"is a TIFF of a kind that is not read ({what}); save it as RGB or grey of 8 or 16 bits, LZW or Deflate"
