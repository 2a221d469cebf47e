"""Video files with PyAV: reading of luminance planes, writing of coloured segments, and copies of other streams."""

import errno
import heapq
import io
import itertools
import logging
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pdnla.errors import DiskFullError, UserError
from pdnla.film.planes import Coding, Plane, grey_values
from pdnla.film.source import EXTRA, Frame, FrameSource, import_or_none
from pdnla.images.io import Picture

av = import_or_none("av")

_logger = logging.getLogger(__name__)

_FAILURES = (OSError, ValueError, RuntimeError, LookupError, EOFError)  # base classes of PyAV's errors
_PLANAR = ("yuv", "yuvj", "gray", "nv", "yuva")  # pixel formats whose first plane is luma
_MATRICES = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}  # by AVColorSpace
_SPACES = {"bt709": 1, "bt601": 6, "bt2020": 9}
_CONVERSIONS = {"bt709": 1, "bt601": 5, "bt2020": 9}  # by swscale's numbers
_UNSPECIFIED = 2  # in AVColorSpace, AVColorPrimaries, AVColorTransferCharacteristic
_GLOBAL_HEADER = 1 << 22  # AV_CODEC_FLAG_GLOBAL_HEADER
_FULL, _LIMITED = 2, 1  # AVColorRange
_HD = 720  # rows from which on untagged video is BT.709
_CRF = {"libx264": 51, "libx265": 51, "libsvtav1": 63, "libvpx-vp9": 63, "libaom-av1": 63}  # largest rate factor
_STORES_ASPECT = ("libx264", "libx265", "mpeg4", "mpeg2video", "mpeg1video")  # in the coded stream
_BITS_A_PIXEL = 0.3  # of codecs without constant quality
_FINEST = 65535  # largest denominator of a time base in MPEG-4 Part 2
_MPEG_RATES = [Fraction(1000 * rate, 1001) for rate in (24, 30, 60)] + [Fraction(rate) for rate in (24, 25, 30, 50, 60)]
_MP4 = (".mp4", ".m4v", ".mov", ".3gp")
_PROGRAM = (".mpg", ".mpeg", ".vob")  # suffixes of MPEG program streams
_CONSTANT_RATE = (".avi",)  # suffixes of containers without time stamps
_IN_ORDER = (*_CONSTANT_RATE, ".wmv")  # suffixes of containers with one time stamp a frame, that of decoding
_READ_ONLY = (".mxf", ".m2v", ".ogv", ".y4m", ".dv")  # suffixes of containers that lose frames or time stamps
_MPEG = ("mpeg1video", "mpeg2video")
_REORDERED = ("h264", "hevc", *_MPEG)  # codecs whose frames readers expect in another order
_DEFAULT_CODECS = {".webm": "libvpx-vp9", ".avi": "mpeg4", ".wmv": "wmv2"} | dict.fromkeys(_PROGRAM, "mpeg2video")
_STREAM_CODECS = {  # of containers that do not list all that they hold, or write the rest as unnamed data
    "mpegts": (*_MPEG, "mpeg4", "h264", "hevc", "mp2", "mp3", "aac", "ac3", "eac3", "dts", "opus", "dvbsub"),
    "mpeg": (*_MPEG, "mp2", "mp3", "ac3", "dts", "dvdsub"),
    "vob": (*_MPEG, "mp2", "mp3", "ac3", "dts", "dvdsub"),
}
_ATTACHED_PICTURE = 1024  # AV_DISPOSITION_ATTACHED_PIC
_MOST_DAMAGED = 1000  # packets in a row that cannot be decoded
_DEPTHS = (8, 10, 12, 14, 16)  # bits
_SHORT = 0.5  # seconds by which a video may be shorter than its container's duration
_NEAR_MEAN = (Fraction(9, 10), Fraction(4))  # shares of a film's mean frame rate between which its own rate is
_APART = 0.05  # seconds between the starts of picture and sound that go unnoticed
_LAYOUTS = {1: "mono", 2: "stereo"}  # of sound that stores only the number of its channels
_SEARCHED = 1000  # packets among which the first of each stream is looked for
_LEAD = Fraction(1, 24)  # most seconds between the decodings before the first frame is shown


def require_av() -> Any:
    """Return PyAV, with its logging off.

    Older versions of torchvision turn it on when they are imported. Then a decoder's thread that logs waits for the
    interpreter's lock, which this thread holds while it waits for the decoder to close.

    Raises:
        UserError: it is not installed.
    """
    if av is None:
        raise UserError(f"video files need PyAV 18 and Python 3.11; {EXTRA}")
    av.logging.set_level(None)
    os.environ.setdefault("SVT_LOG", "1")  # else libsvtav1 prints its settings; 1 is for errors
    return av


class VideoSource:
    """The frames of a video file's first video stream, upright.

    Args:
        path: the file.

    Raises:
        UserError: it cannot be read or holds no video, or PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        require_av()
        self.path = path
        self.remarks: list[str] = []
        self.damaged = 0  # packets that could not be decoded
        self.reached = 0.0  # seconds at which the last packet of any stream ends
        with _opened(path) as container:
            stream = _film_stream(container)
            context = stream.codec_context
            first = next(_decoded(container, stream, path, self), None)
            if first is None:
                raise UserError(f"{path}: holds no frame that can be decoded; copy or export it again")
            self.time_base = Fraction(stream.time_base or Fraction(1, 1000))
            self.mean_rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            self.rate = _nominal_rate(stream, self.mean_rate)
            self.end = float(container.duration or 0) / 1e6  # from 0, where the file announces it
            self.count = stream.frames or round(float(container.duration or 0) / 1e6 * float(self.mean_rate))
            self.bit_rate = int(context.bit_rate or 0)
            self.rotation = int(first.rotation) % 360
            aspect = Fraction(stream.sample_aspect_ratio or context.sample_aspect_ratio or 1) or Fraction(1)
            sideways = self.rotation in (90, 270)
            self.size = (first.height, first.width) if sideways else (first.width, first.height)
            self.aspect = 1 / aspect if sideways else aspect
            self.coding, self.layout = _coding(first)
            self.tags = _tags(self.coding, int(first.colorspace), int(first.color_primaries), int(first.color_trc))
            if self.rotation:
                self.remarks.append(f"its frames are stored turned by {self.rotation} degrees; the result is upright")
            if first.interlaced_frame:
                self.remarks.append(
                    "is interlaced; deinterlace it first (ffmpeg -vf bwdif), or moving edges get a comb of colours"
                )
            if sum(not _is_cover(other) for other in container.streams.video) > 1:
                self.remarks.append("has several video streams; the first is coloured")
        self.damaged, self.reached = 0, 0.0

    def frames(self, start: int = 0, times: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield the frames from number ``start`` on, in display order.

        Args:
            start: the first.
            times: the time stamps of all frames, if they are known, for seeking.

        Raises:
            UserError: the size of frames changes.
        """
        self.damaged = 0
        if start and times is not None:
            with _opened(self.path) as container:
                stream = _film_stream(container)
                container.seek(times[start], stream=stream)
                decoded = self._timed(_decoded(container, stream, self.path, self))
                first = next(decoded, None)
                if first is not None and times[0] <= first[1] <= times[start]:
                    number = bisect_right(times, first[1]) - 1
                    if times[number] == first[1]:
                        for offset, (frame, time) in enumerate(itertools.chain([first], decoded)):
                            if number + offset >= start:
                                yield self._frame(number + offset, frame, time)
                        return
        with _opened(self.path) as container:
            stream = _film_stream(container)
            for number, (frame, time) in enumerate(self._timed(_decoded(container, stream, self.path, self))):
                if number >= start:
                    yield self._frame(number, frame, time)

    def signature(self) -> dict[str, Any]:
        """Return the file's size and modification time."""
        status = self.path.stat()
        return {"bytes": status.st_size, "changed": status.st_mtime_ns}

    def remark_missing_frames(self, times: Sequence[int]) -> None:
        """Add a remark if frames are missing, after all were read."""
        end = len(times)
        if self.damaged:
            self.remarks.append(f"is damaged: {self.damaged} packet(s) could not be decoded; the other frames are kept")
        elif self.end - max(self.reached, float(times[-1] * self.time_base)) > max(_SHORT, 3 / float(self.mean_rate)):
            self.remarks.append(
                f"is truncated: it ends after {end} frames, {self.end:.0f} s are announced; they are kept"
            )

    def _timed(self, frames: Iterable[Any]) -> Iterator[tuple[Any, int]]:
        """Yield frames with rising time stamps."""
        last: int | None = None
        step = max(1, round(1 / self.rate / self.time_base))
        for frame in frames:
            time = frame.pts
            if time is None:
                time = 0 if last is None else last + step
            last = time if last is None else max(time, last + 1)
            yield frame, last

    def _frame(self, number: int, frame: Any, time: int) -> Frame:
        luma = np.rot90(_luma(frame, self.layout, self.coding), self.rotation // 90)
        if luma.shape[::-1] != self.size:
            raise UserError(f"{self.path}: changes its frame size at frame {number}; convert it to one size first")
        luma = np.ascontiguousarray(luma)
        if self.coding.depth == 8:
            table = (grey_values(np.arange(256, dtype=np.uint8), self.coding) * 255).round().astype(np.uint8)
            image = Image.fromarray(table[luma])
        else:
            image = Image.fromarray(grey_values(luma, self.coding))
        return Frame(number, Picture(image), time, luma, duration=int(frame.duration or 0))


def _nominal_rate(stream: Any, mean: Fraction) -> Fraction:
    """Return the frames per second that a film was made with; dropped frames and a wrong length change the mean."""
    least, most = _NEAR_MEAN
    guesses = [Fraction(rate) for rate in (stream.guessed_rate, stream.base_rate) if rate]
    return next((rate for rate in guesses if least * mean <= rate <= most * mean), mean)


def _opened(path: Path) -> Any:
    try:
        container = require_av().open(str(path), metadata_errors="replace")
    except _FAILURES as error:
        if not path.exists():
            raise UserError(f"{path}: there is no such file; check the path") from error
        raise UserError(
            f"{path}: is no video that can be read, or is damaged ({_plain(error)}); copy it again"
        ) from error
    if not container.streams.video:
        container.close()
        raise UserError(f"{path}: holds no video stream; name another file")
    if all(_is_cover(stream) for stream in container.streams.video):
        container.close()
        raise UserError(f"{path}: holds a cover picture and no video; name another file")
    _film_stream(container).thread_type = "AUTO"
    return container


def _is_cover(stream: Any) -> bool:
    return bool(int(stream.disposition) & _ATTACHED_PICTURE)


def _film_stream(container: Any) -> Any:
    """Return the first video stream that is no cover picture."""
    return next(stream for stream in container.streams.video if not _is_cover(stream))


def _plain(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _decoded(container: Any, stream: Any, path: Path, source: "VideoSource") -> Iterator[Any]:
    """Yield the frames that can be decoded, and count damaged packets."""
    packets = container.demux()
    in_a_row = 0
    while True:
        try:
            packet = next(packets)
            if packet.pts is not None:
                end = packet.pts + (packet.duration or 0)
                source.reached = max(source.reached, float(end * packet.time_base))
            if packet.stream is not stream:
                continue
            yield from packet.decode()
            in_a_row = 0
        except (StopIteration, EOFError):
            return
        except _FAILURES as error:
            source.damaged += 1
            in_a_row += 1
            _logger.debug("%s: %s", path, error)
            if in_a_row == _MOST_DAMAGED:
                raise UserError(f"{path}: is damaged, {in_a_row} packets in a row cannot be decoded") from error


def _coding(frame: Any) -> tuple[Coding, str | None]:
    """Return a frame's coding, and the format to convert it to if its first plane is not luma."""
    layout = frame.format
    name = layout.name
    depth = max(component.bits for component in layout.components)
    direct = (
        name.startswith(_PLANAR)
        and not layout.is_rgb
        and (layout.is_planar or name.startswith("gray") or len(layout.components) == 1)
        and not layout.is_big_endian
        and depth in (8, 9, 10, 12, 14, 16)
    )
    matrix = _MATRICES.get(int(frame.colorspace), "bt709" if frame.height >= _HD or frame.width > 1024 else "bt601")
    full = int(frame.color_range) == _FULL or name.startswith("yuvj")
    if name.startswith("gray") and int(frame.color_range) != _LIMITED:
        full = True  # as players treat such video
    if direct:
        return Coding(matrix, full, depth), None
    target = "yuv444p" if depth == 8 or name.startswith(("pal", "mono")) else "yuv444p10le"
    return Coding(matrix, full and not _is_rgb(frame), 8 if target == "yuv444p" else 10), target


def _is_rgb(frame: Any) -> bool:
    return frame.format.is_rgb or frame.format.name.startswith(("pal", "mono", "bgr", "rgb", "gbr"))


def _luma(frame: Any, layout: str | None, coding: Coding) -> Plane:
    """Return the code values of luma, unchanged if they are stored as a plane."""
    if layout is not None:
        target = _FULL if coding.full else _LIMITED
        frame = frame.reformat(
            format=layout,
            src_colorspace=_CONVERSIONS[coding.matrix],
            dst_colorspace=_CONVERSIONS[coding.matrix],
            src_color_range=_FULL if _is_rgb(frame) else target,  # RGB has no other range
            dst_color_range=target,
        )
    plane = frame.planes[0]
    wide = max(component.bits for component in frame.format.components) > 8
    values = np.frombuffer(plane, np.uint16 if wide else np.uint8)
    return values.reshape(plane.height, -1)[:, : plane.width]


def _tags(
    coding: Coding, space: int = _UNSPECIFIED, primaries: int = _UNSPECIFIED, transfer: int = _UNSPECIFIED
) -> dict[str, int]:
    """Return the colour tags of the result: those of the source, or else those of its computation."""
    return {
        "colorspace": space if space in _MATRICES else _SPACES[coding.matrix],
        "color_primaries": 1 if primaries in (0, _UNSPECIFIED) else primaries,
        "color_trc": (6 if coding.matrix == "bt601" else 1) if transfer in (0, _UNSPECIFIED) else transfer,
        "color_range": _FULL if coding.full else _LIMITED,
    }


class Encoding(NamedTuple):
    """The encoding of a film.

    Attributes:
        codec: name of the encoder.
        options: its options.
        pixels: its pixel format.
        size: width and height.
        aspect: width of a pixel over its height.
        coding: the coding of its planes.
        tags: colour tags.
        time_base: seconds in a unit of a time stamp of the result.
        rate: frames per second for the encoder, about the film's own; it counts frames, and has no time stamps.
        bit_rate: for codecs without constant quality.
    """

    codec: str
    options: Mapping[str, str]
    pixels: str
    size: tuple[int, int]
    aspect: Fraction
    coding: Coding
    tags: Mapping[str, int]
    time_base: Fraction
    rate: Fraction
    bit_rate: int

    @property
    def subsampling(self) -> tuple[int, int]:
        """Luma samples for each chroma sample, across and down."""
        return (1, 1) if "444" in self.pixels else (2, 1) if "422" in self.pixels else (2, 2)


def choose_encoding(out: Path, source: FrameSource, codec: str | None, crf: int | None) -> tuple[Encoding, list[str]]:
    """Return how to encode a film, and remarks for the user.

    Args:
        out: the result; its suffix gives the container.
        source: the film; a video's depth and tags are kept as far as the codec has them.
        codec: name of the encoder; None for libx264, or what the container usually holds.
        crf: constant rate factor of encoders that have one; lower is better. None for 16.

    Raises:
        UserError: there is no such encoder, or it has no constant rate factor or no usable pixel format.
    """
    require_av()
    name = codec or _DEFAULT_CODECS.get(out.suffix.lower(), "libx264")
    encoder = _open_encoder(name)
    if isinstance(source, VideoSource):
        coding, tags, bit_rate = source.coding, source.tags, source.bit_rate
    else:
        coding = Coding("bt709" if source.size[1] >= _HD else "bt601", False, 8)
        tags, bit_rate = _tags(coding), 0
    odd = any(side % 2 for side in source.size)
    depth, pixels = _choose_pixels(name, encoder, coding.depth, odd)
    remarks = []
    if source.aspect != 1 and name not in _STORES_ASPECT:
        shape = f"{source.aspect.numerator}:{source.aspect.denominator}"
        remarks.append(f"has pixels of {shape}, which {name} does not tell a player; use libx264 or libx265")
    if odd and "444" in pixels:
        remarks.append(f"has odd sides, so the result has full chroma ({pixels})")
    if depth < coding.depth:
        more = "libx265 or ffv1" if depth < 10 else "ffv1"
        remarks.append(f"has {coding.depth} bits, of which {name} keeps {depth}; --codec {more} keeps more")
    rate = _encoder_rate(name, source.rate)
    constant_rate = out.suffix.lower() in _CONSTANT_RATE
    pixels_a_second = source.size[0] * source.size[1] * float(rate)
    encoding = Encoding(
        name,
        _encoder_options(name, crf, depth, out.suffix.lower() in _IN_ORDER),
        pixels,
        source.size,
        source.aspect,
        coding._replace(depth=depth),
        tags,
        1 / rate if constant_rate else source.time_base,
        rate,
        max(int(_BITS_A_PIXEL * pixels_a_second), bit_rate),
    )
    _begin_segment(io.BytesIO(), encoding)[0].close()
    return encoding, remarks


def _open_encoder(name: str) -> Any:
    try:
        encoder = av.Codec(name, "w")
    except _FAILURES as error:
        raise UserError(
            f"--codec {name}: this PyAV has no such encoder; use libx264, libx265, ffv1 or mpeg4"
        ) from error
    if encoder.type != "video":
        raise UserError(f"--codec {name}: encodes no video; use libx264, libx265, ffv1 or mpeg4")
    return encoder


def _choose_pixels(name: str, encoder: Any, depth: int, odd: bool) -> tuple[int, str]:
    """Return the depth and the name of the encoder's pixel format that is best for planes of ``depth`` bits.

    Args:
        name: name of the encoder.
        encoder: the encoder.
        depth: bits per component of the source; the next larger depth is preferred to a smaller one.
        odd: whether the width or the height is odd, which some encoders only support without subsampling.
    """
    formats = [layout.name for layout in encoder.video_formats or ()] or ["yuv420p"]
    families = ["444"] if odd and name in ("libx264", "libx265", "libsvtav1") else ["420", "422", "444"]
    depths = [bits for bits in _DEPTHS if bits >= depth]
    depths += [bits for bits in reversed(_DEPTHS) if bits not in depths]
    wanted = [(bits, f"yuv{family}p{'' if bits == 8 else f'{bits}le'}") for bits in depths for family in families]
    for bits, pixels in wanted:
        if pixels in formats:
            return bits, pixels
    raise UserError(f"--codec {name}: takes none of {', '.join(pixels for _, pixels in wanted)}; use libx264 or ffv1")


def _encoder_options(name: str, crf: int | None, depth: int, in_order: bool) -> dict[str, str]:
    if crf is not None and name not in _CRF:
        raise UserError(
            f"--crf {crf}: {name} has no constant rate factor; leave it out, or use one of {', '.join(_CRF)}"
        )
    if crf is not None and crf > _CRF[name]:
        raise UserError(f"--crf {crf}: goes from 0 to {_CRF[name]} for {name}; less is better, 16 is the default")
    options = {"crf": str(16 if crf is None else crf)} if name in _CRF else {}
    if in_order:
        options["bf"] = "0"  # no reordering, for which the container has no place
    if name == "libx264" and crf == 0 and depth > 8:
        options["qp"] = options.pop("crf")  # without loss; at more than 8 bits, a rate factor of 0 is not
    if name == "libvpx-vp9":
        options |= {"b": "0", "row-mt": "1", "cpu-used": "4"}
    if name == "libx265":
        options["x265-params"] = "log-level=error"
    return options


def _encoder_rate(name: str, rate: Fraction) -> Fraction:
    """Return the rate that an encoder supports nearest to a film's."""
    if name in _MPEG:
        return min(_MPEG_RATES, key=lambda one: abs(one - rate))
    return 1 / max((1 / rate).limit_denominator(_FINEST), Fraction(1, _FINEST))


class SegmentWriter:
    """Encodes frames into a separate file, which :func:`join_segments` joins with others.

    Args:
        path: the file.
        encoding: the encoding.

    Raises:
        UserError: the encoder refuses these settings.
    """

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self.path, self.encoding = path, encoding
        self._count = 0
        self._container, self._stream = _begin_segment(path, encoding)

    def write(self, luma: Plane, chroma: tuple[Plane, Plane]) -> None:
        """Encode the next frame.

        Args:
            luma: code values of the encoding's depth, ``(H, W)``.
            chroma: Cb and Cr at the encoding's subsampling.

        Raises:
            UserError: it cannot be encoded.
        """
        frame = av.VideoFrame(*self.encoding.size, self.encoding.pixels)
        for plane, values in zip(frame.planes, (luma, *chroma), strict=True):
            _fill(plane, values)
        frame.pts, frame.time_base = self._count, 1 / self.encoding.rate
        self._count += 1
        for name, value in self.encoding.tags.items():
            setattr(frame, name, value)
        self._mux(frame)

    def close(self) -> None:
        """Finish the file."""
        self._mux(None)
        try:
            self._container.close()
        except _FAILURES as error:
            self._refuse(error)

    def _mux(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except _FAILURES as error:
            self._refuse(error)

    def _refuse(self, error: Exception) -> NoReturn:
        codec = self.encoding.codec
        sentence = f"--codec {codec}: cannot encode this film ({_plain(error)}); try another codec"
        _raise_writing_error(error, self.path, sentence)


def _raise_writing_error(error: Exception, path: Path, sentence: str) -> NoReturn:
    """Raise an error of writing: that the disk is full, or else a UserError with a sentence."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        raise DiskFullError(f"{path}: the disk is full; free some space or choose another place") from error
    raise UserError(sentence) from error


def _begin_segment(path: Path | io.BytesIO, encoding: Encoding) -> tuple[Any, Any]:
    """Return a new file for a segment, and its stream.

    Raises:
        UserError: the codec cannot be used.
    """
    last: Exception | None = None
    for kind in ("nut", "mov", "matroska"):  # NUT keeps any time stamp; some codecs do not fit
        file = path if isinstance(path, io.BytesIO) else str(path)
        container = av.open(file, "w", format=kind, container_options={"avoid_negative_ts": "disabled"})
        try:
            stream = add_film(container, encoding, 1 / encoding.rate)
            # Headers are in the packets, so that segments can follow each other in any container.
            stream.codec_context.flags &= ~_GLOBAL_HEADER
            container.start_encoding()
        except _FAILURES as error:
            container.close()
            last = error
            continue
        return container, stream
    assert last is not None
    width, height = encoding.size
    raise UserError(
        f"--codec {encoding.codec}: does not encode {width}×{height} pixels of {encoding.pixels} ({_plain(last)});"
        " use libx264 or ffv1"
    ) from last


def add_film(container: Any, encoding: Encoding, time_base: Fraction) -> Any:
    """Add the stream of a film to a new file, and return it.

    Args:
        container: the file.
        encoding: the encoding.
        time_base: seconds in a unit of the stream's time stamps.
    """
    stream = container.add_stream(encoding.codec, rate=encoding.rate)
    stream.options = dict(encoding.options)
    stream.width, stream.height = encoding.size
    stream.pix_fmt = encoding.pixels
    stream.time_base = time_base
    context = stream.codec_context
    context.time_base = 1 / encoding.rate
    context.sample_aspect_ratio = encoding.aspect.limit_denominator(255)
    for name, value in encoding.tags.items():
        setattr(context, name, value)
    if encoding.codec not in _CRF:
        context.bit_rate = encoding.bit_rate
    return stream


def _fill(plane: Any, values: NDArray[Any]) -> None:
    """Write rows into a plane, which may have longer lines."""
    row = plane.line_size
    wide = values.dtype.itemsize
    lines = np.zeros((plane.height, row // wide), values.dtype)
    lines[:, : values.shape[1]] = values
    plane.update(lines.tobytes()[: plane.buffer_size].ljust(plane.buffer_size, b"\0"))


def check_container(out: Path, source: Path | None, encoding: Encoding) -> list[str]:
    """Check that a container supports the film and its other streams, before anything is coloured.

    Returns:
        Remarks on streams that are not copied.

    Raises:
        UserError: it does not; the message names the stream.
    """
    suffix = out.suffix.lower()
    if suffix in _READ_ONLY:
        raise UserError(f"{out}: {suffix} is read, not written; end its name in .mp4 or .mkv")
    if (kind := _kind_of(suffix)) is None:
        raise UserError(f"{out}: PyAV knows no container {suffix}; end its name in .mp4 or .mkv")
    codec = av.Codec(encoding.codec, "w").canonical_name
    if (kind == "asf" and codec in _REORDERED) or not _supports(kind, codec) or not _fits(kind, encoding):
        raise UserError(f"{out}: {suffix} does not hold {encoding.codec}; end its name in .mkv or change --codec")
    if source is None:
        return []
    with _opened(source) as original:
        copied, remarks = copied_streams(original)
        if suffix in _CONSTANT_RATE:
            _check_starts(out, source, _film_stream(original), copied)
        packets = _first_packets(original, copied)
        for stream in copied:
            name = stream.codec_context.name if stream.codec_context is not None else stream.type
            known = stream.codec_context.codec.canonical_name if stream.codec_context is not None else ""
            if (
                known
                and (kind not in _STREAM_CODECS or _supports(kind, known))
                and _fits(kind, encoding, stream, packets.get(stream.index))
            ):
                continue
            what = {"audio": "sound", "subtitle": "subtitles"}.get(stream.type, f"{stream.type} stream")
            raise UserError(
                f"{out}: {suffix} does not hold the {what} of {source.name} ({name}); end its name in"
                f" {source.suffix if source.suffix.lower() != suffix else '.mkv'}"
            )
    return remarks


def _kind_of(suffix: str) -> str | None:
    """Return the name of a suffix's container, if it can be written."""
    file = io.BytesIO()
    file.name = f"film{suffix}"
    try:
        name: str = av.open(file, "w", format=_format_of(suffix)).format.name
    except _FAILURES:
        return None
    return name


def _supports(kind: str, codec: str) -> bool:
    """Return whether a container is known to hold streams of a codec."""
    known = _STREAM_CODECS.get(kind)
    return codec in (av.open(io.BytesIO(), "w", format=kind).supported_codecs if known is None else known)


def _fits(kind: str, encoding: Encoding, stream: Any = None, packet: Any = None) -> bool:
    """Return whether a file can be written that holds the film, and a copy of another stream with a packet of it."""
    try:
        with ExitStack() as stack:
            container = av.open(io.BytesIO(), "w", format=kind)
            stack.callback(container.close)
            add_film(container, encoding, encoding.time_base)
            copy = _copy_stream(container, stream) if stream is not None else None
            container.start_encoding()
            if packet is not None:
                packet.stream = copy
                container.mux(packet)
    except _FAILURES as error:
        _logger.debug("%s: %s", kind, error)
        return False
    return True


def _first_packets(container: Any, streams: Sequence[Any]) -> dict[int, Any]:
    """Return the first packet of each stream, by its index, if it is near the beginning."""
    wanted = {stream.index for stream in streams}
    found: dict[int, Any] = {}
    try:
        for packet in itertools.islice(container.demux(), _SEARCHED):
            if packet.size and packet.stream_index in wanted:
                found.setdefault(packet.stream_index, packet)
            if len(found) == len(wanted):
                break
    except _FAILURES as error:  # of damage, the film says later what is lost
        _logger.debug("%s: %s", container.name, error)
    return found


def _copy_stream(container: Any, stream: Any) -> Any:
    """Add a stream like another to a file, and return it."""
    copy = container.add_stream_from_template(stream)
    if stream.type == "audio" and "channels" in stream.codec_context.layout.name:  # some containers need a layout
        usual = _LAYOUTS.get(stream.codec_context.layout.nb_channels)
        if usual is not None:
            copy.codec_context.layout = usual
    return copy


def _check_starts(out: Path, source: Path, film: Any, copied: Sequence[Any]) -> None:
    """Check that picture and sound begin together, as in containers without time stamps they do.

    Raises:
        UserError: they do not.
    """
    for stream in copied:
        if stream.type == "audio" and stream.start_time is not None and film.start_time is not None:
            apart = float(stream.start_time * stream.time_base - film.start_time * film.time_base)
            if abs(apart) > _APART:
                first, then = ("picture", "sound") if apart > 0 else ("sound", "picture")
                raise UserError(
                    f"{out}: {out.suffix} begins picture and sound together, and in {source.name} the {then} begins"
                    f" {abs(apart):.1f} s after the {first}; end its name in .mkv"
                )


def check_times(out: Path, source: FrameSource, times: Sequence[int], encoding: Encoding) -> None:
    """Check that a container with one frame rate keeps the film's time stamps, each to the duration of a frame.

    Args:
        out: the result.
        source: the film.
        times: time stamps of all frames in the source's time base.
        encoding: the encoding.

    Raises:
        UserError: it does not.
    """
    suffix = out.suffix.lower()
    if suffix not in (*_PROGRAM, *_CONSTANT_RATE):
        return
    places = [(time - times[0]) * source.time_base * encoding.rate for time in times]
    # In program streams, small frames share a time stamp.
    kept = range(len(times)) if suffix in _PROGRAM else _rising(round(place) for place in places)
    if any(abs(place - number) > 1 for place, number in zip(places, kept, strict=True)):
        raise UserError(
            f"{out}: {out.suffix} holds frames at one rate, here {float(encoding.rate):.5g} a second, and those of"
            f" {source.path} have another; end its name in .mkv"
        )


def _timing(out: Path, encoding: Encoding) -> dict[str, str]:
    """Return the options with which a container keeps time stamps."""
    if out.suffix.lower() in _MP4:  # they store the start of a stream in units of the film
        return {"movie_timescale": str(encoding.time_base.denominator)}
    return {"avoid_negative_ts": "disabled"} if out.suffix.lower() in _CONSTANT_RATE else {}


def _format_of(suffix: str) -> str | None:
    return {".m4v": "mp4", ".mkv": "matroska", ".ts": "mpegts", ".m2ts": "mpegts", ".mts": "mpegts"}.get(suffix)


def copied_streams(container: Any) -> tuple[list[Any], list[str]]:
    """Return the other streams that are copied, and remarks on the rest."""
    copied, remarks = [], []
    for stream in container.streams:
        if stream.type in ("audio", "subtitle"):
            copied.append(stream)
        elif stream.type == "video" and _is_cover(stream):
            remarks.append("its cover picture is not copied")
        elif stream.type != "video" and not _names_chapters(container, stream):
            remarks.append(f"its {stream.type} stream {stream.index} is not copied")
    return copied, remarks


def _names_chapters(container: Any, stream: Any) -> bool:
    """Return whether a stream of an MP4 holds the names of its chapters, which are copied as such."""
    unnamed = stream.type == "data" and stream.codec_context is None and "timecode" not in stream.metadata
    return unnamed and "mp4" in container.format.name and bool(container.chapters())


def join_segments(
    segments: Sequence[Path],
    times: Sequence[int],
    end: int,
    source: FrameSource,
    encoding: Encoding,
    out: Path,
) -> None:
    """Join coded segments into one film, with the other streams of its source.

    Packets are copied unchanged; memory does not grow with their number.

    Args:
        segments: files of :class:`SegmentWriter`, in order.
        times: time stamps of all frames in the source's time base.
        end: time stamp at which the last frame ends.
        source: the source.
        encoding: that of the segments.
        out: the file to write.

    Raises:
        UserError: it cannot be written.
    """
    start = times[0] * source.time_base if out.suffix.lower() in _CONSTANT_RATE else Fraction(0)
    try:
        with ExitStack() as stack:
            container = av.open(
                str(out),
                "w",
                format=_format_of(out.suffix.lower()),
                container_options=_timing(out, encoding),
            )
            stack.callback(container.close)
            stream = add_film(container, encoding, encoding.time_base)
            streams = {}
            original = None
            if isinstance(source, VideoSource):
                original = stack.enter_context(_opened(source.path))
                for other in copied_streams(original)[0]:
                    copy = _copy_stream(container, other)
                    copy.metadata.update(_named(other.metadata))
                    copy.disposition = other.disposition
                    streams[other.index] = copy
                facts = _named(_film_stream(original).metadata)
                stream.metadata.update({key: facts[key] for key in ("language", "title") if key in facts})
                container.metadata.update(original.metadata)
                container.set_chapters(original.chapters())
            reordering = _reordering(segments, encoding, len(times))
            by_decoding = out.suffix.lower() in _MP4
            container.start_encoding()  # from here on, the stream has the time base of the container
            unit = Fraction(stream.time_base)
            stamps = [round((time * source.time_base - start) / unit) for time in [*times, end]]
            if out.suffix.lower() in _IN_ORDER:  # which refuse two frames with one time stamp
                stamps = _rising(stamps)
            film = _stamped(_packets(segments, encoding), stamps, reordering, stream, by_decoding)
            others = _copied_packets(original, streams, start) if original is not None and streams else iter(())
            for packet in heapq.merge(film, others, key=_seconds):
                container.mux(packet)
    except _FAILURES as error:  # some are raised when the file is closed
        suffix = out.suffix.lower()
        other = ".mp4" if suffix == ".mkv" else ".mkv"
        sentence = f"-o: a {suffix} file does not hold this film ({_plain(error)}); end the result's name in {other}"
        _raise_writing_error(error, out, sentence)


def _seconds(packet: Any) -> float:
    time = packet.dts if packet.dts is not None else packet.pts
    return float(time * packet.time_base) if time is not None else 0.0


def _named(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a stream with its title, which MP4 calls a name."""
    return ({"title": metadata["name"]} if "name" in metadata else {}) | dict(metadata)


def _rising(stamps: Iterable[int]) -> list[int]:
    """Return time stamps, each at least one after that before."""
    rising: list[int] = []
    for stamp in stamps:
        rising.append(max(stamp, rising[-1] + 1) if rising else stamp)
    return rising


def _packets(segments: Iterable[Path], encoding: Encoding) -> Iterator[tuple[int, Any]]:
    """Yield the packets of a film in coding order, each with its frame's number."""
    first = 0
    for path in segments:
        count = 0
        with av.open(str(path)) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.size:
                    yield first + round(packet.pts * packet.time_base * encoding.rate), packet
                    count += 1
        first += count


def _reordering(segments: Sequence[Path], encoding: Encoding, count: int) -> int:
    """Return the largest difference between the display and coding positions of a frame.

    Raises:
        UserError: the segments do not hold ``count`` frames.
    """
    numbers = [number for number, _ in _packets(segments, encoding)]
    if len(numbers) != count:
        raise UserError(f"{segments[0].parent}: its segments are damaged; remove this folder and run the command again")
    return max(place - number for place, number in enumerate(numbers))


def _stamped(
    packets: Iterator[tuple[int, Any]],
    stamps: Sequence[int],
    reordering: int,
    stream: Any,
    decoding_length: bool,
) -> Iterator[Any]:
    """Set the display and decoding time stamps of packets.

    Args:
        packets: the packets in coding order, with the numbers of their frames.
        stamps: time stamps of the frames, and the end of the last.
        reordering: result of :func:`_reordering`.
        stream: their stream in the result, in whose time base the time stamps are.
        decoding_length: whether the container takes the time between decodings for the length of the film.
    """
    step = max(1, min(stamps[1] - stamps[0], round(_LEAD / stream.time_base)))
    for position, (number, packet) in enumerate(packets):
        place = position - reordering
        packet.time_base = stream.time_base
        packet.pts = stamps[number]
        packet.dts = stamps[place] if place >= 0 else stamps[0] + place * step
        packet.duration = stamps[number + 1] - stamps[number]
        if position == len(stamps) - 2 and decoding_length:
            packet.duration = max(1, stamps[-1] - reordering * step - packet.dts)
        packet.stream = stream
        yield packet


def _copied_packets(container: Any, streams: Mapping[int, Any], start: Fraction) -> Iterator[Any]:
    """Yield the packets of the copied streams.

    Args:
        container: the source.
        streams: streams of the result by the indices of those of the source.
        start: seconds in the source at which the result begins.
    """
    for packet in container.demux([container.streams[index] for index in streams]):
        if packet.size:
            if start and packet.pts is not None:
                packet.pts -= round(start / packet.time_base)
            if start and packet.dts is not None:
                packet.dts -= round(start / packet.time_base)
            packet.stream = streams[packet.stream_index]
            yield packet
