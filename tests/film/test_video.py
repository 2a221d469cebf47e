"""From a video file to a video file: what stays as it was, to the bit, and what is said."""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import av, decode, hue, names, packets, pan, still, write_clip, write_interlaced
from commands import Command, refused

from pdnla.film import video
from pdnla.images.color import rgb_to_lab

pytestmark = pytest.mark.skipif(av is None, reason="PyAV 18, of pdnla[film], needs Python 3.11")


def test_a_film_keeps_its_length_time_stamps_luminance_sound_and_subtitles(command: Command) -> None:
    frames = pan(20)
    write_clip(Path("film.mkv"), frames, sound=True, subtitles=True)
    done = command("film.mkv", still(Path("a.png")), "-o", "out.mkv", "--codec", "ffv1")
    assert (done.status, done.err) == (0, "")
    assert re.search(r"^colouring 20/20 frames, \d+\.\d frames/s, 0:00:00 left$", done.out, re.MULTILINE)
    before, after = decode(Path("film.mkv")), decode(Path("out.mkv"))
    assert after.times == before.times
    for luma, own in zip(after.lumas, frames, strict=True):
        np.testing.assert_array_equal(luma, own)
    for kind in ("audio", "subtitle"):
        assert packets(Path("out.mkv"), kind) == packets(Path("film.mkv"), kind)
        assert len(packets(Path("out.mkv"), kind)) > 1
    assert min(hue(after.rgb)) > 20
    assert names() == ["a.png", "film.mkv", "out.mkv"]


def test_mp4_keeps_sound_and_subtitles_and_takes_h264_by_default(command: Command) -> None:
    write_clip(Path("film.mp4"), pan(12), codec="libx264", sound=True, subtitles=True)
    assert command("film.mp4", still(Path("a.png"))).status == 0
    before, after = decode(Path("film.mp4")), decode(Path("film_colorized.mp4"))
    assert after.times == before.times
    assert after.stream["codec"] == "h264"
    assert after.stream["streams"] == before.stream["streams"] == ["video", "audio", "subtitle"]
    for kind in ("audio", "subtitle"):
        assert packets(Path("film_colorized.mp4"), kind) == packets(Path("film.mp4"), kind)
    errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(after.lumas, before.lumas, strict=True)]
    assert max(errors) < 1.5  # H.264 loses a little; more would be another plane
    assert min(hue(after.rgb)) > 20
    assert "exists; --overwrite replaces it" in command("film.mp4", "a.png").out


def test_what_a_file_says_of_itself_is_kept(command: Command) -> None:
    write_clip(Path("film.mkv"), pan(3), sound=True)
    with av.open("film.mkv") as source, av.open("named.mkv", "w") as container:
        container.metadata["title"] = "Der Film"
        container.set_chapters([{"id": 1, "start": 0, "end": 80, "time_base": Fraction(1, 1000), "metadata": {}}])
        streams = {stream.index: container.add_stream_from_template(stream) for stream in source.streams}
        for stream in source.streams:
            streams[stream.index].metadata.update(stream.metadata)
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                container.mux(packet)
    assert command("named.mkv", still(Path("a.png")), "-o", "out.mkv").status == 0
    with av.open("out.mkv") as result, av.open("film.mkv") as source:
        assert result.metadata["title"] == "Der Film"
        assert [chapter["end"] * chapter["time_base"] for chapter in result.chapters()] == [Fraction(8, 100)]
        assert result.streams.audio[0].language == source.streams.audio[0].language == "ger"


@pytest.mark.parametrize("suffix", ["mov", "mkv", "nut"])
def test_variable_frame_rates_keep_every_time_stamp(command: Command, suffix: str) -> None:
    times = [1000, 1512, 1513, 4000, 9000, 9512, 10024, 20000, 20512, 20513, 20514, 30000]
    write_clip(Path("film.mov"), pan(len(times)), codec="libx264", times=times)
    assert command("film.mov", still(Path("a.png")), "-o", f"out.{suffix}").status == 0
    before, after = decode(Path("film.mov")), decode(Path(f"out.{suffix}"))
    assert [time - before.times[0] for time in before.times] == [Fraction(t - 1000, 12800) for t in times]
    unit = Fraction(1, 1000) if suffix == "mkv" else Fraction(0)  # Matroska's time stamps are milliseconds
    start = after.times[0] - before.times[0] if suffix == "nut" else 0  # decoding starts at 0 there
    for time, wanted in zip(after.times, before.times, strict=True):
        assert abs(time - start - wanted) <= unit


@pytest.mark.parametrize("codec", ["ffv1", "libx265"])
def test_ten_bits_stay_ten(command: Command, codec: str) -> None:
    frames = [(64 + (frame.astype(np.uint16) - 16) * 4 + index % 4) for index, frame in enumerate(pan(5))]
    write_clip(Path("film.mkv"), frames, pixels="yuv420p10le")
    assert command("film.mkv", still(Path("a.png")), "-o", "out.mkv", "--codec", codec).status == 0
    after = decode(Path("out.mkv"))
    assert after.stream["pixels"] == "yuv420p10le"
    if codec == "ffv1":
        for luma, own in zip(after.lumas, frames, strict=True):
            np.testing.assert_array_equal(luma, own)
    assert min(hue(after.rgb)) > 20


def test_fewer_bits_than_the_source_has_are_said(command: Command) -> None:
    frames = [frame.astype(np.uint16) * 4 for frame in pan(2)]
    write_clip(Path("film.mkv"), frames, pixels="yuv420p10le")
    done = command("film.mkv", still(Path("a.png")), "-o", "out.mkv", "--codec", "mpeg4")
    assert done.status == 0
    assert "has 10 bits, of which mpeg4 keeps 8" in done.err


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_portraits_that_are_stored_turned_come_out_upright(command: Command, rotation: int) -> None:
    frames = pan(3)
    write_clip(Path("film.mp4"), frames, codec="libx264", rotation=rotation, aspect=Fraction(4, 3))
    assert decode(Path("film.mp4")).stream["rotation"] % 360 == rotation
    done = command("film.mp4", still(Path("a.png")), "-o", "out.mkv", "--crf", 0)
    assert f"stored turned by {rotation} degrees" in done.err
    after = decode(Path("out.mkv"))
    assert after.stream["rotation"] == 0
    assert after.stream["aspect"] == (Fraction(4, 3) if rotation == 180 else Fraction(3, 4))
    for luma, own in zip(after.lumas, decode(Path("film.mp4")).lumas, strict=True):  # H.264 loses nothing at 0
        np.testing.assert_array_equal(luma, np.rot90(own, rotation // 90))
    done = command("film.mp4", "a.png", "-o", "out2.mkv", "--codec", "ffv1")
    assert "which ffv1 does not tell a player" in done.err


@pytest.mark.parametrize(("size", "codec"), [((95, 63), "libx264"), ((95, 63), "ffv1"), ((34, 17), "mpeg4")])
def test_odd_sizes_stay(command: Command, size: tuple[int, int], codec: str) -> None:
    write_clip(Path("film.mkv"), pan(3, size))
    assert command("film.mkv", still(Path("a.png")), "-o", "out.mkv", "--codec", codec).status == 0
    after = decode(Path("out.mkv"))
    assert {luma.shape[::-1] for luma in after.lumas} == {size}
    assert min(hue(after.rgb)) > 20


def test_one_frame_is_a_film(command: Command) -> None:
    write_clip(Path("film.mkv"), pan(1))
    assert command("film.mkv", still(Path("a.png")), "-o", "out.mp4").status == 0
    assert len(decode(Path("out.mp4")).lumas) == 1


def test_files_without_a_frame_are_refused_in_one_sentence(command: Command) -> None:
    still(Path("a.png"))
    Path("empty.mp4").touch()
    Path("text.mkv").write_bytes(b"no film" * 100)
    write_clip(Path("none.mkv"), [])
    refused(command("none.mkv", "a.png"), "none.mkv")
    refused(command("empty.mp4", "a.png"), "empty.mp4: is no video that can be read")
    refused(command("text.mkv", "a.png"), "text.mkv: is no video that can be read")
    refused(command("missing.mkv", "a.png"), "missing.mkv: there is no such file")
    assert names() == ["a.png", "empty.mp4", "none.mkv", "text.mkv"]


def test_of_a_truncated_film_what_is_there_is_coloured_and_said(command: Command) -> None:
    write_clip(Path("film.mkv"), pan(30))
    content = Path("film.mkv").read_bytes()
    Path("half.mkv").write_bytes(content[: len(content) // 2])
    done = command("half.mkv", still(Path("a.png")), "-o", "out.mkv", "--codec", "ffv1")
    assert done.status == 1
    assert "half.mkv: is " in done.err
    count = len(decode(Path("out.mkv")).lumas)
    assert 10 <= count < 20


def test_a_film_whose_last_subtitle_outlasts_it_is_not_truncated(command: Command) -> None:
    write_clip(Path("film.mkv"), pan(10), subtitles=True, reading=8000)
    done = command("film.mkv", still(Path("a.png")), "-o", "out.mkv")
    assert (done.status, done.err) == (0, "")


def test_damage_within_a_film_costs_the_frames_it_hits(command: Command) -> None:
    write_clip(Path("film.mkv"), pan(30))
    content = bytearray(Path("film.mkv").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = b"\xff" * 40
    Path("film.mkv").write_bytes(content)
    done = command("film.mkv", still(Path("a.png")), "-o", "out.mkv")
    assert done.status in (0, 1)
    assert len(decode(Path("out.mkv")).lumas) >= 25


@pytest.mark.parametrize(
    ("tags", "matrix", "full"),
    [
        ({}, 6, False),
        ({"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}, 1, False),
        ({"colorspace": 6, "color_primaries": 6, "color_trc": 6, "color_range": 2}, 6, True),
        ({"colorspace": 9, "color_primaries": 9, "color_trc": 14, "color_range": 1}, 9, False),
    ],
)
def test_colours_decode_as_they_were_meant(command: Command, tags: dict[str, int], matrix: int, full: bool) -> None:
    """A neutral ramp in one colour: the a*b* of the reference come back, whatever matrix and range."""
    ramp = np.tile(np.linspace(70, 170, 96).round().astype(np.uint8), (64, 1))
    write_clip(Path("film.mkv"), [ramp] * 2, tags=tags)
    colour = (120, 100, 80)
    assert command("film.mkv", still(Path("a.png"), colour), "-o", "out.mkv", "--codec", "ffv1").status == 0
    after = decode(Path("out.mkv"))
    assert (after.stream["matrix"], after.stream["range"]) == (matrix, 2 if full else 1)
    np.testing.assert_array_equal(after.lumas[0], ramp)
    lab = rgb_to_lab(torch.from_numpy(after.rgb[0].astype(np.float32) / 255).permute(2, 0, 1)[None])
    wanted = rgb_to_lab(torch.tensor(colour).view(1, 3, 1, 1) / 255)
    assert float((lab[0, 1:, 2:-2, 2:-2] - wanted[0, 1:]).abs().mean()) < 1.2


def test_interlaced_film_is_said_to_be(command: Command) -> None:
    write_interlaced(Path("film.mpg"), pan(4))
    done = command("film.mpg", still(Path("a.png")))
    assert (done.status, len(decode(Path("film_colorized.mkv")).lumas)) == (0, 4)
    assert "film.mpg: is interlaced; deinterlace it first" in done.err


def test_mistakes_are_told_before_anything_is_coloured(command: Command) -> None:
    still(Path("a.png"))
    write_clip(Path("film.mkv"), pan(2), sound=True)
    refused(command("film.mkv"), "no REFERENCE given")
    refused(command("film.mkv", "a.png", "-o", "out.webm"), ".webm does not hold the sound", ".mkv")
    refused(command("film.mkv", "a.png", "-o", "out.xyz"), ".xyz is no video")
    refused(command("film.mkv", "a.png", "-o", "film.mkv", "--overwrite"), "choose another place")
    refused(command("film.mkv", "film.mkv"), "references are pictures")
    refused(command("film.mkv", "a.png", "--codec", "nonsense"), "--codec nonsense", "libx264")
    refused(
        command("film.mkv", "a.png", "--codec", "ffv1", "--crf", "20"), "--crf 20: ffv1 has no constant rate factor"
    )
    refused(command("film.mkv", "a.png", "--fps", "20"), "--fps", "leave --fps out")
    refused(command("film.mkv", "a.png", "--devices", "2"), "is a film", "--devices")
    refused(command("a.png", "a.png", "--codec", "ffv1"), "--codec: is for film")
    refused(command("film.mkv", "a.png", "-o", "frames/", "--crf", "20"), "--crf: is for video files")
    assert names() == ["a.png", "film.mkv"]
    assert not Path("film_colorized.mkv.parts").exists()


def test_pyavs_logging_which_torchvision_turns_on_is_off_before_a_decoder_can_wait_for_it(command: Command) -> None:
    av.logging.set_level(av.logging.ERROR)
    write_clip(Path("film.mkv"), pan(1))
    assert command("film.mkv", still(Path("a.png")), "-o", "out.mkv").status == 0
    assert av.logging.get_level() is None


def test_a_missing_extra_is_one_sentence(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(Path("film.mkv"), pan(2))
    still(Path("a.png"))
    monkeypatch.setattr(video, "av", None)
    refused(command("film.mkv", "a.png"), 'pip install "pdnla[film]"')
