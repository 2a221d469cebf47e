"""Clips made with PyAV, and what is read back of results."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data

Luma = NDArray[Any]

try:
    import av
except ModuleNotFoundError:  # on Python 3.10, which PyAV 18 does not support
    av = None


def photograph() -> Luma:
    """The astronaut's luma, ``(512, 512)``."""
    return np.asarray(Image.fromarray(data.astronaut()).convert("L"))


def pan(count: int, size: tuple[int, int] = (96, 64), scene: Luma | None = None) -> list[Luma]:
    """Frames of a camera that moves over a photograph, with code values from 16 to 235."""
    scene = photograph() if scene is None else scene
    width, height = size
    frames = [scene[100 : 100 + height, 60 + 2 * i : 60 + 2 * i + width] for i in range(count)]
    return [(16 + frame.astype(np.float32) * (219 / 255)).round().astype(np.uint8) for frame in frames]


def write_clip(
    path: Path,
    frames: Sequence[Luma],
    *,
    codec: str = "ffv1",
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 12800),
    aspect: Fraction | None = None,
    rotation: int | None = None,
    sound: bool = False,
    subtitles: bool = False,
    reading: int = 300,
    tags: dict[str, int] | None = None,
) -> Path:
    """Write a grey clip, at 25 frames a second but for given ``times``; subtitles last ``reading`` ms."""
    height, width = frames[0].shape if len(frames) else (64, 96)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        voice = add_sound(container) if sound else None
        text = container.add_mux_stream("subrip" if path.suffix == ".mkv" else "mov_text") if subtitles else None
        container.start_encoding()
        for number, luma in enumerate(frames):
            frame = grey_frame(luma, pixels)
            frame.pts = times[number] if times is not None else round(number / 25 / time_base)
            frame.time_base = time_base
            for name, value in (tags or {}).items():
                setattr(frame, name, value)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if voice is not None:
            write_sound(container, voice, len(frames) / 25)
        if text is not None:
            write_subtitles(container, text, path.suffix, reading)
    return path


def write_interlaced(path: Path, frames: Sequence[Luma]) -> None:
    """Write MPEG-2 of two fields a frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme", "field_order": "tt"})
        stream.width, stream.height, stream.pix_fmt = *frames[0].shape[::-1], "yuv420p"
        container.mux(coded(stream, frames))


def coded(stream: Any, frames: Sequence[Luma]) -> list[Any]:
    """Return the packets of 8-bit frames at 25 a second."""
    result = []
    for number, luma in enumerate(frames):
        frame = grey_frame(luma, "yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        result += stream.encode(frame)
    return result + stream.encode()


def grey_frame(luma: Luma, pixels: str) -> Any:
    height, width = luma.shape
    frame = av.VideoFrame(width, height, pixels)
    wide = luma.dtype.itemsize
    grey = 128 if wide == 1 else 1 << 9
    for index, plane in enumerate(frame.planes):
        rows = np.full((plane.height, plane.line_size // wide), grey, luma.dtype)
        if index == 0:
            rows[:, :width] = luma
        plane.update(rows.tobytes())
    return frame


def add_sound(container: Any) -> Any:
    stream = container.add_stream("pcm_s16le" if "matroska" in container.format.name else "aac", rate=8000)
    stream.codec_context.layout = "mono"
    stream.metadata["language"] = "ger"
    return stream


def write_sound(container: Any, stream: Any, seconds: float) -> None:
    wave = (8000 * np.sin(np.arange(int(8000 * seconds)) / 9)).astype(np.int16)
    size = stream.codec_context.frame_size or 1024
    for start in range(0, len(wave), size):
        part = av.AudioFrame.from_ndarray(wave[None, start : start + size], format="s16", layout="mono")
        part.sample_rate, part.pts, part.time_base = 8000, start, Fraction(1, 8000)
        if stream.codec_context.format.name != "s16":
            part = av.AudioResampler(stream.codec_context.format.name, "mono", 8000).resample(part)[0]
            part.pts = start
        container.mux(stream.encode(part))
    container.mux(stream.encode())


def write_subtitles(container: Any, stream: Any, suffix: str, duration: int) -> None:
    for number, line in enumerate(("Guten Tag.", "Auf Wiedersehen.")):
        words = line.encode()
        packet = av.Packet(words if suffix == ".mkv" else len(words).to_bytes(2, "big") + words)
        packet.stream = stream
        packet.time_base = Fraction(1, 1000)
        packet.pts = packet.dts = 100 + 400 * number
        packet.duration = duration
        container.mux(packet)


class Decoded(NamedTuple):
    """A video as it decodes."""

    lumas: list[Luma]
    times: list[Fraction]
    stream: dict[str, Any]
    rgb: list[NDArray[np.uint8]]


def decode(path: Path) -> Decoded:
    """Decode a video's first stream; an 8-bit luma as bytes, a deeper one as words."""
    lumas, times, rgb = [], [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts: dict[str, Any] = {}
        for frame in container.decode(stream):
            plane = frame.planes[0]
            deep = frame.format.components[0].bits > 8
            values = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(plane.height, -1)
            lumas.append(values[:, : plane.width].copy())
            assert frame.pts is not None
            times.append(frame.pts * Fraction(stream.time_base or 1))
            rgb.append(frame.to_ndarray(format="rgb24"))
            facts = {
                "pixels": frame.format.name,
                "matrix": int(frame.colorspace),
                "range": int(frame.color_range),
                "primaries": int(frame.color_primaries),
                "transfer": int(frame.color_trc),
                "aspect": stream.sample_aspect_ratio,
                "rotation": frame.rotation,
                "codec": stream.codec_context.name,
                "streams": [s.type for s in container.streams],
            }
    return Decoded(lumas, times, facts, rgb)


def packets(path: Path, kind: str) -> list[tuple[bytes, Fraction, Fraction]]:
    """Return the packets of the first stream of a kind: bytes, time and duration."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [
            (
                bytes(packet),
                packet.pts * Fraction(packet.time_base),
                (packet.duration or 0) * Fraction(packet.time_base),
            )
            for packet in container.demux(stream)
            if packet.size and packet.pts is not None
        ]


def still(path: Path, colour: tuple[int, int, int] = (150, 90, 60), size: tuple[int, int] = (48, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def names(folder: Path | str = ".") -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def hue(rgb: Iterable[NDArray[np.uint8]]) -> list[float]:
    """Return red minus blue, the mean of each frame."""
    return [float(frame[..., 0].astype(float).mean() - frame[..., 2].astype(float).mean()) for frame in rgb]
