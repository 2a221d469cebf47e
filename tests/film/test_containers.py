"""What containers and encoders support, what they need, and what is refused before anything is coloured."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import add_sound, av, coded, decode, hue, names, packets, pan, still, write_clip, write_sound
from commands import Command, refused
from numpy.typing import NDArray
from PIL import Image

pytestmark = pytest.mark.skipif(av is None, reason="PyAV 18, of pdnla[film], needs Python 3.11")


def write_rgb(path: Path, grey: NDArray[np.uint8], pixels: str, full: bool) -> None:
    """Write two frames of uncompressed or lossless RGB or packed Y'CbCr, all components from a grey plane."""
    codec = {"yuyv422": "rawvideo", "rgb24": "png", "bgr0": "ffv1"}[pixels]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *grey.shape[::-1], pixels
        stream.codec_context.color_range = 2 if full else 0
        for number in range(2):
            if pixels == "yuyv422":
                frame = av.VideoFrame(*grey.shape[::-1], pixels)
                rows = np.full((grey.shape[0], frame.planes[0].line_size), 128, np.uint8)
                rows[:, : 2 * grey.shape[1] : 2] = grey
                frame.planes[0].update(rows.tobytes())
            else:
                frame = av.VideoFrame.from_ndarray(np.stack([grey] * 3, axis=-1), format="rgb24")
                frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base, frame.color_range = number, Fraction(1, 25), 2 if full else 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("pixels", "size"), [("rgb24", (96, 64)), ("bgr0", (96, 64)), ("bgr0", (96, 720)), ("yuyv422", (96, 720))]
)
def test_luma_is_the_sources_where_it_is_no_plane(
    command: Command, pixels: str, size: tuple[int, int], full: bool
) -> None:
    """RGB takes all code values, whatever it is marked as; packed luma is the same codes."""
    film = Path("film.mov" if pixels == "rgb24" else "film.mkv")
    ramp = np.tile(np.linspace(20, 230, size[0]).round().astype(np.uint8), (size[1], 1))
    write_rgb(film, ramp, pixels, full)
    assert decode(film).stream["pixels"] == pixels
    assert command(film, still(Path("a.png")), "-o", "out.mkv", "--codec", "ffv1").status == 0
    after = decode(Path("out.mkv"))
    wanted = 16 + ramp * (219 / 255) if pixels != "yuyv422" else ramp.astype(float)
    assert np.abs(after.lumas[0] - wanted).max() <= (0 if pixels == "yuyv422" else 1)
    assert after.stream["range"] == (2 if pixels == "yuyv422" and full else 1)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("out.mpg", "mpeg2video"),
        ("out.vob", "mpeg2video"),
        ("out.ts", "h264"),
        ("out.mts", "mpeg2video"),
        ("out.mkv", "mpeg1video"),
    ],
)
def test_mpeg_streams_are_written_with_the_films_time_stamps(command: Command, name: str, codec: str) -> None:
    times = [512 * number for number in range(12)]
    if name not in ("out.mpg", "out.vob"):  # which store a time stamp for a group of small frames
        times[-2:] = [6000, 8000]
    write_clip(Path("film.mkv"), pan(12), times=times)
    encoder = [] if name in ("out.mpg", "out.vob", "out.ts") else ["--codec", codec]
    done = command("film.mkv", still(Path("a.png")), "-o", name, *encoder)
    assert (done.status, done.err) == (0, "")
    before, after = decode(Path("film.mkv")), decode(Path(name))
    assert after.stream["codec"] == codec
    for time, wanted in zip(after.times, before.times, strict=True):
        assert abs(time - after.times[0] - wanted + before.times[0]) <= Fraction(1, 1000)
    for luma, own in zip(after.lumas, before.lumas, strict=True):
        assert np.abs(luma.astype(int) - own).mean() < 3
    assert min(hue(after.rgb)) > 20


def test_avi_has_the_films_own_rate(command: Command) -> None:
    write_clip(Path("film.mkv"), pan(12))
    assert command("film.mkv", still(Path("a.png")), "-o", "out.avi").status == 0
    after = decode(Path("out.avi"))
    assert after.times == [Fraction(number, 25) for number in range(12)]
    with av.open("out.avi") as container:
        assert container.streams.video[0].average_rate == 25


def test_mpeg_4_keeps_time_stamps_finer_than_its_own(command: Command) -> None:
    times = [0, 3600, 3700, 9000, 20000, 20001]
    write_clip(Path("film.mov"), pan(6), codec="libx264", times=times, time_base=Fraction(1, 90000))
    assert command("film.mov", still(Path("a.png")), "-o", "out.mp4", "--codec", "mpeg4").status == 0
    after = decode(Path("out.mp4"))
    assert [round((time - after.times[0]) * 90000) for time in after.times] == times


def write_with_last_duration(path: Path, last: int) -> None:
    """Write a film without reordering whose last frame is shown for ``last`` of 25ths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number, packet in enumerate(coded(stream, pan(6))):
            packet.duration = round((last if number == 5 else 1) / 25 / packet.time_base)
            container.mux(packet)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_the_last_frame_is_shown_as_long_as_in_the_film(command: Command, name: str) -> None:
    write_with_last_duration(Path("film.mp4"), 30)
    assert command("film.mp4", still(Path("a.png")), "-o", name).status == 0
    with av.open("film.mp4") as before, av.open(name) as after:
        assert before.duration == pytest.approx(35 / 25 * 1e6, abs=1000)
        assert after.duration == pytest.approx(before.duration, abs=1000)


def write_parts(path: Path, *, cover: bool = False, titles: bool = False, chapters: bool = False) -> None:
    """Write an MP4 of a film with sound and, as asked, a cover picture before it, titles, and named chapters."""
    with av.open(str(path), "w") as container:
        picture = None
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 40, 40, "yuvj420p"
            picture.disposition = 1024
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        voice = add_sound(container)
        if titles:
            stream.metadata["title"], voice.metadata["title"] = "Picture", "Commentary"
        if chapters:
            named = {"id": 1, "start": 0, "end": 80, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}
            container.set_chapters([named])
        container.start_encoding()
        if picture is not None:
            frame = av.VideoFrame.from_image(Image.new("RGB", (40, 40), (200, 0, 0))).reformat(format="yuvj420p")
            frame.pts = 0
            container.mux([*picture.encode(frame), *picture.encode()])
        container.mux(coded(stream, pan(6)))
        write_sound(container, voice, 6 / 25)


def test_a_cover_picture_is_not_the_film(command: Command) -> None:
    write_parts(Path("film.mp4"), cover=True)
    done = command("film.mp4", still(Path("a.png")), "-o", "out.mkv")
    assert (done.status, done.err.strip()) == (0, "pdnla-colorize: film.mp4: its cover picture is not copied")
    after = decode(Path("out.mkv"))
    assert {luma.shape for luma in after.lumas} == {(64, 96)}
    assert len(after.lumas) == 6


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_titles_of_tracks_and_names_of_chapters_are_kept(command: Command, name: str) -> None:
    write_parts(Path("film.mp4"), titles=True, chapters=True)
    done = command("film.mp4", still(Path("a.png")), "-o", name)
    assert (done.status, done.err) == (0, "")
    with av.open(name) as container:
        for stream, title in ((container.streams.video[0], "Picture"), (container.streams.audio[0], "Commentary")):
            assert title in (stream.metadata.get("title"), stream.metadata.get("name"))
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One"]


def test_ten_bits_without_loss_are_without_loss(command: Command) -> None:
    frames = [(64 + (frame.astype(np.uint16) - 16) * 4 + index % 4) for index, frame in enumerate(pan(4))]
    write_clip(Path("film.mkv"), frames, pixels="yuv420p10le")
    assert command("film.mkv", still(Path("a.png")), "-o", "out.mkv", "--crf", 0).status == 0
    after = decode(Path("out.mkv"))
    assert (after.stream["codec"], after.stream["pixels"]) == ("h264", "yuv420p10le")
    for luma, own in zip(after.lumas, frames, strict=True):
        np.testing.assert_array_equal(luma, own)


def test_sixteen_bits_stay_sixteen_in_ffv1(command: Command) -> None:
    frames = [frame.astype(np.uint16) * 256 + index for index, frame in enumerate(pan(2))]
    write_clip(Path("film.mkv"), frames, pixels="yuv420p16le")
    done = command("film.mkv", still(Path("a.png")), "-o", "out.mkv", "--codec", "ffv1")
    assert (done.status, done.err) == (0, "")
    for luma, own in zip(decode(Path("out.mkv")).lumas, frames, strict=True):
        np.testing.assert_array_equal(luma, own)
    done = command("film.mkv", "a.png", "-o", "less.mkv", "--codec", "libx265")
    assert "has 16 bits, of which libx265 keeps 12; --codec ffv1 keeps more" in done.err


def test_what_cannot_be_written_is_said_before_anything_is_coloured(command: Command) -> None:
    still(Path("a.png"))
    write_clip(Path("film.mkv"), pan(2), sound=True)
    write_clip(Path("silent.mkv"), pan(2))
    refused(command("film.mkv", "a.png", "-o", "out.ts"), ".ts does not hold the sound of film.mkv (pcm_s16le)")
    refused(command("film.mkv", "a.png", "-o", "out.mpg"), ".mpg does not hold the sound of film.mkv (pcm_s16le)")
    refused(command("silent.mkv", "a.png", "-o", "out.ts", "--codec", "ffv1"), ".ts does not hold ffv1")
    refused(command("silent.mkv", "a.png", "-o", "out.mpg", "--codec", "libx264"), ".mpg does not hold libx264")
    refused(command("silent.mkv", "a.png", "--crf", "60"), "--crf 60: goes from 0 to 51 for libx264")
    refused(command("silent.mkv", "a.png", "--codec", "dnxhd"), "--codec dnxhd")
    refused(command("silent.mkv", "a.png", "--depth", "16"), "--depth 16: is for pictures")
    Path("frames").mkdir()
    still(Path("frames/0.png"))
    refused(command("frames", "a.png", "--film", "--fps", "20"), "--fps: is for video files")
    assert names() == ["a.png", "film.mkv", "frames/0.png", "silent.mkv"]
    assert [path.name for path in Path().iterdir() if path.name.endswith(".parts")] == []


def test_damaged_segments_are_said(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from pdnla.film import colouring

    write_clip(Path("film.mkv"), pan(6))
    complete = colouring.VideoSink.conclude

    def shortened(self: colouring.VideoSink) -> None:
        write_clip(next(self.work.folder.glob("segment_*.nut")), pan(4))
        complete(self)

    monkeypatch.setattr(colouring.VideoSink, "conclude", shortened)
    refused(command("film.mkv", still(Path("a.png")), "-o", "out.mkv"), "out.mkv.parts: its segments are damaged")
    assert not Path("out.mkv").exists()


def test_packets_of_sound_arrive_in_transport_streams(command: Command) -> None:
    write_clip(Path("film.mp4"), pan(12), codec="libx264", sound=True)
    assert command("film.mp4", still(Path("a.png")), "-o", "out.ts").status == 0
    assert decode(Path("out.ts")).stream["streams"] == ["video", "audio"]
    assert sum(len(packet[0]) for packet in packets(Path("out.ts"), "audio")) > 0


def write_pcm(path: Path, layout: str) -> None:
    """Write a film with uncompressed sound, of which Matroska stores no more than the number of channels."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        voice = container.add_stream("pcm_s16le", rate=8000)
        voice.codec_context.layout = layout
        channels = voice.codec_context.layout.nb_channels
        wave = (8000 * np.sin(np.arange(1920 * channels) / 9)).astype(np.int16)
        part = av.AudioFrame.from_ndarray(wave[None], format="s16", layout=layout)
        part.sample_rate, part.pts, part.time_base = 8000, 0, Fraction(1, 8000)
        container.mux([*voice.encode(part), *voice.encode()])
        container.mux(coded(stream, pan(6)))


def test_what_fails_when_a_file_is_closed_is_said(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from pdnla.film import colouring

    write_pcm(Path("film.mkv"), "3.0")
    monkeypatch.setattr(colouring, "check_container", lambda *_: [])
    refused(
        command("film.mkv", still(Path("a.png")), "-o", "out.mp4"),
        "-o: a .mp4 file does not hold this film",
        "end the result's name in .mkv",
    )
    assert not Path("out.mp4").exists()


def test_rates_of_folders_are_read_as_they_are_meant(command: Command) -> None:
    still(Path("a.png"))
    for number in range(3):
        still(Path(f"frames/{number}.png"))
    assert command("frames", "a.png", "-o", "film.mp4", "--fps", "23.976023976023").status == 0
    assert decode(Path("film.mp4")).times == [Fraction(1001 * number, 24000) for number in range(3)]
    assert command("frames", "a.png", "-o", "slow.mp4", "--fps", "0.001").status == 0
    assert decode(Path("slow.mp4")).times == [0, 1000, 2000]
    for rate in ("1e-9", "1/100000", "1e-400", "1001", "nan", "0"):
        done = command("frames", "a.png", "-o", "out.mp4", "--fps", rate)
        refused(done, f"--fps {rate}: must be a number of frames per second from 0.001 to 1000")
    assert not Path("out.mp4.parts").exists()


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4"])
def test_a_film_that_begins_late_is_not_truncated(command: Command, name: str) -> None:
    times = [12800 * 3 + 512 * number for number in range(12)]
    write_clip(Path(name), pan(12), codec="libx264", times=times)
    done = command(name, still(Path("a.png")), "-o", "out.mkv")
    assert (done.status, done.err) == (0, "")
    assert decode(Path("out.mkv")).times == [3 + Fraction(number, 25) for number in range(12)]


def test_sound_without_a_channel_layout_goes_into_mp4_or_is_refused(command: Command) -> None:
    write_pcm(Path("two.mkv"), "stereo")
    write_pcm(Path("three.mkv"), "3.0")
    with av.open("two.mkv") as container:
        assert container.streams.audio[0].layout.name == "2 channels"
    assert command("two.mkv", still(Path("a.png")), "-o", "out.mp4").status == 0
    before, after = packets(Path("two.mkv"), "audio"), packets(Path("out.mp4"), "audio")
    assert b"".join(packet[0] for packet in after) == b"".join(packet[0] for packet in before)
    done = command("three.mkv", "a.png", "-o", "three.mp4")
    refused(done, "three.mp4: .mp4 does not hold the sound of three.mkv (pcm_s16le)")
    assert names() == ["a.png", "out.mp4", "three.mkv", "two.mkv"]


def delay(source: Path, path: Path, **seconds: Fraction) -> None:
    """Copy a film whose streams of given kinds begin later."""
    with av.open(str(source)) as original, av.open(str(path), "w") as container:
        streams = {stream.index: container.add_stream_from_template(stream) for stream in original.streams}
        for packet in original.demux():
            if packet.size:
                by = round(seconds.get(packet.stream.type, Fraction(0)) / packet.time_base)
                packet.pts, packet.dts = packet.pts + by, packet.dts + by
                packet.stream = streams[packet.stream_index]
                container.mux(packet)


def test_avi_begins_where_the_film_begins(command: Command) -> None:
    write_clip(Path("film.mkv"), pan(12), sound=True)
    delay(Path("film.mkv"), Path("later.mkv"), video=Fraction(7, 5), audio=Fraction(7, 5))
    assert decode(Path("later.mkv")).times[0] == Fraction(7, 5)
    assert command("later.mkv", still(Path("a.png")), "-o", "out.avi").status == 0
    assert decode(Path("out.avi")).times == [Fraction(number, 25) for number in range(12)]
    before, after = packets(Path("later.mkv"), "audio"), packets(Path("out.avi"), "audio")
    assert b"".join(packet[0] for packet in after) == b"".join(packet[0] for packet in before)
    write_clip(Path("film.mp4"), pan(12), codec="libx264", sound=True)  # AAC has a delay, of 128 ms at 8 kHz
    assert command("film.mp4", "a.png", "-o", "out2.avi").status == 0
    assert decode(Path("out2.avi")).times == [Fraction(number, 25) for number in range(12)]


@pytest.mark.parametrize(
    ("late", "words"), [("audio", "the sound begins 1.0 s"), ("video", "the picture begins 1.0 s")]
)
def test_picture_and_sound_that_begin_apart_are_refused_in_avi(command: Command, late: str, words: str) -> None:
    write_clip(Path("film.mkv"), pan(12), sound=True)
    delay(Path("film.mkv"), Path("apart.mkv"), **{late: Fraction(1)})
    refused(command("apart.mkv", still(Path("a.png")), "-o", "out.avi"), words, "end its name in .mkv")
    assert names() == ["a.png", "apart.mkv", "film.mkv"]


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4"])
def test_nut_keeps_all_frames_and_their_sound(command: Command, name: str) -> None:
    write_clip(Path(name), pan(25), codec="libx264", sound=True)
    assert command(name, still(Path("a.png")), "-o", "out.nut").status == 0
    before, after = decode(Path(name)), decode(Path("out.nut"))
    assert [time - after.times[0] for time in after.times] == [time - before.times[0] for time in before.times]
    sound, copy = packets(Path(name), "audio"), packets(Path("out.nut"), "audio")
    assert [packet[0] for packet in copy] == [packet[0] for packet in sound]
    shift = copy[0][1] - sound[0][1] - (after.times[0] - before.times[0])
    assert abs(shift) <= Fraction(1, 1000)


def test_wmv_keeps_time_stamps_and_holds_no_codec_that_reorders_frames(command: Command) -> None:
    times = [0, 3600, 3700, 9000, 20000, 20001, 45000, 900000]
    write_clip(Path("film.mov"), pan(8), codec="libx264", times=times, time_base=Fraction(1, 90000))
    assert command("film.mov", still(Path("a.png")), "-o", "out.wmv").status == 0
    after = decode(Path("out.wmv"))
    assert after.stream["codec"] == "wmv2"
    for time, wanted in zip(after.times, times, strict=True):
        assert abs(time - after.times[0] - Fraction(wanted, 90000)) <= Fraction(3, 2000)
    refused(command("film.mov", "a.png", "-o", "no.wmv", "--codec", "libx264"), ".wmv does not hold libx264")


@pytest.mark.parametrize("name", ["out.mpg", "out.vob", "out.avi"])
def test_time_stamps_that_one_frame_rate_does_not_keep_are_refused(command: Command, name: str) -> None:
    times = [0, 100, 200, 300, 40000, 80000]  # of which a mean rate would show four too late
    write_clip(Path("film.mkv"), pan(6), times=times, time_base=Fraction(1, 10000))
    done = command("film.mkv", still(Path("a.png")), "-o", name)
    refused(done, f"{name}: {name[3:]} holds frames at one rate", "those of film.mkv have another", ".mkv")
    write_clip(Path("slow.mkv"), pan(3), times=[0, 10000, 20000], time_base=Fraction(1, 1000))
    if name != "out.avi":  # which has any rate
        refused(command("slow.mkv", "a.png", "-o", name), "here 2")
    assert not Path(f"{name}.parts").exists()


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mxf", "mpeg2video"), ("m2v", "mpeg2video"), ("ogv", "libvpx"), ("y4m", "rawvideo")]
)
def test_containers_that_lose_frames_or_time_stamps_are_read_only(command: Command, suffix: str, codec: str) -> None:
    write_clip(Path("film.mkv"), pan(2))
    done = command("film.mkv", still(Path("a.png")), "-o", f"out.{suffix}", "--codec", codec)
    refused(done, f"out.{suffix}: .{suffix} is read, not written; end its name in .mp4 or .mkv")
    assert names() == ["a.png", "film.mkv"]


@pytest.mark.parametrize("name", ["out.ts", "out.flv"])
def test_a_long_first_frame_does_not_delay_the_film(command: Command, name: str) -> None:
    write_clip(Path("film.mkv"), pan(6), times=[0, 10000, 10040, 10080, 10120, 10160], time_base=Fraction(1, 1000))
    assert command("film.mkv", still(Path("a.png")), "-o", name).status == 0
    before, after = decode(Path("film.mkv")), decode(Path(name))
    assert after.times[0] < Fraction(1, 5)
    for time, wanted in zip(after.times, before.times, strict=True):
        assert abs(time - after.times[0] - wanted) <= Fraction(1, 1000)


def test_dropped_frames_do_not_change_the_rate_of_avi(command: Command) -> None:
    times = [512 * number for number in range(40) if number % 9]
    write_clip(Path("film.mp4"), pan(len(times)), codec="libx264", times=times)
    with av.open("film.mp4") as container:
        assert container.streams.video[0].average_rate != 25
    assert command("film.mp4", still(Path("a.png")), "-o", "out.avi").status == 0
    after = decode(Path("out.avi"))
    assert [time - after.times[0] for time in after.times] == [Fraction(time - 512, 12800) for time in times]


def test_a_wrong_length_does_not_change_the_rate_of_program_streams(command: Command) -> None:
    write_clip(
        Path("film.mp4"),
        pan(24),
        codec="libx264",
        times=[1001 * number for number in range(24)],
        time_base=Fraction(1, 24000),
    )
    with av.open("film.mp4") as container:
        assert container.streams.video[0].average_rate > 24  # the length is short by the last frame's duration
    assert command("film.mp4", still(Path("a.png")), "-o", "out.mpg").status == 0
    with av.open("out.mpg") as container:
        assert container.streams.video[0].average_rate == Fraction(24000, 1001)
