"""Formats: what is read, what is not, and what is said of it."""

import io
import struct
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from pdnla.errors import UserError
from pdnla.images import formats
from pdnla.images.formats import IMAGE_SUFFIXES
from pdnla.images.io import list_images, read_image

RED = (200, 30, 40)
HAS_AVIF = "avif" in features.get_supported()


def said(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path)
    return str(caught.value)


def test_gifs_are_read_with_their_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([*RED, 0, 255, 0])
    image.putpixel((3, 1), 1)
    image.save(tmp_path / "a.gif", transparency=1)
    picture = read_image(tmp_path / "a.gif")
    assert picture.colour.getpixel((0, 0)) == RED
    assert picture.alpha is not None
    assert [picture.alpha.getpixel(place) for place in ((0, 0), (3, 1))] == [255, 0]
    assert not picture.animated


def test_avif_is_read_where_pillow_reads_it_and_else_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.avif"
    path.write_bytes(b"\0\0\0\x1cftypavif\0\0\0\0" + bytes(16))
    if HAS_AVIF:
        Image.new("RGB", (16, 16), RED).save(path)
        assert np.abs(np.asarray(read_image(path).colour).astype(int) - RED).max() < 8
        assert list_images(tmp_path) == [path]
    monkeypatch.setattr(formats, "IMAGE_SUFFIXES", (".png",))
    monkeypatch.setattr("pdnla.images.io.readable_formats", lambda: ("PNG",))
    sentence = f"{path}: is AVIF, which this Pillow does not read; pip install --upgrade pillow, or convert it to JPEG"
    assert said(path) == sentence
    with pytest.raises(UserError, match=r"holds no image that can be read; 1 cannot, the first: .*a\.avif: is AVIF"):
        list_images(tmp_path)


def test_heic_is_read_with_the_extra_and_else_names_it(tmp_path: Path) -> None:
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0" + bytes(16))
    try:
        import pillow_heif
    except ImportError:
        assert said(path).startswith(
            f'{path}: is HEIC, which is read with an extra, pip install "pdnla[heic]"; install'
        )
        path.rename(tmp_path / "a.jpg")
        assert "is HEIC, which is read with an extra" in said(tmp_path / "a.jpg")
        return
    assert said(path) == f"{path}: is truncated or damaged; copy or save it again"
    pillow_heif.register_heif_opener()
    Image.new("RGB", (64, 64), RED).save(path, format="HEIF")
    assert np.abs(np.asarray(read_image(path).colour).astype(int) - RED).max() < 8
    assert list_images(tmp_path) == [path]


def test_the_extra_is_asked_for_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    extra = types.SimpleNamespace(register_heif_opener=lambda: asked.append("registered"))
    monkeypatch.setitem(sys.modules, "pillow_heif", extra)  # type: ignore[arg-type]
    monkeypatch.setattr(formats, "_HAS_HEIC", True)
    formats.readable_formats.cache_clear()
    assert "HEIF" in formats.readable_formats()
    assert asked == ["registered"]
    formats.readable_formats.cache_clear()


def test_what_looks_like_a_picture_and_is_not_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "b.psd", "c.NEF", "d.jp2", "e.svg", "f.raw", "notes.txt", "._g.psd"):
        (tmp_path / name).touch()
    told: list[str] = []
    assert list_images(tmp_path, told.append) == [tmp_path / "a.png"]
    assert [sentence.partition(":")[0] for sentence in told] == [
        str(tmp_path / name) for name in ("b.psd", "c.NEF", "d.jp2", "e.svg", "f.raw")
    ]
    assert told[0].endswith(
        "is a picture of a format that is not read (PSD); convert it to PNG, JPEG, WebP, TIFF or BMP"
    )
    assert told[1].endswith("is a camera's raw file, which is not read; develop it to TIFF or JPEG")
    assert list_images(tmp_path) == [tmp_path / "a.png"]
    assert f"{tmp_path}: 5 pictures in it are not read, the first: {tmp_path / 'b.psd'}: is a picture" in caplog.text


def test_the_preview_in_a_raw_file_is_not_taken_for_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "a.dng")
    assert said(tmp_path / "a.dng") == (
        f"{tmp_path / 'a.dng'}: is a camera's raw file, which is not read; develop it to TIFF or JPEG"
    )


def test_no_suffix_is_both_read_and_not() -> None:
    assert {suffix for suffix in IMAGE_SUFFIXES if formats.why_unread(Path("a" + suffix))} == set()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_is_known_as_one(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 0, 255))]
    path = tmp_path / f"a.{suffix}"
    options = {} if suffix == "gif" else {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    picture = read_image(path)
    assert picture.animated
    assert picture.colour.getpixel((3, 3)) == RED


def test_a_png_with_much_text_is_no_damaged_one(tmp_path: Path) -> None:
    texts = PngInfo()
    for number in range(90):
        texts.add_text(f"t{number}", "x" * 1_000_000, zip=number % 2 == 0)
    texts.add_itxt("XML:com.adobe.xmp", "y" * 3_000_000, zip=True)
    path = tmp_path / "a.png"
    Image.new("RGB", (5, 4), RED).save(path, pnginfo=texts)
    with pytest.raises(ValueError, match="text"), Image.open(path) as image:
        image.load()
    assert read_image(path).colour.getpixel((0, 0)) == RED


def test_text_after_the_pixels_is_no_damage_either(tmp_path: Path) -> None:
    texts = PngInfo()
    for number in range(70):
        texts.add(b"tEXt", f"t{number}".encode() + b"\0" + b"x" * 1_000_000, after_idat=True)
    Image.new("L", (5, 4), 7).save(tmp_path / "a.png", pnginfo=texts)
    assert read_image(tmp_path / "a.png").colour.getpixel((0, 0)) == 7


def png_with_profile(profile: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), RED).save(buffer, format="PNG")
    packed = b"iCCPp\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(packed) - 4) + packed + struct.pack(">I", zlib.crc32(packed))
    return buffer.getvalue()[:33] + chunk + buffer.getvalue()[33:]


def test_a_png_with_a_large_profile_is_read_with_it(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile += bytes(2_000_000)
    profile[:4] = struct.pack(">I", len(profile))
    (tmp_path / "a.png").write_bytes(png_with_profile(bytes(profile)))
    assert read_image(tmp_path / "a.png").colour.getpixel((0, 0)) == RED


def test_a_profile_that_unpacks_without_end_is_left_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_with_profile(bytes(200_000_000)))
    assert read_image(tmp_path / "a.png").colour.getpixel((0, 0)) == RED


def test_tiffs_that_are_not_read_are_told_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.float32), photometric="rgb")
    assert said(path) == (
        f"{path}: is a TIFF of a kind that is not read (RGB, 3 x 32 bits, floats, compression 1);"
        " save it as RGB or grey of 8 or 16 bits, LZW or Deflate"
    )
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.uint16), photometric="cielab")
    assert "is a TIFF of a kind that is not read (LAB, 3 x 16 bits, whole numbers, compression 1)" in said(path)
    path.write_bytes(path.read_bytes()[:40])
    assert said(path) == f"{path}: is truncated or damaged; copy or save it again"


def test_a_jpeg_too_short_for_its_size_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (75, 53), RED).save(tmp_path / "a.jpg", progressive=True)
    data = (tmp_path / "a.jpg").read_bytes().replace(struct.pack(">2H", 53, 75), struct.pack(">2H", 13_000, 13_000))
    (tmp_path / "a.jpg").write_bytes(data)
    with monkeypatch.context() as patch:
        patch.setattr("pdnla.images.io.picture_from_pil", lambda *_: pytest.fail("decoded"))
        assert said(tmp_path / "a.jpg").endswith(
            "a.jpg: is truncated or damaged (too short for its size); copy or save it again"
        )
    for options in ({"progressive": True}, {"optimize": True}, {}):
        Image.new("L", (3000, 3000), 9).save(tmp_path / "flat.jpg", quality=1, **options)
        assert read_image(tmp_path / "flat.jpg").size == (3000, 3000)
