"""Reading and writing images: every mode people have, broken files, whole files out."""

import errno
import io
import logging
import os
import stat
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from pdnla.errors import UserError
from pdnla.images.io import Picture, list_images, picture_from_pil, read_header, read_image, write_image

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (8, 1))
COLOURS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def whole(picture: Picture) -> np.ndarray:
    return picture.rows(0, picture.size[1])


def smooth(height: int = 16, width: int = 24) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 8, y * 10, 128 + 0 * x], axis=-1).clip(0, 255).astype(np.uint8))


def icc_profile(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for signature, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", signature, start + len(data), len(content))
        data += content
    size = start + len(data)
    white = struct.pack(">3i", 63190, 65536, 54061)
    header = struct.pack(">I4sI4s4s4s12s4s", size, b"lcms", 0x02100000, kind, space, pcs, bytes(12), b"acsp")
    header += bytes(28) + white + bytes(48)
    return header[:128] + table + data


def tone_curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(swapped: bool = False) -> bytes:
    """sRGB's primaries in D50, with a gamma of 2.2; ``swapped`` calls red green and green red."""
    xyz = {
        b"rXYZ": (0.4361, 0.2225, 0.0139),
        b"gXYZ": (0.3851, 0.7169, 0.0971),
        b"bXYZ": (0.1431, 0.0606, 0.7141),
    }
    if swapped:
        xyz[b"rXYZ"], xyz[b"gXYZ"] = xyz[b"gXYZ"], xyz[b"rXYZ"]
    tags = {key: b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in xyz[key])) for key in xyz}
    tags |= {key: tone_curve(2.2) for key in (b"rTRC", b"gTRC", b"bTRC")}
    return icc_profile(b"RGB ", tags)


def cmyk_profile() -> bytes:
    """A printer that prints a pure grey whatever the inks, dark where there is any cyan (an 8-bit table)."""
    table = b"".join(bytes([20 if index >= 8 else 255, 128, 128]) for index in range(16))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + table + ramp * 3
    return icc_profile(b"CMYK", {b"A2B0": lut, b"A2B1": lut}, pcs=b"Lab ", kind=b"prtr")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".jpg"])
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    smooth().save(path, **({"quality": 98} if suffix in (".jpg", ".webp") else {}))
    picture = read_image(path)
    assert picture.size == (24, 16)
    assert picture.alpha is None
    assert np.abs(whole(picture) * 255 - np.asarray(smooth())).mean() < 4


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    smooth().save(path, format="PNG")
    assert np.array_equal(np.asarray(read_image(path).colour), np.asarray(smooth()))


def test_one_bit_pictures_are_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(RAMP > 100).save(tmp_path / "a.png")
    assert np.array_equal(whole(read_image(tmp_path / "a.png"))[..., 0], (RAMP > 100).astype(np.float32))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_sixteen_bit_grey_keeps_all_sixteen_bits(tmp_path: Path, suffix: str, big_endian: bool) -> None:
    values = np.linspace(0, 65535, 4096).round().astype(np.uint16).reshape(64, 64)
    image = Image.fromarray(values)
    if big_endian:
        image = Image.frombytes("I;16B", (64, 64), values.astype(">u2").tobytes())
    image.save(tmp_path / f"a{suffix}")
    read = whole(read_image(tmp_path / f"a{suffix}"))[..., 0]
    assert np.abs(read * 65535 - values).max() < 0.01


def test_white_is_zero_is_undone_at_sixteen_bits(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 0
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="TIFF")
    data = bytearray(buffer.getvalue())
    entry = data.find(struct.pack("<HHII", 262, 3, 1, 1))
    data[entry + 8] = 0
    (tmp_path / "a.tif").write_bytes(data)
    assert np.allclose(whole(read_image(tmp_path / "a.tif"))[..., 0], 1 - values / 65535, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 255.0, 65535.0, 1e6])
def test_float_greys_are_scaled_to_white(scale: float) -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    picture = picture_from_pil(Image.fromarray(values * np.float32(scale)))
    assert np.allclose(whole(picture)[..., 0], values, atol=1e-5)


def test_numbers_that_are_none_do_not_spread() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 0.5, -2.0, 1.0]], dtype=np.float32)
    assert whole(picture_from_pil(Image.fromarray(values)))[0, :, 0].tolist() == [0, 1, 0, 0.5, 0, 1]


def test_integer_greys_count_as_sixteen_bits() -> None:
    values = np.array([[0, 32768, 65535]], dtype=np.int32)
    assert np.allclose(whole(picture_from_pil(Image.fromarray(values)))[0, :, 0], [0, 0.5, 1], atol=1e-4)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "La", "RGBa"])
def test_alpha_is_kept(mode: str) -> None:
    image = smooth().convert("RGBA")
    alpha = Image.fromarray(np.linspace(0, 255, 16 * 24).astype(np.uint8).reshape(16, 24))
    image.putalpha(alpha)
    image = image.convert("LA" if mode[0] == "L" else "RGBA").convert(mode)
    picture = picture_from_pil(image)
    assert np.array_equal(np.asarray(picture.alpha), np.asarray(alpha))
    assert picture.colour.mode == ("L" if mode[0] == "L" else "RGB")


@pytest.mark.parametrize(("mode", "transparent"), [("L", 128), ("RGB", (8, 20, 128)), ("1", 255), ("I;16", 500)])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, mode: str, transparent: int) -> None:
    image = smooth().convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.array([[500, 501], [0, 500]], dtype=np.uint16))
    image.save(tmp_path / "a.png", transparency=transparent)
    picture = read_image(tmp_path / "a.png")
    values = np.asarray(Image.open(tmp_path / "a.png").convert(mode) if mode != "I;16" else image)
    clear = values == (transparent if mode != "1" else True)
    clear = clear.all(axis=-1) if clear.ndim == 3 else clear
    assert picture.alpha is not None
    assert np.array_equal(np.asarray(picture.alpha) == 0, clear)


def test_palettes_become_colours_with_their_transparency(tmp_path: Path) -> None:
    image = smooth().quantize(16)
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "one.png", transparency=3)
    image.save(tmp_path / "all.png", transparency=bytes(range(0, 160, 10)))
    indices = np.asarray(image)
    expected = np.asarray(image.convert("RGB"))
    for name, alpha in [("opaque", None), ("one", np.where(indices == 3, 0, 255)), ("all", indices * 10)]:
        picture = read_image(tmp_path / f"{name}.png")
        assert np.array_equal(np.asarray(picture.colour), expected), name
        assert (picture.alpha is None) == (alpha is None), name
        assert alpha is None or np.array_equal(np.asarray(picture.alpha), alpha), name


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_other_colour_modes_become_rgb(mode: str) -> None:
    image = smooth()
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    picture = picture_from_pil(image if mode == "LAB" else image.convert(mode))
    assert picture.colour.mode == "RGB"
    assert np.abs(np.asarray(picture.colour).astype(int) - np.asarray(smooth())).mean() < 2


def test_cmyk_files_are_read(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 32), (200, 40, 90))
    for name in ("a.jpg", "a.tif"):
        image.convert("CMYK").save(tmp_path / name)
        assert np.abs(np.asarray(read_image(tmp_path / name).colour).astype(int) - [200, 40, 90]).max() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 5: Image.Transpose.TRANSPOSE}
    inverse |= {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180}
    inverse |= {4: Image.Transpose.FLIP_TOP_BOTTOM, 7: Image.Transpose.TRANSVERSE}
    upright = smooth(32, 48)
    stored = upright.transpose(inverse[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a{suffix}", exif=exif, **({"quality": 98} if suffix == ".jpg" else {}))
    picture = read_image(tmp_path / f"a{suffix}")
    assert picture.size == upright.size
    assert np.abs(np.asarray(picture.colour).astype(int) - np.asarray(upright)).mean() < 4


def test_alpha_turns_with_the_picture() -> None:
    image = smooth().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.arange(24, dtype=np.uint8) * 10, (16, 1))))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", exif=exif)
    picture = picture_from_pil(Image.open(buffer))
    assert picture.size == (16, 24)
    assert np.array_equal(np.asarray(picture.alpha)[:, 0], np.arange(24) * 10)


def test_rgb_profiles_are_converted_to_srgb(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS)
    image.save(tmp_path / "a.png", icc_profile=rgb_profile(swapped=True))
    read = np.asarray(read_image(tmp_path / "a.png").colour).astype(int)
    swapped = COLOURS[..., [1, 0, 2]]
    bright = COLOURS.min(axis=-1) > 60
    assert np.abs(read - swapped)[bright].max() < 12


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(COLOURS).save(tmp_path / "a.png", icc_profile=srgb)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png").colour), COLOURS)


def test_a_grey_picture_with_an_srgb_profile_is_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As when a program makes a picture grey and leaves its profile."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = Image.fromarray(COLOURS).convert("L")
    grey.save(tmp_path / "a.png", icc_profile=srgb)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png").colour), np.asarray(grey))
    assert caplog.text == ""


def test_cmyk_profiles_are_converted_to_srgb(tmp_path: Path) -> None:
    ink = np.zeros((8, 8, 4), dtype=np.uint8)
    ink[:, 4:, 0] = 255
    Image.frombytes("CMYK", (8, 8), ink.tobytes()).save(tmp_path / "a.tif", icc_profile=cmyk_profile())
    read = np.asarray(read_image(tmp_path / "a.tif").colour).astype(int)
    assert read[:, :4].min() > 230
    assert read[:, 4:].max() < 60  # without its profile this would be bright cyan


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["gamma", "table", "parametric", "of RGB"])
def test_grey_profiles_are_converted_to_srgb(tmp_path: Path, bits: int, kind: str) -> None:
    curves = {
        "gamma": tone_curve(1.8),
        "table": b"curv"
        + bytes(4)
        + struct.pack(">I1024H", 1024, *(round(65535 * (i / 1023) ** 1.8) for i in range(1024))),
        "parametric": b"para" + bytes(4) + struct.pack(">HHi", 0, 0, round(1.8 * 65536)),
    }
    profile = icc_profile(b"RGB ", {b"gTRC": tone_curve(1.8)})
    if kind != "of RGB":
        profile = icc_profile(b"GRAY", {b"kTRC": curves[kind]})
    values = np.linspace(0, 2**bits - 1, 256).round().astype(np.uint8 if bits == 8 else np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=profile)
    linear = (values / (2**bits - 1)) ** 1.8
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    read = whole(read_image(tmp_path / "a.png"))[..., 0]
    assert np.abs(read - expected).max() < (0.6 / 255 if bits == 8 else 0.002)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("profile", ["noise", "cut", "of another kind"])
def test_a_broken_profile_is_ignored_with_a_warning(mode: str, profile: str, caplog: pytest.LogCaptureFixture) -> None:
    other = cmyk_profile() if mode == "L" else icc_profile(b"GRAY", {b"kTRC": tone_curve(2.2)})
    broken = {"noise": bytes(range(256)), "cut": rgb_profile()[:150], "of another kind": other}[profile]
    image = smooth().convert(mode)
    expected = np.asarray(picture_from_pil(image).colour)
    image.info["icc_profile"] = broken
    with caplog.at_level(logging.WARNING):
        picture = picture_from_pil(image, name="scan.tif")
    assert "scan.tif: its colour profile is broken" in caplog.text
    assert np.array_equal(np.asarray(picture.colour), expected)


def broken_files() -> dict[str, bytes]:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    files = {"nothing.png": b"", "text.png": b"this is not an image at all", "one_byte.jpg": b"\xff"}
    for suffix, name in [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("tif", "TIFF"), ("bmp", "BMP")]:
        buffer = io.BytesIO()
        noise.save(buffer, format=name)
        files[f"truncated.{suffix}"] = buffer.getvalue()[: len(buffer.getvalue()) // 2]
        files[f"header.{suffix}"] = buffer.getvalue()[:20]
    return files


@pytest.mark.parametrize("name", broken_files())
def test_a_broken_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(broken_files()[name])
    with pytest.raises(UserError) as caught:
        read_image(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert ";" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.png", Path(__file__) / "below_a_file.png"):
        with pytest.raises(UserError, match=path.name):
            read_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
def test_a_pipe_is_refused_and_left_out_of_a_folder_instead_of_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"pipe\.png: is a pipe or a device"):
        read_image(tmp_path / "pipe.png")
    left_out: list[str] = []
    assert list_images(tmp_path, left_out.append) == list_images(tmp_path) == [tmp_path / "a.png"]
    assert len(left_out) == 1
    assert left_out[0].startswith(f"{tmp_path / 'pipe.png'}: is a pipe or a device")


def test_a_hundred_megapixels_are_read_without_lifting_pillows_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # between one and two times the limit, as 100 megapixels
    Image.new("L", (30, 30)).save(tmp_path / "scan.png")
    assert read_image(tmp_path / "scan.png").size == (30, 30)
    assert not recwarn.list
    Image.new("L", (40, 40)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match=r"bomb\.png: has more than 0 million pixels"):
        read_image(tmp_path / "bomb.png")
    assert Image.MAX_IMAGE_PIXELS == 600


def test_a_pil_image_is_left_as_it_was() -> None:
    image = smooth().convert("RGBA")
    before = image.tobytes()
    picture_from_pil(image)
    assert (image.mode, image.tobytes()) == ("RGBA", before)


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(UserError, match="no pixels"):
        picture_from_pil(Image.new("RGB", (0, 4)))


def test_rows_are_cut_as_asked() -> None:
    picture = Picture(Image.fromarray(COLOURS))
    assert np.array_equal(picture.rows(3, 5), COLOURS[3:5].astype(np.float32) / np.float32(255))


def test_resizing_to_its_own_size_keeps_every_pixel() -> None:
    picture = picture_from_pil(Image.fromarray(COLOURS))
    assert np.array_equal(whole(picture.resized(picture.size)), whole(picture))


def test_shrinking_averages_instead_of_picking_pixels() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    picture = picture_from_pil(Image.fromarray(checks.astype(np.uint8))).resized((8, 8))
    assert np.abs(whole(picture) - 0.5).max() < 0.02


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".PNG"])
def test_lossless_formats_give_back_every_pixel(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", Image.fromarray(COLOURS))
    assert np.array_equal(np.asarray(Image.open(tmp_path / f"a{suffix}")), COLOURS)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_alpha_is_written_where_the_format_has_it(tmp_path: Path, suffix: str) -> None:
    image = smooth()
    image.putalpha(128)
    write_image(tmp_path / f"a{suffix}", image)
    assert np.asarray(read_image(tmp_path / f"a{suffix}").alpha).tolist() == [[128] * 24] * 16


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_formats_without_alpha_lay_the_picture_on_white(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", Image.new("RGBA", (16, 16), (0, 0, 0, 51)))
    assert np.abs(np.asarray(Image.open(tmp_path / f"a{suffix}")).astype(int) - 204).max() <= 2


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    for name in ("a.gif", "a", "a.tar.xyz"):
        with pytest.raises(UserError, match=f"{name}: .*use one of .png"):
            write_image(tmp_path / name, smooth())
    assert not list(tmp_path.iterdir())


def test_a_picture_too_long_for_its_format_is_one_sentence(tmp_path: Path) -> None:
    for suffix in (".jpg", ".webp"):
        with pytest.raises(UserError, match=r"cannot hold this 70000×1 picture .*choose \.png"):
            write_image(tmp_path / f"a{suffix}", Image.new("RGB", (70000, 1)))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights or limits")
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    path.write_bytes(b"old")
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=r"a\.bmp: cannot be written"):
            write_image(path, smooth(64, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_space_left_names_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"a\.png: the disk is full"):
        write_image(tmp_path / "a.png", smooth())
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Path, data: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "a.png", smooth())
    assert not list(tmp_path.iterdir())


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", smooth())
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o666 & ~mask


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_images_are_listed_sorted_and_deep_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "sub/c.tiff", "sub/.d.png", ".hidden/e.png", "notes.txt", "z.WebP"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in list_images(tmp_path)] == [
        "a.png",
        "b.JPG",
        "sub/c.tiff",
        "z.WebP",
    ]


def test_a_folder_without_images_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for path, said in [
        (tmp_path, "holds no image"),
        (tmp_path / "x", "no such folder"),
        (Path(__file__), "is a file"),
    ]:
        with pytest.raises(UserError, match=said):
            list_images(path)


def test_a_jpeg_is_decoded_no_smaller_than_asked(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 800), (200, 60, 60)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", side=100).size == (125, 100)
    assert read_image(tmp_path / "a.jpg", side=101).size == (250, 200)
    assert read_image(tmp_path / "a.jpg", side=2000).size == (1000, 800)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F"])
def test_every_picture_has_8_bit_colours(mode: str, tmp_path: Path) -> None:
    values = {"L": 128, "RGB": (128, 128, 128), "I;16": 128 * 257, "F": 128 / 255}
    picture = picture_from_pil(Image.new(mode, (3, 2), values[mode]))
    assert picture.rgb().mode == "RGB"
    assert np.asarray(picture.rgb()).tolist() == [[[128] * 3] * 3] * 2


@pytest.mark.parametrize("mode", ["RGB", "L", "F"])
def test_what_alpha_hides_has_no_effect(mode: str) -> None:
    alpha = np.zeros((16, 24), np.uint8)
    alpha[4:12, 6:18], alpha[4, 6:18] = 255, 100
    seen = []
    for hidden in (0, 255):
        values = COLOURS.copy() if mode == "RGB" else COLOURS[..., 0].copy()
        values[alpha == 0] = (0, hidden, 0) if mode == "RGB" else hidden
        image = Image.fromarray(values.astype(np.float32) / 255 if mode == "F" else values)
        picture = Picture(image, Image.fromarray(alpha))
        seen.append([np.asarray(picture.rgb()), whole(picture.resized((24, 16))), whole(picture.resized((7, 5)))])
        assert np.array_equal(whole(picture.visible())[5:12, 6:18], whole(picture)[5:12, 6:18])
    for one, other in zip(*seen, strict=True):
        assert np.array_equal(one, other)
    ground = seen[0][0][0, 0]
    assert len(set(ground.tolist())) == 1  # grey
    weights = alpha / 255
    luma = np.asarray(Image.fromarray(COLOURS).convert("L")) if mode == "RGB" else COLOURS[..., 0]
    assert abs(float((weights * luma).sum() / weights.sum()) - ground[0]) <= 1


def test_a_picture_of_which_nothing_is_visible_is_black() -> None:
    picture = Picture(Image.fromarray(COLOURS), Image.new("L", (24, 16), 0))
    assert np.asarray(picture.rgb()).max() == 0


def test_a_header_tells_size_depth_and_pages_without_decoding(tmp_path: Path) -> None:
    grey = Image.linear_gradient("L")
    grey.save(tmp_path / "grey.jpg")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    grey.save(tmp_path / "pages.tif", save_all=True, append_images=[grey, grey])
    grey.convert("P").save(tmp_path / "moving.gif", save_all=True, append_images=[grey.rotate(90).convert("P")])
    assert read_header(tmp_path / "grey.jpg") == ((256, 256), 8, 1, False)
    assert read_header(tmp_path / "deep.png") == ((256, 256), 16, 1, False)
    assert read_header(tmp_path / "pages.tif") == ((256, 256), 8, 3, False)
    assert read_header(tmp_path / "moving.gif") == ((256, 256), 8, 1, True)
    cut = tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "deep.png").read_bytes()[:60])
    assert read_header(cut).size == (256, 256), "the pixels are not looked at"
