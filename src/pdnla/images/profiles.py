"""ICC profiles: conversion of colours and greys to sRGB."""

import io
import logging
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_ROWS = 1 << 20  # pixels converted at a time, to limit the memory

_logger = logging.getLogger(__name__)


def _srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # date of creation, which would differ between files
    return bytes(profile)


SRGB_PROFILE = _srgb_profile()
"""An ICC profile of sRGB, with the same bytes in every run."""


def read_profile(image: Image.Image, name: str) -> bytes | None:
    """Return an image's ICC profile; None, with a warning that contains ``name``, if it is broken, or without one."""
    profile = image.info.get("icc_profile")
    if not profile:
        return None
    if not isinstance(profile, bytes) or len(profile) < 132 or profile[36:40] != b"acsp":
        _warn_of_profile(name, "not an ICC profile")
        return None
    return profile


def _warn_of_profile(name: str, reason: object) -> None:
    _logger.warning("%s: its colour profile is broken (%s); its colours are taken as sRGB", name, reason)


def colour_to_srgb(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Convert an image of mode RGB, CMYK or LAB from the colours of its profile to sRGB, mode RGB."""
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return ImageCms.ImageCmsTransform(source, _srgb(), "LAB", "RGB").apply(image)
    if profile is not None:
        try:
            transform = _to_srgb(profile, image.mode)
            if image.mode != "RGB" or not _changes_nothing(transform):
                return transform.apply(image)
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            _warn_of_profile(name, error)
    return image if image.mode == "RGB" else image.convert("RGB")


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.ImageCmsTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        _srgb(),
        mode,
        "RGB",
        intent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether ``transform`` is the identity up to rounding, as for most files with a profile."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    converted = np.asarray(transform.apply(Image.fromarray(cube)))
    return int(np.abs(converted.astype(int) - cube).max()) <= 1


def grey_to_srgb(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Convert a grey picture of mode ``L`` or ``F`` from the tone curve of its profile, grey or RGB, to that of sRGB.

    ImageCms is not used because it supports only 8 bits of grey.
    """
    if profile is None:
        return image
    try:
        curve = _grey_curve(profile)
    except (ValueError, struct.error) as error:
        _warn_of_profile(name, error)
        return image
    steps = np.linspace(0, 1, len(curve))
    if np.abs(curve - steps).max() < 0.5 / 255:
        return image
    if image.mode == "L":
        table = np.interp(np.linspace(0, 1, 256), steps, curve)
        return image.point([round(255 * value) for value in table])
    values = np.array(image)
    height = max(1, _ROWS // image.width)
    for top in range(0, image.height, height):
        values[top : top + height] = np.interp(values[top : top + height], steps, curve)
    return Image.fromarray(values)


def _grey_curve(profile: bytes) -> NDArray[np.float64]:
    """Return the sRGB values of 65536 grey levels from 0 to 1 under an ICC profile.

    They follow from the tone curve of a grey profile (its ``kTRC`` tag), or from that of green of an RGB profile
    (``gTRC``), which many programs leave in pictures that they make grey.

    Raises:
        ValueError: the profile is of another kind, or has no curve of the ICC specification (10.6, 10.18).
        struct.error: it is truncated.
    """
    tag = {b"GRAY": b"kTRC", b"RGB ": b"gTRC"}.get(profile[16:20])
    if tag is None:
        raise ValueError("a profile of another kind of picture")
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = [struct.unpack_from(">4sII", profile, 132 + 12 * index) for index in range(min(count, 100))]
    start = next((offset for signature, offset, _ in tags if signature == tag), None)
    if start is None:
        raise ValueError("no tone curve")
    x = np.linspace(0, 1, 65536)  # the levels of 16 bits
    kind = profile[start : start + 4]
    if kind == b"curv":
        (length,) = struct.unpack_from(">I", profile, start + 8)
        if length == 0:
            luminance = x
        elif length == 1:
            (gamma,) = struct.unpack_from(">H", profile, start + 12)
            luminance = x ** (gamma / 256)
        else:
            table = np.array(struct.unpack_from(f">{length}H", profile, start + 12)) / 65535
            luminance = np.interp(x, np.linspace(0, 1, length), table)
    elif kind == b"para":
        luminance = _parametric_curve(profile, start, x)
    else:
        raise ValueError("an unknown kind of tone curve")
    luminance = np.clip(luminance, 0, 1)
    return np.where(luminance <= 0.0031308, 12.92 * luminance, 1.055 * luminance ** (1 / 2.4) - 0.055)


def _parametric_curve(profile: bytes, start: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the parametric curve at ``start`` (ICC 10.18): (a·x + b)^g + e from d on, c·x + f below."""
    (function,) = struct.unpack_from(">H", profile, start + 8)
    names = {0: "g", 1: "gab", 2: "gabe", 3: "gabcd", 4: "gabcdef"}.get(function)
    if names is None:
        raise ValueError("an unknown kind of tone curve")
    numbers = struct.unpack_from(f">{len(names)}i", profile, start + 12)
    value = {"a": 1.0, "b": 0.0, "c": 0.0, "e": 0.0, "f": 0.0} | {
        key: number / 65536 for key, number in zip(names, numbers, strict=True)
    }
    if function in (1, 2):
        if value["a"] == 0:
            raise ValueError("a tone curve without slope")
        value["d"], value["f"] = -value["b"] / value["a"], value["e"]
    power = np.maximum(value["a"] * x + value["b"], 0) ** value["g"] + value["e"]
    curve: NDArray[np.float64] = np.where(x >= value.get("d", 0.0), power, value["c"] * x + value["f"])
    return curve
