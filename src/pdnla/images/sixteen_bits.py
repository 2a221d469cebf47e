"""PNG and TIFF files that Pillow cannot write: 16 bits per channel in colour, pages one by one, TIFFs with EXIF data.

This module encodes only pixels; Pillow encodes metadata.
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

Pixels = NDArray[np.uint16]
"""An sRGB picture of 16 bits, ``(H, W, 3)``, or ``(H, W, 4)`` with alpha."""

_LEVEL = 2  # of zlib: higher levels take several times as long and save a few per cent
_STRIP = 1 << 20  # samples encoded at a time, to limit the memory
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode_png(pixels: Pixels, options: dict[str, Any]) -> bytes:
    """Return a PNG file of ``pixels``; ``options`` are Pillow's for the metadata."""
    height, width, channels = pixels.shape
    header = struct.pack(">2I5B", width, height, 16, 6 if channels == 4 else 2, 0, 0, 0)
    like = io.BytesIO()
    Image.new("RGB", (1, 1)).save(like, format="PNG", **options)
    others = b"".join(
        _chunk(kind, data) for kind, data in _chunks(like.getvalue()) if kind not in (b"IHDR", b"IDAT", b"IEND")
    )
    packer = zlib.compressobj(_LEVEL)
    data = b"".join([*(packer.compress(part) for part in _filtered(pixels)), packer.flush()])
    return b"".join(
        [_SIGNATURE, _chunk(b"IHDR", header), others, *_image_data(data), _chunk(b"IEND", b"")],
    )


def _filtered(pixels: Pixels) -> Iterator[bytes]:
    """Yield rows, big-endian, as differences from the row above (PNG's filter 2)."""
    height, width, channels = pixels.shape
    above = np.zeros((1, width * channels * 2), np.uint8)
    step = max(1, _STRIP // (width * channels))
    for top in range(0, height, step):
        rows = pixels[top : top + step].astype(">u2").reshape(-1, width * channels).view(np.uint8)
        filtered = np.full((len(rows), rows.shape[1] + 1), 2, np.uint8)
        filtered[:, 1:] = rows - np.concatenate([above, rows[:-1]])
        above = rows[-1:]
        yield filtered.tobytes()


def _image_data(data: bytes) -> Iterator[bytes]:
    longest = 1 << 30
    for start in range(0, len(data), longest):
        yield _chunk(b"IDAT", data[start : start + longest])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = len(_SIGNATURE)
    while start < len(file):
        (length,) = struct.unpack_from(">I", file, start)
        yield file[start + 4 : start + 8], file[start + 8 : start + 8 + length]
        start += length + 12


def write_tiff(file: IO[bytes], pages: Iterable[tuple[NDArray[Any], dict[str, Any]]]) -> None:
    """Write pages into an empty file as a TIFF, each before the next is requested.

    Pillow cannot write 16-bit colours, and does not write the dates of EXIF data into a compressed TIFF.

    Args:
        file: the file, open for writing and seeking.
        pages: pixels of 8 or 16 bits, and Pillow's options ``exif``, ``dpi`` and ``icc_profile``, for each page.

    Raises:
        ValueError: the file would have more than 4 GB.
    """
    file.write(b"II*\0\0\0\0\0")
    pointer = 4  # position of the offset of the next page
    for pixels, options in pages:
        place = file.seek(0, io.SEEK_END)
        strips = _tiff_strips(pixels)
        directory = _tiff_directory(pixels.shape, pixels.dtype.itemsize * 8, strips, options)
        try:
            written = directory.tobytes(place)
            file.seek(pointer)
            file.write(struct.pack("<I", place))
        except struct.error as error:
            raise ValueError("it would have more than 4 GB") from error
        file.seek(place)
        file.write(written)
        for strip in strips:
            file.write(strip)
        if file.tell() % 2:
            file.write(b"\0")  # directories start at even offsets
        (entries,) = struct.unpack_from("<H", written)
        pointer = place + 2 + 12 * entries


def _rows_in_strip(width: int, channels: int) -> int:
    return max(1, _STRIP // (width * channels))


def _tiff_strips(pixels: NDArray[Any]) -> list[bytes]:
    height, width, channels = pixels.shape
    step = _rows_in_strip(width, channels)
    return [zlib.compress(_differences(pixels[top : top + step]), _LEVEL) for top in range(0, height, step)]


def _tiff_directory(
    shape: tuple[int, ...], bits: int, strips: Sequence[bytes], options: dict[str, Any]
) -> ImageFileDirectory_v2:
    height, width, channels = shape
    directory = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    exif = options.get("exif") or Image.Exif()
    for tag in exif:
        directory[tag] = exif.get_ifd(tag) if tag in (0x8769, 0x8825) else exif[tag]
    directory[256], directory[257] = width, height
    directory[258] = (bits,) * channels
    directory[259] = 8  # Deflate
    directory[262] = 2  # RGB
    directory[273] = tuple(np.cumsum([0, *map(len, strips[:-1])]).tolist())  # relative to the end of the directory
    directory[277], directory[278] = channels, _rows_in_strip(width, channels)
    directory[279] = tuple(map(len, strips))
    if "dpi" in options:
        directory[282], directory[283] = options["dpi"]
        directory[296] = 2  # inches
    directory[317] = 2  # differences
    if channels == 4:
        directory[338] = 2  # alpha with which the colours are not multiplied
    if "icc_profile" in options:
        directory.tagtype[34675] = 7
        directory[34675] = options["icc_profile"]
    return directory


def _differences(rows: NDArray[Any]) -> bytes:
    """Return rows, little-endian, as differences from the pixel on the left (TIFF's predictor 2)."""
    differences = rows.astype(rows.dtype.newbyteorder("<"))
    differences[:, 1:] -= rows[:, :-1]
    return differences.tobytes()
