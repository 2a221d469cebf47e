"""The Still tab without a browser: what is taken, picked, coloured, corrected and saved."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pdnla.errors import UserError
from pdnla.inference.colorizer import Colorizer
from pdnla.inference.editing import Adjustment
from pdnla.web.still import Still
from pdnla.web.studio import Studio
from pdnla.web.uploads import Limits

PLAIN = Adjustment()


def ready(studio: Studio, folder: Path, target: Path, *references: Path) -> Still:
    """A Still with a target and its references."""
    still = Still(studio, folder)
    still.take_target(target)
    still.take_references(references)
    assert still.choose_candidates() == []
    return still


def coloured(studio: Studio, folder: Path, target: Path, *references: Path) -> Still:
    still = ready(studio, folder, target, *references)
    still.colour()
    return still


def bomb(path: Path, side: int) -> Path:
    """A PNG of a few bytes that says it has ``side``² pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    return path


def test_the_five_most_similar_references_are_offered_best_first(
    studio: Studio, pictures: Path, tmp_path: Path
) -> None:
    names = ["coffee", "chelsea", "rocket", "mirrored"]
    references = [next(pictures.glob(f"{name}.*")) for name in names]
    more = [tmp_path / f"coffee_{number}.png" for number in range(3)]
    for path in more:
        path.write_bytes((pictures / "coffee.png").read_bytes())
    still = ready(studio, tmp_path / "files", pictures / "astronaut_grey.png", *references, *more)
    offered = [candidate.upload.name for candidate in still.candidates]
    scores = [candidate.score or 0 for candidate in still.candidates]
    assert offered[0] == "mirrored.jpg"
    assert len(offered) == 5
    assert scores == sorted(scores, reverse=True)
    thumbnails = still.thumbnails()
    assert thumbnails[0][1] == f"mirrored.jpg · {scores[0]:.2f}"
    assert still.compared == 7
    assert Image.open(thumbnails[0][0]).size == (128, 128)


def test_references_on_this_machine_are_offered_where_none_is_sent(
    colorizer: Colorizer, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDNLA_CACHE", str(tmp_path / "cache"))
    studio = Studio(colorizer, folder=pictures, candidates=[pictures / "coffee.png", pictures / "mirrored.jpg"])
    still = Still(studio, tmp_path / "files")
    still.take_target(pictures / "astronaut_grey.png")
    still.choose_candidates()
    assert [candidate.upload.name for candidate in still.candidates] == ["mirrored.jpg", "coffee.png"]
    still.take_references([pictures / "coffee.png"])
    still.choose_candidates()
    assert [candidate.upload.name for candidate in still.candidates] == ["coffee.png"]


def test_unusable_references_are_told_by_name_and_the_others_offered(
    studio: Studio, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    still = Still(studio, tmp_path / "files")
    still.take_target(pictures / "astronaut_grey.png")
    still.take_references(
        [pictures / "broken.jpg", tmp_path / "notes.txt", pictures / "mirrored.jpg", pictures / "coffee.png"]
    )
    left_out = still.choose_candidates()
    assert [sentence.split(":")[0] for sentence in left_out] == ["broken.jpg", "notes.txt"]
    assert not any(str(tmp_path) in sentence for sentence in left_out)
    assert [candidate.upload.name for candidate in still.candidates] == ["mirrored.jpg", "coffee.png"]
    still.take_references([tmp_path / "notes.txt"])
    with pytest.raises(UserError, match=r"^notes.txt: is not an image"):
        still.choose_candidates()


def test_grey_references_are_named_and_left_out(studio: Studio, pictures: Path, tmp_path: Path) -> None:
    still = Still(studio, tmp_path / "files")
    still.take_target(pictures / "described.jpg")
    still.take_references([pictures / "astronaut_grey.png", pictures / "coffee.png"])
    sentence = "astronaut_grey.png: is grey and should give the colours; leave it out or colour it"
    assert still.choose_candidates() == [sentence]
    still.take_references([pictures / "astronaut_grey.png"])
    with pytest.raises(UserError, match=sentence):
        still.choose_candidates()


def test_the_sliders_do_not_run_the_network_again(
    studio: Studio, network: object, pictures: Path, tmp_path: Path
) -> None:
    still = coloured(studio, tmp_path, pictures / "astronaut_grey.png", pictures / "mirrored.jpg")
    calls = network.calls  # type: ignore[attr-defined]
    pale, full = (np.asarray(Image.open(still.compare(Adjustment(x)).after), int) for x in (0.3, 1.0))
    faded = np.asarray(Image.open(still.compare(Adjustment(1.0, 0.3)).after), int)
    spread = [float((shown.max(axis=-1) - shown.min(axis=-1)).mean()) for shown in (pale, faded, full)]
    assert max(spread[:2]) < 0.8 * spread[2]
    assert network.calls == calls  # type: ignore[attr-defined]


def test_a_point_is_marked_where_its_colour_comes_from_corrected_and_undone(
    studio: Studio, pictures: Path, tmp_path: Path
) -> None:
    still = coloured(
        studio, tmp_path, pictures / "astronaut_grey.png", pictures / "mirrored.jpg", pictures / "coffee.png"
    )
    before = still.compare(PLAIN).after.read_bytes()
    unmarked = still.mark().result.read_bytes()
    point = (0.2, 0.75)
    marked = still.mark(point)
    assert marked.source is not None
    assert (marked.source.number, marked.source.corrected) == (0, False)
    assert np.hypot(marked.source.x - (1 - point[0]), marked.source.y - point[1]) < 0.2, "the mirrored place"
    assert marked.result.read_bytes() != unmarked
    still.choose(1)
    still.correct((0.5, 0.85))
    assert still.compare(PLAIN).after.read_bytes() != before
    source = still.mark().source
    assert source is not None
    assert (source.number, source.corrected) == (1, True)
    assert still.undo()
    assert still.compare(PLAIN).after.read_bytes() == before
    assert not still.undo()


def test_a_click_on_the_result_shows_its_reference_and_changes_no_choice(
    studio: Studio, pictures: Path, tmp_path: Path
) -> None:
    still = coloured(
        studio, tmp_path, pictures / "astronaut_grey.png", pictures / "mirrored.jpg", pictures / "coffee.png"
    )
    still.compare(PLAIN)
    still.choose(1)
    assert still.mark((0.2, 0.75)).name == "mirrored.jpg", "the reference that it is coloured with"
    assert still.chosen == 1
    still.colour()
    still.compare(PLAIN)
    assert still.mark((0.2, 0.75)).name == "coffee.png"


def test_a_result_keeps_the_references_that_it_is_made_with(studio: Studio, pictures: Path, tmp_path: Path) -> None:
    still = coloured(studio, tmp_path, pictures / "astronaut_grey.png", pictures / "mirrored.jpg")
    still.compare(PLAIN)
    for others in (["coffee.png"], ["coffee.png", "chelsea.png"], []):
        still.take_references([pictures / name for name in others])
        if others:
            still.choose_candidates()
        assert still.mark((0.2, 0.75)).name == "mirrored.jpg"
        still.correct((0.5, 0.5))
        assert still.undo()
        if others:
            still.choose(len(others) - 1)
            with pytest.raises(
                UserError, match=r"^this reference is newer than the result; press Colour, then correct"
            ):
                still.correct((0.5, 0.5))


def test_colours_are_taken_from_all_references_where_that_is_asked(
    studio: Studio, pictures: Path, tmp_path: Path
) -> None:
    still = ready(studio, tmp_path, pictures / "astronaut_grey.png", pictures / "coffee.png", pictures / "mirrored.jpg")
    for chosen in (0, 1):
        still.choose(chosen)
        still.colour(together=True)
        still.compare(PLAIN)
        source = still.mark((0.2, 0.75)).source
        assert source is not None
        assert still.candidates[source.number].upload.name == "mirrored.jpg"


@pytest.mark.parametrize(
    ("target", "name", "mode"),
    [("described.jpg", "described_colorized.jpg", "RGB"), ("still.gif", "still_colorized.png", "RGB")],
)
def test_results_are_saved_in_the_targets_format_with_its_metadata(
    studio: Studio, pictures: Path, tmp_path: Path, target: str, name: str, mode: str
) -> None:
    still = coloured(studio, tmp_path, pictures / target, pictures / "mirrored.jpg")
    path = still.save(PLAIN)
    with Image.open(path) as result:
        assert (path.name, result.mode, result.size) == (name, mode, (128, 128))
        if target == "described.jpg":
            assert result.getexif()[0x010E] == "Portrait"
            assert result.info["dpi"] == pytest.approx((300, 300))
    with Image.open(still.save(Adjustment(saturation=0))) as grey:
        levels = np.asarray(grey, int)
    assert (levels.max(axis=-1) - levels.min(axis=-1)).max() <= 3, "what is shown is what is saved"


def test_a_16_bit_scan_is_saved_in_16_bits(studio: Studio, pictures: Path, tmp_path: Path) -> None:
    path = coloured(studio, tmp_path, pictures / "deep.png", pictures / "mirrored.jpg").save(PLAIN)
    assert path.read_bytes()[24] == 16
    assert path.name == "deep_colorized.png"


def test_a_large_picture_is_shown_reduced_or_at_full_size_and_points_stay_where_they_are(
    studio: Studio, pictures: Path, tmp_path: Path
) -> None:
    still = Still(studio, tmp_path, shown_pixels=64 * 64)
    still.take_target(pictures / "astronaut_grey.png")
    still.take_references([pictures / "mirrored.jpg"])
    still.choose_candidates()
    still.colour()
    shown = still.compare(PLAIN)
    assert {Image.open(path).size for path in shown} == {(64, 64)}
    assert still.result_size == (64, 64)
    full = still.compare(PLAIN, full=True)
    assert {Image.open(path).size for path in full} == {(128, 128)}
    assert still.result_size == (64, 64)
    assert Image.open(still.mark((0.5, 0.5)).result).size == (64, 64)
    assert Image.open(still.save(PLAIN)).size == (128, 128)


def test_transparent_parts_are_transparent_before_and_after(studio: Studio, pictures: Path, tmp_path: Path) -> None:
    cut = Image.open(pictures / "astronaut_grey.png").convert("LA")
    hidden = np.full((128, 128), 255, np.uint8)
    hidden[:64, :64] = 0
    cut.putalpha(Image.fromarray(hidden))
    cut.save(tmp_path / "cut.png")
    for pixels in (1_200_000, 64 * 64):
        still = Still(studio, tmp_path / f"files {pixels}", shown_pixels=pixels)
        shown = [still.take_target(tmp_path / "cut.png")]
        still.take_references([pictures / "mirrored.jpg"])
        still.choose_candidates()
        still.colour()
        assert still.compared == 0, "a single reference is taken as it is"
        shown += [*still.compare(PLAIN), still.mark((0.8, 0.8)).result]
        assert still.reduced == (pixels == 64 * 64)
        for path in shown:
            alpha = np.asarray(Image.open(path).getchannel("A"))
            side = len(alpha) // 2
            assert alpha[: side - 4, : side - 4].max() == 0
            assert alpha[side + 4 :].min() == 255


def test_what_cannot_be_coloured_here_is_told_in_a_sentence(studio: Studio, pictures: Path, tmp_path: Path) -> None:
    still = Still(studio, tmp_path / "files")
    for name, sentence in {
        "broken.jpg": "is truncated or damaged",
        "moving.gif": "is an animation; export its frames and colour them as an album",
        "pages.tif": "is a TIFF of 2 pages; colour it as an album",
    }.items():
        with pytest.raises(UserError, match=f"^{name}: {sentence}"):
            still.take_target(pictures / name)
        assert still.target is None
    raw = tmp_path / "camera.dng"
    raw.write_bytes((pictures / "pages.tif").read_bytes())
    with pytest.raises(UserError, match=r"^camera.dng: is a camera's raw file"):
        still.take_target(raw)
    with pytest.raises(UserError, match="there is no grey picture; choose one first"):
        still.colour()
    still.take_target(pictures / "astronaut_grey.png")
    with pytest.raises(UserError, match="there is no reference; choose one"):
        still.colour()
    for refused in (
        lambda: still.compare(PLAIN),
        lambda: still.mark((0.5, 0.5)),
        still.undo,
        lambda: still.save(PLAIN),
    ):
        with pytest.raises(UserError, match="nothing is coloured"):
            refused()
    still.take_references([pictures / "mirrored.jpg"])
    still.choose_candidates()
    still.colour()
    with pytest.raises(UserError, match="no point of the result is marked"):
        still.correct((0.5, 0.5))


def test_a_decompression_bomb_is_refused_by_its_header(studio: Studio, pictures: Path, tmp_path: Path) -> None:
    still = Still(studio, tmp_path / "files")
    with pytest.raises(UserError, match=r"^bomb.png: has 144 million pixels, and this page takes 100; make it smaller"):
        still.take_target(bomb(tmp_path / "bomb.png", 12_000))
    with pytest.raises(UserError, match=r"^larger.png: has more than 178 million pixels"):
        still.take_target(bomb(tmp_path / "larger.png", 60_000))
    still.take_target(pictures / "astronaut_grey.png")
    still.take_references([tmp_path / "bomb.png"])
    with pytest.raises(UserError, match=r"^bomb.png: has 144 million pixels"):
        still.choose_candidates()


def test_limits_hold_here_too_whatever_the_server_let_through(
    colorizer: Colorizer, pictures: Path, tmp_path: Path
) -> None:
    still = Still(Studio(colorizer, Limits(megabytes=1, megapixels=1, files=2)), tmp_path / "files")
    large = tmp_path / "large.png"
    large.write_bytes((pictures / "coffee.png").read_bytes() + bytes(1_200_000))
    with pytest.raises(UserError, match=r"^large.png: has 1 MB, and this page takes 1; make it smaller"):
        still.take_target(large)
    with pytest.raises(UserError, match="3 references are more than this page takes at a time, 2; send fewer"):
        still.take_references([pictures / "coffee.png"] * 3)


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>.png", "-rf.png", "naïve ‮gnp.png", "a" * 251 + ".png"])
def test_odd_names_are_only_names(studio: Studio, pictures: Path, tmp_path: Path, name: str) -> None:
    sent = tmp_path / name
    sent.write_bytes((pictures / "astronaut_grey.png").read_bytes())
    still = coloured(studio, tmp_path / "files", sent, pictures / "mirrored.jpg")
    saved = still.save(PLAIN)
    assert saved.name == f"{sent.stem[:200]}_colorized.png"
    assert saved.is_relative_to(tmp_path / "files")


def test_files_that_no_page_shows_any_more_are_removed(studio: Studio, pictures: Path, tmp_path: Path) -> None:
    still = coloured(studio, tmp_path, pictures / "astronaut_grey.png", pictures / "mirrored.jpg")
    first = still.compare(PLAIN)
    assert first.after.exists()
    for _ in range(40):
        last = still.compare(PLAIN)
    assert not first.after.exists()
    assert last.before.exists()
