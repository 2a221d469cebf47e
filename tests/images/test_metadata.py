"""What a result keeps of its target's file, 16 bits, and pages."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from torchvision.io import ImageReadMode, decode_png

from pdnla.errors import UserError
from pdnla.images.io import count_pages, read_image, read_metadata, read_pages, write_image, write_pages
from pdnla.images.metadata import Metadata

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6" dc:title="the mill"/></x:xmpmeta>'
DEEP = np.random.default_rng(0).integers(0, 65536, (70, 50, 4), dtype=np.uint16)


def exif(orientation: int = 1) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    data[0x010F], data[0x0132], data[0x8298] = "Leica", "1937:05:06 10:00:00", "the archive"
    data.get_ifd(0x8769).update({0x9003: "1936:08:01 12:00:00", 0xA002: 48, 0xA003: 32})
    data[0x8769] = data.get_ifd(0x8769)
    data[0x8825] = {1: "N", 2: (47.0, 22.0, 0.0)}
    read = Image.Exif()
    read.load(data.tobytes())
    return read


def scan(path: Path, orientation: int = 1) -> Path:
    options: dict[str, object] = {"dpi": (300, 600), "exif": exif(orientation), "xmp": XMP}
    if path.suffix == ".png":
        texts = PngInfo()
        texts.add_text("Creation Time", "May 1937")
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options["pnginfo"] = texts
    if path.suffix == ".tif":
        tags = exif(orientation)
        tags[700] = XMP
        options["exif"] = tags
    Image.new("L", (48, 32), 99).save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("into", [".jpg", ".png", ".tif", ".webp"])
def test_resolution_dates_exif_and_xmp_are_kept(tmp_path: Path, suffix: str, into: str) -> None:
    source = scan(tmp_path / f"scan{suffix}", orientation=6)
    picture = read_image(source)
    assert picture.size == (32, 48)
    write_image(tmp_path / f"result{into}", picture.rgb(), read_metadata(source))
    with Image.open(tmp_path / f"result{into}") as image:
        image.load()
        kept = image.getexif()
        assert (kept[0x010F], kept[0x0132], kept[0x8298]) == ("Leica", "1937:05:06 10:00:00", "the archive")
        assert kept[0x0112] == 1
        photograph = kept.get_ifd(0x8769)
        assert photograph[0x9003] == "1936:08:01 12:00:00"
        assert (photograph[0xA001], photograph[0xA002], photograph[0xA003]) == (1, 32, 48)
        assert kept.get_ifd(0x8825)[1] == "N"
        if ".webp" not in (suffix, into):  # it has no place for a resolution
            assert image.info["dpi"] == pytest.approx((600, 300), abs=0.02)
        xmp = image.info["xmp"]
        assert b'tiff:Orientation="1" dc:title="the mill"' in (xmp if isinstance(xmp, bytes) else xmp.encode())
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
        if suffix == into == ".png":
            assert image.info["Creation Time"] == "May 1937"
    assert read_image(tmp_path / f"result{into}").size == (32, 48)


def test_a_grey_picture_has_no_profile_of_colours(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Image.new("L", (4, 4)))
    with Image.open(tmp_path / "a.png") as image:
        assert (image.mode, image.info.get("icc_profile")) == ("L", None)


def test_broken_exif_costs_no_result(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(90)))
    metadata = read_metadata(tmp_path / "a.jpg")
    write_image(tmp_path / "b.jpg", Image.new("RGB", (8, 8)), metadata)
    assert read_image(tmp_path / "b.jpg").size == (8, 8)


def test_what_a_jpeg_cannot_hold_is_left_out_of_it(tmp_path: Path) -> None:
    large = Metadata(xmp=b"<x>" + b" " * 70_000 + b"</x>")
    write_image(tmp_path / "a.jpg", Image.new("RGB", (8, 8)), large)
    write_image(tmp_path / "a.png", Image.new("RGB", (8, 8)), large)
    with Image.open(tmp_path / "a.jpg") as jpeg, Image.open(tmp_path / "a.png") as png:
        assert "xmp" not in jpeg.info
        assert "xmp" in png.info


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, Image.new("RGB", (8, 8)))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["icc_profile"][24:28] == b"\x07\xd0\0\1"


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_files_are_what_other_programs_read(tmp_path: Path, channels: int) -> None:
    pixels, metadata = DEEP[..., :channels], read_metadata(scan(tmp_path / "scan.tif"))
    for suffix in (".png", ".tif"):
        write_image(tmp_path / f"a{suffix}", pixels, metadata)
        with Image.open(tmp_path / f"a{suffix}") as image:
            image.load()  # 8 bits of them
            assert image.mode == ("RGB" if channels == 3 else "RGBA")
            kept = image.getexif()
            assert kept[0x0132] == "1937:05:06 10:00:00"
            assert kept.get_ifd(0x8769)[0x9003] == "1936:08:01 12:00:00"
            assert image.info["dpi"] == pytest.approx((300, 600), abs=0.02)
            assert image.info["icc_profile"][36:40] == b"acsp"
            assert b"the mill" in image.info["xmp"]
    data = torch.frombuffer(bytearray((tmp_path / "a.png").read_bytes()), dtype=torch.uint8)
    by_libpng = decode_png(data, ImageReadMode.UNCHANGED)
    assert by_libpng.dtype == torch.uint16
    assert np.array_equal(by_libpng.to(torch.int32).permute(1, 2, 0).numpy(), pixels)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert np.array_equal(tiff.asarray(), pixels)
        assert tiff.pages[0].photometric == tifffile.PHOTOMETRIC.RGB


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 400_000, 3), (400_000, 1, 3)])
def test_16_bits_of_odd_shapes(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16)
    for suffix in (".png", ".tif"):
        write_image(tmp_path / f"a{suffix}", pixels)
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif").reshape(shape), pixels)
    data = torch.frombuffer(bytearray((tmp_path / "a.png").read_bytes()), dtype=torch.uint8)
    by_libpng = decode_png(data, ImageReadMode.UNCHANGED).to(torch.int32).permute(1, 2, 0).numpy()
    assert np.array_equal(by_libpng, pixels)


def test_16_bits_are_refused_where_the_format_has_8(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"a\.jpg: \.jpg holds 8 bits per channel; use one of \.png, \.tif, \.tiff for 16"
    ):
        write_image(tmp_path / "a.jpg", DEEP)


def pages(path: Path) -> Path:
    first = [Image.new("L", (9, 6), 10), Image.new("RGBA", (5, 7), (1, 2, 3, 99))]
    deep = Image.fromarray(np.full((4, 3), 40_000, np.uint16))
    first[0].save(path, save_all=True, append_images=[first[1], deep], dpi=(300, 300))
    return path


def test_each_page_is_read_as_it_is(tmp_path: Path) -> None:
    path = pages(tmp_path / "a.tif")
    assert count_pages(path) == 3
    assert read_image(path).pages == 3
    read = [page.picture for page in read_pages(path)]
    assert [page.colour.mode for page in read] == ["L", "RGB", "F"]
    assert [page.size for page in read] == [(9, 6), (5, 7), (3, 4)]
    assert [page.alpha is not None for page in read] == [False, True, False]
    assert read[2].rows(0, 1)[0, 0, 0] == pytest.approx(40_000 / 65535, abs=1e-6)


def test_thumbnails_and_masks_are_no_pages(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(np.full((4, 4), 9, np.uint8), subfiletype=1)
        tiff.write(np.full((40, 40), 77, np.uint8))
        tiff.write(np.full((40, 40), 1, np.uint8), subfiletype=3)
    assert count_pages(tmp_path / "a.tif") == 1
    assert read_image(tmp_path / "a.tif").size == (40, 40)


@pytest.mark.parametrize("deep", [False, True])
def test_pages_are_written_as_they_come(tmp_path: Path, deep: bool) -> None:
    colours = [DEEP[:20, :30], DEEP[:10, :10, :3], DEEP[30:50, :7, :3]]
    if not deep:
        eight = [(page >> 8).astype(np.uint8) for page in colours]
    given = colours if deep else [Image.fromarray(page) for page in eight]
    metadata = read_metadata(scan(tmp_path / "scan.tif"))
    write_pages(tmp_path / "a.tif", ((page, metadata) for page in given))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert len(tiff.pages) == 3
        for page, expected in zip(tiff.pages, colours if deep else eight, strict=True):
            assert np.array_equal(page.asarray(), expected)
    with Image.open(tmp_path / "a.tif") as image:
        for number in range(3):
            image.seek(number)
            assert image.info["dpi"] == pytest.approx((300, 600), abs=0.02)
            assert image.getexif()[0x0132] == "1937:05:06 10:00:00"
            assert image.getexif().get_ifd(0x8769)[0x9003] == "1936:08:01 12:00:00"


def test_a_page_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[Image.Image, Metadata]]:
        yield Image.new("RGB", (4, 4)), Metadata()
        raise UserError("page 2")

    with pytest.raises(UserError, match="page 2"):
        write_pages(tmp_path / "a.tif", failing())
    assert not list(tmp_path.iterdir())
