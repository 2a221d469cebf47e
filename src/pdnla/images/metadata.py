"""Metadata of an image file that its result keeps."""

import logging
import re
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pdnla.images.profiles import SRGB_PROFILE

_logger = logging.getLogger(__name__)

# EXIF tags that do not depend on how pixels are stored: description, camera, software, dates, people, rights.
_KEPT = (269, 270, 271, 272, 285, 297, 305, 306, 315, 316, 318, 319, 18246, 33432, 40091, 40092, 40093, 40094, 40095)
_ORIENTATION, _XMP, _EXIF, _GPS = 274, 700, 0x8769, 0x8825
_COLOUR_SPACE, _WIDTH, _HEIGHT, _INTEROPERABILITY = 0xA001, 0xA002, 0xA003, 0xA005
_UPRIGHT = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))[2-8]""")
_JPEG_SEGMENT = 65_000  # largest segment of a JPEG file in bytes
_TEXT = 1 << 20  # largest kept text in bytes
_TEXTS = ("Title", "Author", "Description", "Copyright", "Creation Time", "Software", "Source", "Comment")


@dataclass(frozen=True)
class Metadata:
    """The metadata that a result keeps.

    Attributes:
        dpi: horizontal and vertical resolution of the upright picture in pixels per inch.
        exif: EXIF data, adapted to an upright sRGB picture; empty if there are none.
        xmp: XMP packet, adapted to an upright picture; empty if there is none.
        texts: texts of a PNG, by keyword.
    """

    dpi: tuple[float, float] | None = None
    exif: Image.Exif = field(default_factory=Image.Exif)
    xmp: bytes = b""
    texts: dict[str, str] = field(default_factory=dict)

    def options(self, format_name: str) -> dict[str, Any]:
        """Return the options with which Pillow saves these metadata and the sRGB profile in a format."""
        options: dict[str, Any] = {"icc_profile": SRGB_PROFILE}
        if self.dpi is not None:
            options["dpi"] = self.dpi
        exif, xmp = self.exif.tobytes() if len(self.exif) else b"", self.xmp
        if format_name == "JPEG":
            exif, xmp = (data if len(data) < _JPEG_SEGMENT else b"" for data in (exif, xmp))
        if format_name == "TIFF":
            options["exif"] = tags = Image.Exif()
            if exif:
                tags.load(exif)
            if xmp:
                tags[_XMP] = xmp
            return options
        if exif:
            options["exif"] = exif
        if format_name == "PNG":
            options["pnginfo"] = self._png_texts()
        elif xmp:
            options["xmp"] = xmp
        return options

    def _png_texts(self) -> PngInfo:
        texts = PngInfo()
        for keyword, text in self.texts.items():
            texts.add_itxt(keyword, text)
        if self.xmp:
            texts.add_itxt("XML:com.adobe.xmp", self.xmp.decode("utf-8", "replace"))
        return texts


def metadata_of(image: Image.Image, name: str) -> Metadata:
    """Return the metadata of an open image; texts after the pixels are included once it is loaded.

    Args:
        image: the image as opened by Pillow.
        name: its name in warnings.
    """
    try:
        exif = image.getexif()
        sideways = exif.get(_ORIENTATION, 1) in (5, 6, 7, 8)
        tags = getattr(image, "tag_v2", {})  # the stored size of a TIFF: newer versions of Pillow rotate image.size
        size = tags.get(256, image.width), tags.get(257, image.height)
        size = size[::-1] if sideways else size
        kept = _kept_exif(exif, size)
        kept.tobytes()
    except Exception as error:  # broken EXIF data are no reason to have no result
        _logger.warning("%s: its EXIF data is broken and not kept (%s)", name, error)
        sideways, kept = False, Image.Exif()
    dpi = _dpi(image)
    if dpi is not None and sideways:
        dpi = dpi[1], dpi[0]
    xmp = image.info.get("xmp", b"")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    xmp = _UPRIGHT.sub(rb"\g<1>1", xmp) if isinstance(xmp, bytes) and len(xmp) <= _TEXT else b""
    texts = {key: str(image.info[key]) for key in _TEXTS if isinstance(image.info.get(key), str)}
    texts = {key: text for key, text in texts.items() if len(text) <= _TEXT} if image.format == "PNG" else {}
    return Metadata(dpi, kept, xmp, texts)


def _kept_exif(exif: Image.Exif, size: tuple[int, int]) -> Image.Exif:
    """Return the tags of ``exif`` that are valid for an upright sRGB picture of ``size``."""
    kept = Image.Exif()
    kept.update({tag: exif[tag] for tag in _KEPT if tag in exif})
    photograph, place = dict(exif.get_ifd(_EXIF)), dict(exif.get_ifd(_GPS))
    if photograph:
        photograph.pop(_INTEROPERABILITY, None)
        photograph |= {_COLOUR_SPACE: 1, _WIDTH: size[0], _HEIGHT: size[1]}
        kept[_EXIF] = photograph
    if place:
        kept[_GPS] = place
    if _ORIENTATION in exif:
        kept[_ORIENTATION] = 1
    return kept


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None
