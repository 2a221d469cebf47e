"""Colouring of a film: detect its shots, colour it in resumable segments, and join them.

Until the result is complete, the folder ``RESULT.parts`` next to it holds the scan and the finished segments, each with
the colours from which the next one continues. A film that is coloured in several runs is the same as in one.
"""

import copy
import itertools
import json
import logging
import math
import queue
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pdnla.errors import UserError
from pdnla.files import identity, lock, remove_stale_temporaries, replacing
from pdnla.film.motion import Finder, Map
from pdnla.film.planes import chroma_codes, grey_values
from pdnla.film.planning import SETTINGS, Film
from pdnla.film.references import (
    References,
    ScoredShot,
    numbered_references,
    show_same_frame,
    thumbnail,
)
from pdnla.film.shots import Shot, find_cuts, frame_signature, read_shots, shots_of, write_shots
from pdnla.film.source import FolderSource, Frame, FrameSource, is_video
from pdnla.film.stability import CERTAIN, STEP, Memory, Own, Stabiliser
from pdnla.film.video import (
    Encoding,
    SegmentWriter,
    VideoSource,
    check_container,
    check_times,
    choose_encoding,
    join_segments,
)
from pdnla.images import color
from pdnla.images.greys import read_reference, usable_references
from pdnla.images.io import Picture, read_image, read_metadata, write_image
from pdnla.inference.background import BackgroundWriter, read_ahead
from pdnla.inference.chroma_upscaling import ChromaPlane
from pdnla.inference.colorizer import Colorizer, paint, paint_16_bits
from pdnla.inference.planning import result_names
from pdnla.inference.preprocessing import NATIVE, network_input

_logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")

SEGMENT = 240
"""Smallest number of frames of a segment, the work that a kill can lose."""
_PREFETCHED = 12  # frames decoded ahead
_AHEAD = 2  # threads that compute key frames' own colours on a CPU; more were no faster
_VERSION = 2  # of the folder of parts; parts of another version are made anew
_SHOWN = 768  # longest side of a shot's frame for the review


class FilmObserver(Protocol):
    """Receives the events of colouring a film."""

    def remark(self, sentence: str) -> None:
        """A note for the user; the work continues."""

    def damage(self, sentence: str) -> None:
        """A part of the film cannot be read; the rest is coloured."""

    def scanned(self, done: int, total: int) -> None:
        """``done`` of about ``total`` frames were searched for cuts; 0 if their number is not known yet."""

    def coloured(self, done: int, total: int) -> None:
        """``done`` of ``total`` frames are coloured."""


class Scan(NamedTuple):
    """The results of the first pass over a film.

    Attributes:
        times: time stamps of all frames.
        end: time stamp at which the last frame ends.
        cuts: numbers of the frames that follow a cut.
        frames: references that are frames of the film, by number.
        remarks: sentences about damage of the film.
    """

    times: list[int]
    end: int
    cuts: list[int]
    frames: dict[int, Path]
    remarks: list[str]


class PreparedFilm(NamedTuple):
    """A film before it is coloured.

    Attributes:
        scan: the results of the first pass.
        middle_frame: returns the frame in the middle of the shot with a number.
        references: the references.
        choices: the shots with their references.
    """

    scan: Scan
    middle_frame: Callable[[int], Picture]
    references: References
    choices: list[ScoredShot]


class Work:
    """An opened film, with the folder of its finished parts.

    Args:
        film: the film.
        about: other settings that affect the result, such as the weights.
        observer: receives the events.

    Raises:
        UserError: the source cannot be read, or the result cannot be written with these options.
    """

    def __init__(self, film: Film, about: dict[str, Any], observer: FilmObserver) -> None:
        self.film, self.observer = film, observer
        self.source: FrameSource = (
            VideoSource(film.target) if is_video(film.target) else FolderSource(film.target, film.rate)
        )
        self.encoding: Encoding | None = None
        for remark in self.source.remarks:
            observer.remark(f"{film.target}: {remark}")
        if film.to_video:
            self.encoding, remarks = choose_encoding(film.out, self.source, film.codec, film.crf)
            for remark in remarks:
                observer.remark(f"{film.target}: {remark}")
            inputs = film.target if is_video(film.target) else None
            for remark in check_container(film.out, inputs, self.encoding):
                observer.remark(f"{film.target}: {remark}")
        self.folder = film.parts
        self._about = about

    def open(self) -> None:
        """Create the folder of parts, and remove the parts of another film.

        Raises:
            UserError: it cannot be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be made ({error.strerror}); choose another place with -o"
            ) from error
        remove_stale_temporaries(self.folder)
        references = [identity(path) for path in self.film.references]
        if self._changed("source.json", [_VERSION, str(self.film.target), self.source.signature(), references]):
            self._remove("scan.npz", "frame_*")
            self._begin_again()

    def remove_outdated_segments(self, shots: Sequence[Shot]) -> None:
        """Remove segments that an earlier run coloured with other settings.

        Args:
            shots: the shots with their references.
        """
        film = self.film
        used = {path for shot in shots for path in shot.references}
        settings = {
            "references": [identity(path) for path in sorted(used)],
            "shots": [[shot.start, shot.end, [str(path) for path in shot.references]] for shot in shots],
            "encoding": str(self.encoding),
            "size": film.size,
            "depth": film.depth,
            **self._about,
        }
        if self._changed(SETTINGS, settings):
            self._begin_again()

    def _begin_again(self) -> None:
        """Remove the segments of an earlier run."""
        if any(self.folder.glob("segment_*")):
            self.observer.remark(f"{self.film.out}: was begun with other settings and is coloured anew")
        self._remove("segment_*")

    def _changed(self, name: str, value: Any) -> bool:
        """Return whether a value differs from that of the last run, and store it."""
        file = self.folder / name
        text = json.dumps(value)
        try:
            if file.read_text(encoding="utf-8") == text:
                return False
        except (OSError, UnicodeDecodeError) as error:  # no file yet, or a damaged one
            _logger.debug("%s: %s", file, error)
        with replacing(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return True

    def _remove(self, *patterns: str) -> None:
        for path in (path for pattern in patterns for path in self.folder.glob(pattern)):
            path.unlink(missing_ok=True)

    def scan(self) -> Scan:
        """Return the results of the first pass, from an earlier run if it finished.

        Raises:
            UserError: the film cannot be read.
        """
        file = self.folder / "scan.npz"
        if file.is_file():
            with np.load(file) as kept:
                others = json.loads(str(kept["told"]))
                frames = {int(number): Path(path) for number, path in others["frames"]}
                *times, end = kept["times"].tolist()
                scan = Scan(times, end, kept["cuts"].tolist(), frames, others["remarks"])
        else:
            scan = self._scan()
            others = {
                "frames": [[number, str(path)] for number, path in scan.frames.items()],
                "remarks": scan.remarks,
            }
            with replacing(file) as temporary, temporary.open("wb") as opened:
                np.savez(
                    opened,
                    times=np.array([*scan.times, scan.end], np.int64),
                    cuts=np.array(scan.cuts, np.int64),
                    told=np.array(json.dumps(others)),
                )
        for remark in scan.remarks:
            self.observer.damage(f"{self.film.target}: {remark}")
        return scan

    def _scan(self) -> Scan:
        times: list[int] = []
        durations: list[int] = []
        candidates = numbered_references(self.film.references)
        frames: dict[int, Path] = {}

        def signatures() -> Iterator[NDArray[np.float32]]:
            for frame in prefetch(self.source.frames()):
                times.append(frame.time)
                durations.append(frame.duration)
                if frame.number in candidates:
                    path = candidates[frame.number]
                    if show_same_frame(thumbnail(read_image(path)), thumbnail(frame.picture)):
                        frames[frame.number] = path
                self.observer.scanned(len(times), self.source.count)
                yield frame_signature(frame.picture)

        cuts = list(find_cuts(signatures()))
        if not times:
            raise UserError(f"{self.film.target}: holds no frame that can be read")
        self.observer.scanned(len(times), len(times))
        remarks: list[str] = []
        if isinstance(self.source, VideoSource):
            before = len(self.source.remarks)
            self.source.remark_missing_frames(times)
            remarks = self.source.remarks[before:]
        usual = round(1 / self.source.rate / self.source.time_base)
        return Scan(times, end_time(times, durations, usual), cuts, frames, remarks)

    def prepare(self, colorizer: Colorizer) -> PreparedFilm:
        """Open the folder of parts, find the shots and choose their references.

        Raises:
            UserError: the film, its file of shots or a reference cannot be read.
        """
        self.open()
        scan = self.scan()
        if self.encoding is not None:
            try:
                check_times(self.film.out, self.source, scan.times, self.encoding)
            except UserError:
                shutil.rmtree(self.folder, ignore_errors=True)
                raise
        shots = self.shots(scan)
        references = References(self.film.references, colorizer)
        middle_frame = self.middle_frames(shots, scan)
        return PreparedFilm(scan, middle_frame, references, references.choose(shots, middle_frame, scan.frames))

    def shots(self, scan: Scan) -> list[Shot]:
        """Return the shots of the user's file, or else those between the detected cuts.

        Raises:
            UserError: the file cannot be used.
        """
        path = self.film.shots
        if path is not None and path.exists():
            return read_shots(path, len(scan.times), self.film.references)
        return shots_of(scan.cuts, len(scan.times))

    def middle_frames(self, shots: Sequence[Shot], scan: Scan) -> Callable[[int], Picture]:
        """Return a function of the number of a shot: it returns the frame in its middle, which later runs reuse."""

        def middle_frame(number: int) -> Picture:
            shot = shots[number]
            middle = (shot.start + shot.end) // 2
            file = self.folder / f"frame_{middle:08d}.png"
            if not file.is_file():
                frame = next(self.source.frames(middle, scan.times))
                small = frame.picture
                if max(small.size) > _SHOWN:
                    factor = _SHOWN / max(small.size)
                    small = small.resized(
                        (max(1, round(small.size[0] * factor)), max(1, round(small.size[1] * factor)))
                    )
                grey = small.rgb().convert("L") if small.colour.mode == "F" else small.colour
                write_image(file, grey)
            return read_image(file)

        return middle_frame


def end_time(times: Sequence[int], durations: Sequence[int], usual: int) -> int:
    """Return the time stamp at which the last frame ends.

    Stored durations are wrong in files whose frames are coded in another order. If they agree with all time stamps,
    the last is right too. Otherwise the last frame is shown as long as the one before.

    Args:
        times: time stamps of all frames.
        durations: stored durations of the frames; 0 if unknown.
        usual: the duration of the only frame of a film.
    """
    ends = [time + duration for time, duration in zip(times, durations, strict=True)]
    if durations[-1] > 0 and ends[:-1] == list(times[1:]):
        return ends[-1]
    return times[-1] + max(1, times[-1] - times[-2] if len(times) > 1 else usual)


def prefetch(items: Iterator[_Item], most: int = _PREFETCHED) -> Iterator[_Item]:
    """Yield the items of an iterator, which a thread computes at most ``most`` items ahead."""
    room: queue.Queue[tuple[bool, Any]] = queue.Queue(most)
    stopped = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not stopped.is_set():
            try:
                room.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=work, name="frames", daemon=True)
    thread.start()
    try:
        while True:
            more, item = room.get()
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stopped.set()
        thread.join()


def steps(shots: Sequence[Shot], frames: Sequence[int], step: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield the first frame, and the frame after the last, of each step from frame ``start`` on.

    The first frame of a shot is a step of its own; a frame with given colours ends a step.

    Args:
        shots: the shots.
        frames: numbers of the frames whose colours are given.
        step: largest number of frames in a step.
        start: the first frame of a step.
    """
    for shot in shots:
        ends = sorted({shot.start + 1, shot.end, *(frame + 1 for frame in frames if shot.start <= frame < shot.end)})
        begin = shot.start
        for end in ends:
            while begin < end:
                stop = min(end, begin + step)
                if begin >= start:
                    yield begin, stop
                begin = stop


def colour_film(film: Film, colorizer: Colorizer, about: dict[str, Any], review: bool, observer: FilmObserver) -> Path:
    """Colour a film, or write its page for review, and return the result's path.

    Args:
        film: the film.
        colorizer: the colorizer, with the ``size`` of the film.
        about: other settings that affect the result, such as the weights.
        review: write a page with one frame of each shot instead.
        observer: receives the events.

    Raises:
        UserError: something cannot be read or written.
        DiskFullError: there is no room.
    """
    from pdnla.film.review import write_review

    film = film._replace(references=usable_references(film.references, film.named, observer.damage))
    work = Work(film, about, observer)
    with lock(film.parts / "lock"):
        prepared = work.prepare(colorizer)
        shots = [choice.shot for choice in prepared.choices]
        if film.shots is not None and not film.shots.exists():
            write_shots(film.shots, shots)
        if review:
            write_review(film, prepared, colorizer)
            return film.review
        work.remove_outdated_segments(shots)
        _colour(work, prepared, colorizer)
    return film.out


def frame_input(picture: Picture, side: int | str, aspect: Fraction = Fraction(1)) -> Tensor:
    """Return a frame as the network's input, sRGB in [0, 1], ``(1, 3, h, w)``; it is not enlarged.

    Args:
        picture: the frame.
        side: ``size`` of :class:`~pdnla.inference.colorizer.Colorizer`.
        aspect: width of a pixel over its height.
    """
    if isinstance(side, int):
        side = max(16, min(side, math.isqrt(round(picture.size[0] * picture.size[1] * aspect))))
    if aspect != 1:
        picture = picture.resized((max(1, round(picture.size[0] * aspect)), picture.size[1]))
    return network_input(picture, side, grey=True)


def motion_grey(lightness: Tensor) -> NDArray[np.uint8]:
    """Return a frame's L*, ``(1, 1, h, w)``, in the form for motion estimation: L* · 2.55, ``(h, w)``."""
    values: NDArray[np.uint8] = (lightness[0, 0] * 2.55).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return values


def own_colours(colorizer: Colorizer, frame: Tensor) -> Own:
    """Return a frame's own colours, from the references set in a colorizer."""
    estimate = colorizer.estimate(frame)
    return Own(_pixels(estimate.chroma), _pixels(estimate.confidence)[..., 0])


def given_colours(picture: Picture, like: Tensor) -> Own:
    """Return the colours of a coloured version of the frame, at the size of a tensor of the frame."""
    height, width = like.shape[-2:]
    rgb = _as_maps(picture.resized((width, height)).rows(0, height), like.device)
    chroma = _pixels(color.rgb_to_lab(rgb)[:, 1:])
    return Own(chroma, np.full(chroma.shape[:2], CERTAIN, np.float32))


def _as_maps(values: NDArray[np.float32], device: torch.device) -> Tensor:
    """Return values, ``(H, W, C)``, as ``(1, C, H, W)`` on a device."""
    return torch.from_numpy(values).permute(2, 0, 1)[None].to(device)


def _pixels(maps: Tensor) -> NDArray[np.float32]:
    """Return maps, ``(1, C, H, W)``, as ``(H, W, C)``."""
    values: NDArray[np.float32] = maps[0].permute(1, 2, 0).float().cpu().numpy()
    return np.ascontiguousarray(values)


@torch.inference_mode()
def colour_shot(
    pictures: Iterable[Picture], colorizer: Colorizer, before: Picture | None = None
) -> Iterator[Image.Image]:
    """Colour the frames of a shot in memory like :func:`colour_film`, with the references set in a colorizer.

    Args:
        pictures: the frames; a change of size starts a new shot.
        colorizer: the colorizer.
        before: the frame before the first, in its true colours, if it is known.

    Yields:
        Each frame in colour, mode RGB.
    """
    inputs: list[Tensor] = []
    stabiliser = Stabiliser(lambda place: own_colours(colorizer, inputs[place]))
    for size, frames in itertools.groupby(pictures, key=lambda picture: picture.size):
        stabiliser.cut()
        step = 1
        if before is not None and before.size == size:
            shown = frame_input(before, colorizer.size).to(colorizer.device)
            given = given_colours(before, shown)
            stabiliser.memory = Memory(motion_grey(color.lightness(shown)), given.chroma, given.confidence)
            step = STEP
        before = None
        while block := list(itertools.islice(frames, step)):
            inputs[:] = [frame_input(picture, colorizer.size).to(colorizer.device) for picture in block]
            lightness = [color.lightness(x) for x in inputs]
            chroma = stabiliser.colour([motion_grey(light) for light in lightness])
            for picture, light, own in zip(block, lightness, chroma, strict=True):
                plane = ChromaPlane.fit(light, _as_maps(own, light.device), size)
                yield paint(picture, plane, light.device)
            step = STEP


@torch.inference_mode()
def transfer_colours(picture: Picture, before: Picture) -> Picture:
    """Return a grey frame with the colours of the frame before it, transferred along motion without a check of trust.

    Args:
        picture: the frame.
        before: the frame before, in colour.
    """
    before = before.resized(picture.size)
    inputs = [network_input(frame, NATIVE, grey=True) for frame in (picture, before)]
    lightness = [color.lightness(x) for x in inputs]
    motion = Finder().between(*map(motion_grey, lightness))
    chroma = motion.warp(given_colours(before, inputs[1]).chroma)
    cpu = torch.device("cpu")
    plane = ChromaPlane.fit(lightness[0], _as_maps(chroma, cpu), picture.size)
    return Picture(paint(picture, plane, cpu).convert("RGB"))


@torch.inference_mode()
def _colour(work: Work, prepared: PreparedFilm, colorizer: Colorizer) -> None:
    """Colour the unfinished segments, and join all."""
    total = len(prepared.scan.times)
    sink = VideoSink(work, prepared.scan) if work.encoding is not None else FolderSink(work)
    number, start, memory = _finished(work.folder)
    work.observer.coloured(start, total)
    if start < total:
        segment = start
        sink.begin(number)
        with BackgroundWriter[None](limit=3 * STEP, threads=1) as writer:
            for end, frames, state in _colour_steps(work, prepared, colorizer, start, memory):
                for frame, lightness, chroma in frames:
                    writer.submit(partial(sink.write, frame, lightness, _as_maps(chroma, lightness.device)), 1)
                work.observer.coloured(end, total)
                if end - segment >= SEGMENT or end == total:
                    writer.finish()
                    sink.end()
                    _keep(work.folder, number, end, state)
                    number, segment = number + 1, end
                    if end < total:
                        sink.begin(number)
    sink.conclude()
    shutil.rmtree(work.folder, ignore_errors=True)


class _Step(NamedTuple):
    """Coloured frames.

    Attributes:
        end: number of the frame after the last.
        frames: each frame with its L*, ``(1, 1, h, w)``, and its a* and b*, ``(h, w, 2)``.
        memory: the state after the last.
    """

    end: int
    frames: list[tuple[Frame, Tensor, Map]]
    memory: Memory


class _Inputs(NamedTuple):
    """The frames of a step, with a colorizer that has the references of their shot."""

    begin: int
    shot: Shot
    frames: list[Frame]
    colorizer: Colorizer


class _Prepared(NamedTuple):
    """A step before it is coloured.

    Attributes:
        inputs: its frames.
        lightness: L* of each, ``(1, 1, h, w)``.
        owns: functions that return the own colours of each; those of the last are already computed.
    """

    inputs: _Inputs
    lightness: list[Tensor]
    owns: list[Callable[[], Own]]


def _colour_steps(
    work: Work, prepared: PreparedFilm, colorizer: Colorizer, start: int, memory: Memory | None
) -> Iterator[_Step]:
    """Colour the frames from number ``start`` on, where the state is ``memory``, and yield them in steps.

    The last frame of a step always becomes a key frame, whose own colours depend on no other frame. On a CPU, they are
    computed ahead in threads, while this one transfers colours along motion, which uses a single core.
    """
    prepare = partial(_prepare_step, film=work.film, aspect=work.source.aspect, given=prepared.scan.frames)
    inputs = _step_inputs(work, prepared, colorizer, start)
    ahead: Iterable[_Prepared] = (
        read_ahead(prepare, inputs, lambda step: 1, _AHEAD, threads=_AHEAD, most=_AHEAD + 1)
        if colorizer.device.type == "cpu"
        else map(prepare, inputs)
    )
    stabiliser = Stabiliser(lambda place: step.owns[place]())
    stabiliser.memory = memory
    for step in ahead:
        begin, shot, block, _ = step.inputs
        if begin == shot.start:
            stabiliser.cut()
        chroma = stabiliser.colour([motion_grey(light) for light in step.lightness])
        assert stabiliser.memory is not None
        frames = list(zip(block, step.lightness, chroma, strict=True))
        yield _Step(begin + len(block), frames, stabiliser.memory)


def _step_inputs(work: Work, prepared: PreparedFilm, colorizer: Colorizer, start: int) -> Iterator[_Inputs]:
    """Yield the decoded frames of each step from frame number ``start`` on."""
    shots = [choice.shot for choice in prepared.choices]
    frames = prefetch(work.source.frames(start, prepared.scan.times))
    last: Shot | None = None
    for begin, end in steps(shots, list(prepared.scan.frames), STEP, start):
        block = list(itertools.islice(frames, end - begin))
        if len(block) < end - begin:
            raise UserError(f"{work.film.target}: has changed since it was scanned; run the command again")
        shot = next(shot for shot in shots if shot.start <= begin < shot.end)
        if shot is not last:
            prepared.references.use(shot.references)
            own, last = copy.copy(colorizer), shot  # steps before keep the references of their shot
        yield _Inputs(begin, shot, block, own)


@torch.inference_mode()
def _prepare_step(step: _Inputs, film: Film, aspect: Fraction, given: dict[int, Path]) -> _Prepared:
    """Prepare the frames of a step, and compute the own colours of the last."""
    inputs = [frame_input(frame.picture, film.size, aspect).to(step.colorizer.device) for frame in step.frames]
    owns = [
        partial(_given, given[frame.number], x) if frame.number in given else partial(own_colours, step.colorizer, x)
        for frame, x in zip(step.frames, inputs, strict=True)
    ]
    key = owns[-1]()
    return _Prepared(step, [color.lightness(x) for x in inputs], [*owns[:-1], lambda: key])


def _given(path: Path, like: Tensor) -> Own:
    return given_colours(read_reference(path), like)


def _finished(folder: Path) -> tuple[int, int, Memory | None]:
    """Return the number of the next segment, its first frame and the state before it."""
    number, start, memory = 0, 0, None
    while (file := folder / f"segment_{number:06d}.npz").is_file():
        with np.load(file) as kept:
            start = int(kept["end"])
            memory = Memory(kept["grey"], kept["chroma"], kept["weight"])
        number += 1
    return number, start, memory


def _keep(folder: Path, number: int, end: int, memory: Memory) -> None:
    with replacing(folder / f"segment_{number:06d}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, end=end, grey=memory.grey, chroma=memory.chroma, weight=memory.weight)


class VideoSink:
    """Writes coloured frames as segments of a video file.

    Args:
        work: the work.
        scan: the scan.
    """

    def __init__(self, work: Work, scan: Scan) -> None:
        assert work.encoding is not None
        self.work, self.scan, self.encoding = work, scan, work.encoding
        self._writer: SegmentWriter | None = None

    def begin(self, number: int) -> None:
        """Begin a segment."""
        self._writer = SegmentWriter(self._path(number), self.encoding)

    def write(self, frame: Frame, lightness: Tensor, chroma: Tensor) -> None:
        """Write a frame: its luminance plane and the chroma planes of given colours.

        Args:
            frame: the frame.
            lightness: its L* at the working size, ``(1, 1, h, w)``.
            chroma: a* and b* there, ``(1, 2, h, w)``.
        """
        assert self._writer is not None
        coding = self.encoding.coding
        luma = frame.luma
        if luma is None:
            black, white = coding.luma_range
            grey = _grey(frame.picture)
            dtype = np.uint8 if coding.depth == 8 else np.uint16
            luma = (grey * (white - black) + black).round().astype(dtype)
        else:
            assert isinstance(self.work.source, VideoSource)
            grey = grey_values(luma, self.work.source.coding)
            luma = _at_depth(luma, self.work.source.coding.depth, coding.depth)
        across, down = self.encoding.subsampling
        planes = _planes(torch.from_numpy(grey).to(chroma.device), lightness, chroma, across, down)
        self._writer.write(luma, chroma_codes(*planes, coding))

    def end(self) -> None:
        """Finish the segment."""
        assert self._writer is not None
        self._writer.close()

    def conclude(self) -> None:
        """Join the segments."""
        segments = sorted(self.work.folder.glob("segment_*.nut"))
        with replacing(self.work.film.out) as temporary:
            join_segments(segments, self.scan.times, self.scan.end, self.work.source, self.encoding, temporary)

    def _path(self, number: int) -> Path:
        return self.work.folder / f"segment_{number:06d}.nut"


class FolderSink:
    """Writes coloured frames as pictures in a folder.

    Args:
        work: the work.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.folder = work.film.out
        source = work.source
        self._names: list[Path] | None = None
        if isinstance(source, FolderSource):
            self._names = result_names([path.relative_to(source.path) for path in source.paths])

    def begin(self, number: int) -> None:
        """Begin a segment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(self.folder)

    def write(self, frame: Frame, lightness: Tensor, chroma: Tensor) -> None:
        """Write a frame.

        Args:
            frame: the frame.
            lightness: its L* at the working size, ``(1, 1, h, w)``.
            chroma: a* and b* there, ``(1, 2, h, w)``.
        """
        plane = ChromaPlane.fit(lightness, chroma, frame.picture.size)
        draw = paint_16_bits if self.work.film.depth == 16 else paint
        result = draw(frame.picture, plane, chroma.device)
        name = self._names[frame.number] if self._names else Path(f"{frame.number:06d}.png")
        path = self.folder / name
        write_image(path, result, *([read_metadata(frame.path)] if frame.path else []))

    def end(self) -> None:
        """Finish the segment."""

    def conclude(self) -> None:
        """Finish the film."""


def _grey(picture: Picture) -> NDArray[np.float32]:
    """Return a picture's luminance as sRGB values in [0, 1], ``(H, W)``."""
    rows = picture.rows(0, picture.size[1])
    if rows.shape[-1] == 1:
        return rows[..., 0]
    grey = color.grey(_as_maps(rows, torch.device("cpu")))
    values: NDArray[np.float32] = grey[0, 0].numpy()
    return values


def _at_depth(luma: NDArray[Any], depth: int, wanted: int) -> NDArray[Any]:
    """Return code values at another depth, rounded where it has fewer bits."""
    if depth == wanted:
        return luma
    if depth < wanted:
        return luma.astype(np.uint16) << (wanted - depth)
    shift = depth - wanted
    rounded = np.minimum((luma.astype(np.uint32) + (1 << shift >> 1)) >> shift, (1 << wanted) - 1)
    return rounded.astype(np.uint8 if wanted == 8 else np.uint16)


def _planes(grey: Tensor, lightness: Tensor, chroma: Tensor, across: int, down: int) -> tuple[Tensor, Tensor]:
    """Return luma and a*b* at the places of the chroma samples, ``(h, w)`` and ``(2, h, w)``.

    Samples lie between two rows and on every second column, as MPEG-2 and its successors place them.
    """
    width = grey.shape[-1]
    rows = grey[None, None]
    if down == 2:
        rows = functional.avg_pool2d(rows, (2, 1), ceil_mode=True)
    full = rows.shape[-2]
    plane = ChromaPlane.fit(lightness, chroma, (width, full))
    light = color.lightness(rows)
    maps = torch.cat([rows, plane.rows(0, full, light)], dim=1)
    if across == 2:
        maps = functional.pad(maps, (1, 1, 0, 0), mode="replicate")
        kernel = maps.new_tensor([0.25, 0.5, 0.25]).view(1, 1, 1, 3).expand(3, 1, 1, 3)
        maps = functional.conv2d(maps, kernel, stride=(1, 2), groups=3)
    return maps[0, 0], maps[0, 1:]
