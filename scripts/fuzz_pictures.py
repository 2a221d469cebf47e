"""Damage pictures of all formats and read them: each must be read, or refused in one sentence.

    python scripts/fuzz_pictures.py --files 10000 --seed 0
    python scripts/fuzz_pictures.py --album 200 --seed 0

Each file is read as in the commands, in its own process with limited memory and time: as a reference, page by page, and
its metadata, which are then written into files of every format that stores them. With `--album`, `pdnla-colorize`
colours the given number of damaged pictures as one album instead.
"""

import argparse
import collections
import contextlib
import io
import random
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from fuzzing import BYTES, GOOD, Result, attempt, table
from pdnla.images.formats import readable_formats
from pdnla.images.io import read_image, read_metadata, read_pages, write_image

SECONDS, MEMORY = 10, 3 << 30  # of a file: the limit, and what may be added to the process
SIZE = (75, 53)
ABSURD = (0, 1, 2, 255, 256, 13_000, 32_767, 60_000, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
FORMATS = {
    "PNG": "png",
    "JPEG": "jpg",
    "WEBP": "webp",
    "TIFF": "tif",
    "BMP": "bmp",
    "GIF": "gif",
    "AVIF": "avif",
    "HEIF": "heic",
}


# --- whole files, small


def whole_files() -> dict[str, tuple[str, bytes]]:
    """Return intact files by kind, with their suffixes."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    noise = np.random.default_rng(0).integers(0, 40, (*x.shape, 3))
    colours = Image.fromarray((np.stack([x * 2, y * 3, x + y], axis=-1) + noise).astype(np.uint8))
    grey, deep = colours.convert("L"), Image.fromarray((x * 800 + y).astype(np.uint16))
    clear = colours.copy()
    clear.putalpha(grey)
    frames: dict[str, Any] = {"save_all": True, "append_images": [colours.rotate(180)]}
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, "a camera", "1937:05:06 10:00:00"
    exif.get_ifd(0x8769).update({0x9003: "1937:05:06 10:00:00", 0x829A: (1, 60)})
    about: dict[str, Any] = {
        "exif": exif.tobytes(),
        "dpi": (300, 300),
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    }
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', zip=True)
    texts.add_text("Creation Time", "1937", zip=True)
    bare_exif = Image.Exif()
    bare_exif[0x0112] = 6
    pictures: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "PNG": (colours, "PNG", {**about, "pnginfo": texts}),
        "PNG, 16 bits": (deep, "PNG", {}),
        "PNG, palette": (colours.quantize(16), "PNG", {"transparency": 3}),
        "PNG, animated": (clear, "PNG", frames),
        "JPEG": (colours, "JPEG", about),
        "JPEG, progressive": (colours, "JPEG", {"progressive": True, "quality": 90}),
        "JPEG, CMYK": (colours.convert("CMYK"), "JPEG", {}),
        "WebP": (colours, "WEBP", {key: about[key] for key in ("exif", "icc_profile")}),
        "WebP, lossless, alpha": (clear, "WEBP", {"lossless": True}),
        "WebP, animated": (clear, "WEBP", frames),
        "TIFF": (colours, "TIFF", {"exif": bare_exif, "dpi": (300, 300), "icc_profile": about["icc_profile"]}),
        "TIFF, LZW, grey": (grey, "TIFF", {"compression": "tiff_lzw"}),
        "TIFF, JPEG": (colours, "TIFF", {"compression": "jpeg"}),
        "TIFF, 1 bit": (grey.convert("1"), "TIFF", {"compression": "group4"}),
        "TIFF, 16 bits, pages": (deep, "TIFF", {"save_all": True, "append_images": [grey, clear]}),
        "BMP": (colours, "BMP", {}),
        "BMP, palette": (colours.quantize(16), "BMP", {}),
        "GIF": (colours.quantize(64), "GIF", {"transparency": 2}),
        "GIF, animated": (colours.quantize(64), "GIF", frames),
    }
    if "AVIF" in readable_formats():
        pictures["AVIF"] = (clear, "AVIF", {key: about[key] for key in ("exif", "icc_profile")})
    if "HEIF" in readable_formats():
        pictures["HEIC"] = (clear, "HEIF", {key: about[key] for key in ("exif", "icc_profile")})
    files = {}
    for name, (image, format_name, options) in pictures.items():
        buffer = io.BytesIO()
        image.save(buffer, format=format_name, **options)
        files[name] = FORMATS[format_name], buffer.getvalue()
    return files


# --- damages of pictures


def resized(data: bytearray, chance: random.Random) -> bytearray:
    """Replace the size in the file by an absurd one, in any byte order."""
    for side in chance.choice((SIZE, SIZE[:1], SIZE[1:])):
        absurd = chance.choice(ABSURD)
        forms = [(form, struct.pack(form, side)) for form in (">I", "<I", ">H", "<H")]
        places = [(form, match) for form, said in forms for match in re.finditer(re.escape(said), data[:4000])]
        for form, match in chance.sample(places, min(len(places), chance.choice((1, 2)))):
            width = struct.calcsize(form)
            data[match.start() : match.start() + width] = struct.pack(form, min(absurd, 2 ** (8 * width) - 1))
    return data


def scattered(data: bytearray, chance: random.Random) -> bytearray:
    """Write extreme numbers of 2 and 4 bytes into the first kilobyte."""
    for _ in range(chance.choice((1, 2, 5))):
        number = struct.pack(chance.choice(("<I", ">I")), chance.choice(ABSURD))[-chance.choice((2, 4)) :]
        start = chance.randrange(min(len(data), 1024))
        data[start : start + len(number)] = number
    return data


def repeated(data: bytearray, chance: random.Random) -> bytearray:
    """Repeat a part many times."""
    start, length = chance.randrange(len(data)), chance.choice((12, 100, 1000))
    data[start:start] = data[start : start + length] * chance.choice((2, 50))
    return data


DAMAGES = (*BYTES, resized, scattered, repeated)


def with_sums(data: bytearray) -> bytearray:
    """Return a PNG with correct checksums of its chunks, so that the damage reaches the decoder; others unchanged."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    start = 8
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end]))
        start = end + 4
    return data


def damaged(
    whole: dict[str, tuple[str, bytes]], number: int, chance: random.Random
) -> tuple[str, Callable[[bytearray, random.Random], bytearray], str, bytearray]:
    """Return file ``number`` of a campaign: its kind, damage, suffix and bytes."""
    kind = list(whole)[number % len(whole)]
    damage = chance.choice(DAMAGES)
    suffix, data = whole[kind]
    broken = damage(bytearray(data), chance)
    return kind, damage, suffix, with_sums(broken) if chance.random() < 0.7 else broken


# --- reading


def use(file: Path) -> None:
    """Read a file as a reference and page by page, and write its metadata into other files."""
    picture = read_image(file)
    picture.rgb()
    if picture.pages > 1:
        for page in read_pages(file):
            page.picture.resized((32, 32))
    metadata = read_metadata(file)
    for suffix in ("png", "tif", "jpg", "webp"):
        write_image(file.with_name(f"result.{suffix}"), Image.new("RGB", (2, 2)), metadata)
    write_image(file.with_name("result_16.png"), np.zeros((2, 2, 3), np.uint16), metadata)
    for suffix in ("png", "tif", "jpg", "webp"):
        read_image(file.with_name(f"result.{suffix}"))


def campaign(files: int, seed: int, folder: Path, seconds: int = SECONDS) -> dict[tuple[str, str], list[Result]]:
    """Damage and read the given number of files, of each kind in turn; return the outcomes by kind and damage."""
    whole, chance = whole_files(), random.Random(seed)
    results_of: dict[tuple[str, str], list[Result]] = collections.defaultdict(list)
    for number in range(files):
        kind, damage, suffix, data = damaged(whole, number, chance)
        file = folder / f"damaged.{suffix}"
        file.write_bytes(data)
        result = attempt(file, use, seconds, MEMORY)
        if result.outcome not in GOOD:
            kept = folder / f"bad_{number}.{suffix}"
            file.rename(kept)
            print(f"{kept.name}: {kind}, {damage.__name__}: {result.outcome}: {result.said[:300]}", flush=True)
        results_of[kind.partition(",")[0], damage.__name__].append(result)
    return results_of


def colour_album(files: int, seed: int, folder: Path) -> tuple[int, str]:
    """Colour damaged pictures with the command; return the number of faults, and the output."""
    whole, chance = whole_files(), random.Random(seed)
    album = folder / "album"
    album.mkdir()
    for number in range(files):
        _, _, suffix, data = damaged(whole, number, chance)
        (album / f"{number}.{suffix}").write_bytes(data)
    (folder / "reference.png").write_bytes(whole["PNG"][1])
    command = ["-m", "pdnla.cli.colorize", str(album), str(folder / "reference.png"), "--size", "64"]
    done = subprocess.run(
        [sys.executable, *command, "--out", str(folder / "results")], capture_output=True, text=True, check=False
    )
    last = (done.stdout.strip().splitlines() or [""])[-1]
    counts = [int(number) for number in re.findall(r"\d+", last)]
    results = sum(path.suffix in (".png", ".tif") for path in (folder / "results").rglob("*"))
    wrong = [
        done.returncode != 1,
        "Traceback" in done.stderr,
        len(counts) != 3 or sum(counts) != files or counts[0] != results,
        sum(line.startswith("failed") for line in done.stderr.splitlines()) != counts[-1] if counts else True,
    ]
    return sum(wrong), f"{last} (exit status {done.returncode})\n{done.stderr[-2000:] if any(wrong) else ''}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files that were neither read nor refused")
    parser.add_argument("--album", type=int, help="colour so many as an album instead")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="that a file may take")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if options.album:
            wrong, printed = colour_album(options.album, options.seed, folder.resolve())
            print(printed)
            return int(wrong > 0)
        results_of = campaign(options.files, options.seed, folder.resolve(), options.seconds)
    print(table(results_of))
    return int(any(result.outcome not in GOOD for results in results_of.values() for result in results))


if __name__ == "__main__":
    sys.exit(main())
