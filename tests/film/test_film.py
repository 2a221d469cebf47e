"""Films as a whole: kill and resume, folders of frames, shots, references that are frames, the page for review."""

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import av, decode, hue, names, packets, pan, photograph, still, write_clip
from commands import Command, MeanColour, refused
from PIL import Image
from skimage import data

from pdnla.errors import UserError
from pdnla.film import colouring
from pdnla.film import shots as shots_module
from pdnla.film.shots import Shot, find_cuts, frame_signature, read_shots, shots_of, write_shots
from pdnla.images.color import rgb_to_lab
from pdnla.images.io import Picture, read_image

pytestmark = pytest.mark.skipif(av is None, reason="PyAV 18, of pdnla[film], needs Python 3.11")

RED, BLUE = (190, 60, 40), (40, 60, 190)


class Killed(BaseException):
    """Stands for a kill, which no handler of errors sees."""


@contextmanager
def killed_at(network: MeanColour, calls: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kill what runs in the block when the network is called after so many calls."""
    wanted = network.forward

    def until(target: Any, reference: Any) -> Any:
        if network.calls >= calls:  # two threads may count at once
            raise Killed
        return wanted(target, reference)

    with monkeypatch.context() as patch:
        patch.setattr(network, "forward", until)
        with pytest.raises(Killed):
            yield


def test_killed_it_goes_on_at_the_last_finished_segment(
    command: Command, network: MeanColour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is that of one run, to the bit, and no finished frame is coloured again."""
    monkeypatch.setattr(colouring, "SEGMENT", 8)
    write_clip(Path("film.mkv"), pan(40), sound=True)
    still(Path("a.png"), RED)
    assert command("film.mkv", "a.png", "-o", "whole.mkv").status == 0
    calls = network.calls
    network.calls = 0
    with killed_at(network, 6, monkeypatch):
        command("film.mkv", "a.png", "-o", "out.mkv")
    assert not Path("out.mkv").exists()
    kept = sorted(path.name for path in Path("out.mkv.parts").glob("segment_*.npz"))
    assert kept
    before = network.calls
    done = command("film.mkv", "a.png", "-o", "out.mkv")
    assert done.status == 0
    assert network.calls - before < calls
    whole, out = decode(Path("whole.mkv")), decode(Path("out.mkv"))
    assert out.times == whole.times
    for one, other in zip(out.rgb, whole.rgb, strict=True):
        np.testing.assert_array_equal(one, other)
    assert packets(Path("out.mkv"), "audio") == packets(Path("film.mkv"), "audio")
    assert names() == ["a.png", "film.mkv", "out.mkv", "whole.mkv"]


def test_killed_in_its_first_segment_a_folder_of_frames_goes_on_too(
    command: Command, network: MeanColour, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames_in("frames", 20)
    still(Path("a.png"), RED)
    with killed_at(network, 3, monkeypatch):
        command("frames", "a.png", "--film", "-o", "out")
    Path("out").mkdir(exist_ok=True)
    Path("out/f0.png").touch()
    done = command("frames", "a.png", "--film", "-o", "out")
    assert (done.status, "coloured frames: out" in done.out) == (0, True)
    assert len(names("out")) == 20
    assert min(hue([np.asarray(Image.open(path)) for path in Path("out").iterdir()])) > 15
    assert not Path("out.parts").exists()


def test_parts_of_an_earlier_version_are_made_anew(
    command: Command, network: MeanColour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colouring, "SEGMENT", 4)
    write_clip(Path("film.mkv"), pan(20))
    still(Path("a.png"), RED)
    with monkeypatch.context() as patched:
        patched.setattr(colouring, "_VERSION", 1)
        with killed_at(network, 3, monkeypatch):
            command("film.mkv", "a.png", "-o", "out.mkv")
    scan = Path("out.mkv.parts/scan.npz")
    with np.load(scan) as kept:
        values = dict(kept)
    values["times"] = values["times"][:-1]  # the end of the last frame was not stored
    np.savez(scan, **values)
    done = command("film.mkv", "a.png", "-o", "out.mkv")
    assert (done.status, "is coloured anew" in done.err) == (0, True)
    assert decode(Path("out.mkv")).times == decode(Path("film.mkv")).times


def test_a_film_that_does_not_count_its_frames_has_as_few_lines_of_progress(command: Command) -> None:
    write_clip(Path("film.mkv"), pan(100))
    done = command("film.mkv", still(Path("a.png")), "-o", "out.mkv")
    lines = [line for line in done.out.splitlines() if line.startswith("scanning")]
    assert 2 < len(lines) < 25
    assert "100/100" in lines[-1]


def test_other_settings_begin_anew(command: Command, network: MeanColour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colouring, "SEGMENT", 4)
    write_clip(Path("film.mkv"), pan(20))
    still(Path("a.png"), RED)
    with killed_at(network, 3, monkeypatch):
        command("film.mkv", "a.png", "-o", "out.mkv")
    still(Path("a.png"), BLUE)
    done = command("film.mkv", "a.png", "-o", "out.mkv")
    assert "begun with other settings and is coloured anew" in done.err
    assert max(hue(decode(Path("out.mkv")).rgb)) < -20


def frames_in(folder: str, count: int) -> list[Any]:
    lumas = pan(count)
    Path(folder).mkdir()
    for number, luma in enumerate(lumas):
        Image.fromarray(luma).save(f"{folder}/f{number}.png")
    return lumas


def test_folders_of_frames_are_films_if_asked(command: Command) -> None:
    lumas = frames_in("frames", 12)
    still(Path("a.png"), RED)
    assert command("frames", "a.png", "--film", "-o", "out").status == 0
    assert names("out") == sorted(f"f{number}.png" for number in range(12))
    for number, luma in enumerate(lumas):
        result = read_image(Path(f"out/f{number}.png")).colour
        lightness = [
            rgb_to_lab(torch.from_numpy(Picture(image).rows(0, 64)).permute(2, 0, 1)[None])[:, 0]
            for image in (result, Image.fromarray(luma).convert("RGB"))
        ]
        assert float((lightness[0] - lightness[1]).abs().max()) < 1
        red, _, blue = np.asarray(result).reshape(-1, 3).mean(axis=0)
        assert red > blue + 20
    assert "exists" in command("frames", "a.png", "--film", "-o", "out").out


def test_frames_become_a_video_in_natural_order(command: Command) -> None:
    lumas = frames_in("frames", 12)
    still(Path("a.png"), RED)
    assert command("frames", "a.png", "-o", "out.mkv", "--codec", "ffv1", "--fps", "24000/1001").status == 0
    after = decode(Path("out.mkv"))
    for luma, own in zip(after.lumas, lumas, strict=True):
        wanted = np.clip(own.astype(float) * 219 / 255 + 16, 16, 235)
        assert np.abs(luma - wanted).max() <= 1
    assert float(after.times[-1]) == pytest.approx(11 * 1001 / 24000, abs=1e-3)


def test_a_video_becomes_frames(command: Command) -> None:
    write_clip(Path("film.mkv"), pan(3))
    assert command("film.mkv", still(Path("a.png"), RED), "-o", "out/").status == 0
    assert names("out") == ["000000.png", "000001.png", "000002.png"]


def test_frames_of_several_sizes_are_refused(command: Command) -> None:
    frames_in("frames", 3)
    Image.new("L", (40, 40)).save("frames/f2.png")
    refused(command("frames", still(Path("a.png")), "--film"), "f2.png: has 40×40 pixels", "another folder")


def scenes(lengths: list[int]) -> Iterator[Any]:
    photographs = [photograph(), np.asarray(Image.fromarray(data.coffee()).convert("L")), data.camera()]
    for number, length in enumerate(lengths):
        yield from pan(length, scene=photographs[number % 3])


def test_cuts_are_found_and_neither_pans_nor_flashes() -> None:
    frames = list(scenes([30, 22, 9, 40]))
    generator = np.random.default_rng(0)
    noisy = [np.clip(frame + generator.normal(0, 6, frame.shape), 0, 255).astype(np.uint8) for frame in frames]
    flicker = [np.clip(frame * generator.uniform(0.8, 1.1), 0, 255).astype(np.uint8) for frame in noisy]
    flicker[10] = np.minimum(flicker[10].astype(int) + 90, 255).astype(np.uint8)
    for film in (frames, noisy, flicker):
        signatures = (frame_signature(Picture(Image.fromarray(frame))) for frame in film)
        assert list(find_cuts(signatures)) == [30, 52, 61]


def test_dissolves_and_single_frames_have_no_cuts() -> None:
    one, other = (frame.astype(float) for frame in (pan(1)[0], pan(1, scene=data.camera())[0]))
    mixed = [(one * (1 - t) + other * t).astype(np.uint8) for t in np.linspace(0, 1, 40)]
    assert list(find_cuts(frame_signature(Picture(Image.fromarray(frame))) for frame in mixed)) == []
    assert list(find_cuts([frame_signature(Picture(Image.fromarray(mixed[0])))])) == []
    assert list(find_cuts([])) == []


def test_shots_are_written_and_read_as_people_edit_them(tmp_path: Path) -> None:
    still(tmp_path / "a.png")
    still(tmp_path / "b.png")
    file = tmp_path / "shots.csv"
    write_shots(file, [Shot(0, 30, (tmp_path / "a.png",)), Shot(30, 52)])
    assert read_shots(file, 52, []) == [Shot(0, 30, (tmp_path / "a.png",)), Shot(30, 52)]
    file.write_text("start;end;reference\n0;9;a.png\n10;51;b.png;a.png\n", encoding="utf-8-sig")
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    assert read_shots(file, 52, []) == [Shot(0, 10, (a,)), Shot(10, 52, (b, a))]
    assert shots_of([], 3) == [Shot(0, 3)]


def test_names_of_references_may_contain_what_separates_them(tmp_path: Path) -> None:
    odd, plain = still(tmp_path / "a;b,1.png"), still(tmp_path / "a.png")
    shots = [Shot(0, 5, (odd, plain)), Shot(5, 9, (plain, odd)), Shot(9, 10)]
    file = tmp_path / "shots.csv"
    write_shots(file, shots)
    assert read_shots(file, 10, []) == shots
    file.write_text("start;end;reference\n0;9;a.png;a;b,1.png\n", encoding="utf-8")
    assert read_shots(file, 10, []) == [Shot(0, 10, (plain, odd))]
    many = ";".join(["a.png"] * 300)
    file.write_text(f"0,9,{many}\n", encoding="utf-8")
    assert read_shots(file, 10, []) == [Shot(0, 10, (plain,) * 300)]
    file.write_text("0,9,a.png;c;d.png\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1: there is no reference c;"):
        read_shots(file, 10, [])


def test_a_reference_that_many_shots_name_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    still(tmp_path / "a.png")
    checked: list[Any] = []
    monkeypatch.setattr(shots_module, "check_reference", checked.append)
    file = tmp_path / "shots.csv"
    file.write_text("0,4,a.png\n5,9,a.png\n", encoding="utf-8")
    assert len(read_shots(file, 10, [])) == 2
    assert checked == [tmp_path / "a.png"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0,9\n11,29\n", "line 2: goes from 11 to 29 where a shot from 10 on is due"),
        ("0,9\n10,28\n", "ends at frame 28 and the film at 29"),
        ("0,x\n", "line 1: needs the numbers"),
        ("0,29,none.png\n", "there is no reference none.png"),
        ("", "ends at frame none"),
    ],
)
def test_mistakes_in_the_list_of_shots_are_told(command: Command, text: str, why: str) -> None:
    write_clip(Path("film.mkv"), pan(30))
    Path("shots.csv").write_text(text)
    refused(command("film.mkv", still(Path("a.png")), "--shots", "shots.csv"), why)


def coloured_scenes() -> tuple[Path, Path]:
    """Write a film of two shots, and a red and a blue picture of what they show."""
    write_clip(Path("film.mkv"), list(scenes([12, 14])))
    red, blue = Path("refs/red.png"), Path("refs/blue.png")
    red.parent.mkdir()
    for path, scene, colour in ((red, 0, (1.3, 1.0, 0.6)), (blue, 1, (0.6, 1.0, 1.3))):
        grey = list(scenes([1, 1]))[scene].astype(float)
        Image.fromarray(np.stack([np.clip(grey * c, 0, 255) for c in colour], -1).astype(np.uint8)).save(path)
    return red, blue


@pytest.mark.slow
def test_each_shot_takes_the_references_that_it_resembles(command: Command) -> None:
    coloured_scenes()
    done = command("film.mkv", "refs", "-o", "out.mkv", "--shots", "shots.csv")
    assert done.status == 0
    rows = list(csv.reader(Path("shots.csv").read_text().splitlines()))
    assert [row[:2] for row in rows] == [["start", "end"], ["0", "11"], ["12", "25"]]
    assert [row[2].split(";")[0] for row in rows[1:]] == ["refs/red.png", "refs/blue.png"]
    tints = hue(decode(Path("out.mkv")).rgb)
    assert min(tints[:12]) > 15
    assert max(tints[12:]) < -15
    Path("shots.csv").write_text("start,end,reference\n0,11,blue.png\n12,25,refs/red.png\n")
    assert command("film.mkv", "refs", "-o", "out2.mkv", "--shots", "shots.csv").status == 0
    tints = hue(decode(Path("out2.mkv")).rgb)
    assert max(tints[:12]) < -15
    assert min(tints[12:]) > 15


def test_key_frames_that_are_coloured_ahead_have_the_references_of_their_shot(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured_scenes()
    frame_input = colouring.frame_input

    def slowly(*arguments: Any) -> torch.Tensor:
        time.sleep(0.02)
        return frame_input(*arguments)

    monkeypatch.setattr(colouring, "frame_input", slowly)
    Path("shots.csv").write_text("start,end,reference\n0,11,refs/red.png\n12,25,refs/blue.png\n")
    assert command("film.mkv", "refs", "-o", "out.mkv", "--shots", "shots.csv").status == 0
    tints = hue(decode(Path("out.mkv")).rgb)
    assert min(tints[:12]) > 100
    assert max(tints[12:]) < -50


@pytest.mark.slow
def test_the_page_shows_a_frame_of_each_shot_and_colours_nothing_else(command: Command) -> None:
    coloured_scenes()
    done = command("film.mkv", "refs", "-o", "out.mkv", "--shots", "shots.csv", "--review")
    assert done.status == 0
    assert "out_review.html" in done.out
    page = Path("out_review.html").read_text()
    assert page.count("<section>") == 2
    assert "frames 0 to 11" in page
    assert "red.png, score" in page
    assert not Path("out.mkv").exists()
    assert command("film.mkv", "refs", "-o", "out.mkv", "--shots", "shots.csv").status == 0
    assert command("film.mkv", "refs", "-o", "out.mkv", "--shots", "shots.csv", "--review").status == 0
    assert "exists; --overwrite" in command("film.mkv", "refs", "-o", "out.mkv", "--shots", "shots.csv").out
    assert len(Path("shots.csv").read_text().splitlines()) == 3


def test_a_reference_with_a_frames_number_gives_that_frame_its_own_colours(command: Command) -> None:
    frames = pan(20)
    write_clip(Path("film.mkv"), frames)
    colours = np.zeros((*frames[9].shape, 3))
    colours[:, :48], colours[:, 48:] = (1.25, 1.0, 0.7), (0.7, 1.0, 1.25)
    Path("refs").mkdir()
    Image.fromarray(np.clip(frames[9][..., None] * colours, 0, 255).astype(np.uint8)).save("refs/000009.png")
    still(Path("refs/000003.png"), (120, 110, 100))  # a number, but not that frame
    assert command("film.mkv", "refs", "-o", "out.mkv", "--codec", "ffv1").status == 0
    rgb = decode(Path("out.mkv")).rgb[9].astype(float)
    tint = rgb[..., 0] - rgb[..., 2]
    assert tint[8:-8, 8:40].mean() > 15
    assert tint[8:-8, 56:88].mean() < -15


def test_memory_holds_a_few_frames_whatever_the_length(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader is never more than a few frames ahead of what is written."""
    write_clip(Path("film.mkv"), pan(150, (32, 32)))
    counts = {"read": 0, "written": 0, "ahead": 0}
    read, write = colouring.VideoSource.frames, colouring.VideoSink.write

    def reading(self: Any, start: int = 0, times: Any = None) -> Iterator[Any]:
        for frame in read(self, start, times):
            counts["read"] += times is not None
            counts["ahead"] = max(counts["ahead"], counts["read"] - counts["written"])
            yield frame

    def writing(self: Any, *arguments: Any) -> None:
        write(self, *arguments)
        counts["written"] += 1

    monkeypatch.setattr(colouring.VideoSource, "frames", reading)
    monkeypatch.setattr(colouring.VideoSink, "write", writing)
    assert command("film.mkv", still(Path("a.png")), "-o", "out.mkv").status == 0
    assert counts["written"] == 150
    assert counts["ahead"] < 60


def test_references_that_only_the_list_of_shots_names_are_checked_before_anything_is_coloured(command: Command) -> None:
    write_clip(Path("film.mkv"), pan(10))
    still(Path("a.png"), RED)
    Image.new("L", (64, 64), 90).save("grey.png")
    Path("shots.csv").write_text("start,end,reference\n0,4,a.png\n5,9,grey.png\n")
    done = command("film.mkv", "a.png", "-o", "out.mkv", "--shots", "shots.csv")
    refused(done, "shots.csv, line 3: grey.png: is grey")
    assert "colouring" not in done.out


def test_references_are_checked_before_any_frame_is_read(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(Path("film.mkv"), pan(4))
    Path("refs").mkdir()
    Image.new("L", (64, 48), 90).save("refs/a_grey.png")
    Path("refs/b_broken.jpg").write_bytes(b"no picture")
    with monkeypatch.context() as patched:
        patched.setattr(colouring.VideoSource, "frames", None)
        refused(command("film.mkv", "refs/a_grey.png"), "refs/a_grey.png: is grey and should give the colours")
        done = command("film.mkv", "refs")
        assert done.status == 2
        assert "no REFERENCE can be used; name pictures in colour" in done.err
    still(Path("refs/c.png"))
    done = command("film.mkv", "refs", "-o", "out.mkv")
    assert done.status == 1
    assert "refs/a_grey.png: is grey" in done.err
    assert "refs/b_broken.jpg: " in done.err
    assert len(decode(Path("out.mkv")).rgb) == 4
