"""Colour every case by every method and measure the results, in one process or in several."""

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pdnla.devices import choose_device
from pdnla.errors import UserError
from pdnla.evaluation.measures import (
    MEASURES,
    Figures,
    Inception,
    Judge,
    Moments,
    describe,
    flicker,
    frechet_distance,
    means,
)
from pdnla.evaluation.methods import TRUTH, load_methods
from pdnla.evaluation.protocols import Case, Protocol
from pdnla.memory import keep_freed_memory

TARGET, REFERENCE = "target", "reference"
_WANTED = ""  # the name of the set that results should be like: truths, or references
_QUALITY = 82  # of the JPEGs that the report shows
_POLL = 0.3  # seconds between looks at what the processes have done


class Settings(NamedTuple):
    """How an evaluation is done; see ``conf/eval.yaml``.

    Attributes:
        weights: files by the names of their methods.
        baselines: their names.
        size: weights see pictures of about ``size``² pixels, or ``native``: of their own size.
        device: ``auto``, ``cpu``, ``cuda``...
        precision: of the weights.
        lpips: measure LPIPS, whose weights are there.
        fid: measure FID, whose weights are there.
        side: of the pictures kept for the report, in pixels; 0 for none.
    """

    weights: Mapping[str, str]
    baselines: tuple[str, ...]
    size: int | str = 512
    device: str = "auto"
    precision: str = "auto"
    lpips: bool = False
    fid: bool = False
    side: int = 256


class Record(NamedTuple):
    """One case: its number and name, each method's figures, and which pictures of it were kept, in their order."""

    number: int
    name: str
    figures: dict[str, Figures]
    columns: tuple[str, ...]


@dataclass
class Part:
    """What one process found: records, sentences about what it left out, and moments by measure and set."""

    records: list[Record] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    moments: dict[str, dict[str, Moments]] = field(default_factory=dict)

    def add(self, other: "Part") -> None:
        """Add what the next process found."""
        self.records += other.records
        self.left_out += other.left_out
        for measure, sets in other.moments.items():
            for name, moments in sets.items():
                own = self.moments.setdefault(measure, {})
                own[name] = own[name] + moments if name in own else moments


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes:
        methods: what each is by its name, in the order of tables: ``weights``, ``published``, ``baseline``, ``truth``.
        measures: names of :data:`pdnla.evaluation.measures.MEASURES` that any method has.
        means: of each method over the cases, and its Fréchet distances.
        records: the cases in order.
        left_out: a sentence for each case that could not be used.
    """

    methods: dict[str, str]
    measures: list[str]
    means: dict[str, Figures]
    records: list[Record]
    left_out: list[str]


Tell = Callable[[int], None]


def evaluate(protocol: Protocol, settings: Settings, processes: int, folder: Path, tell: Tell) -> Evaluation:
    """Evaluate all methods on all cases.

    Args:
        protocol: the cases.
        settings: methods and measures.
        processes: how many; each takes a run of successive cases, and a CUDA device in turn.
        folder: where pictures for the report are kept.
        tell: is told how many cases are done.

    Raises:
        UserError: a method cannot be loaded or fails, or no case can be used.
    """
    if processes == 1:
        part = _part(protocol, settings, 0, 1, folder, tell)
    else:
        part = _together(protocol, settings, min(processes, len(protocol)), folder, tell)
    if not part.records:
        raise UserError(f"protocol: none of its {len(protocol)} pictures can be used; the first: {part.left_out[0]}")
    return _conclude(part, settings)


_progress: Any = None
_stop: Any = None


def _together(protocol: Protocol, settings: Settings, processes: int, folder: Path, tell: Tell) -> Part:
    context = multiprocessing.get_context("spawn")
    progress, stop = context.Value("i", 0), context.Event()
    with ProcessPoolExecutor(
        processes, context, _begin, (progress, stop, torch.get_num_threads() // processes)
    ) as pool:
        try:
            futures = [pool.submit(_part_of, protocol, settings, rank, processes, folder) for rank in range(processes)]
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, _POLL, FIRST_EXCEPTION)
                tell(progress.value)
                for future in done:
                    future.result()
            part = Part()
            for future in futures:
                part.add(future.result())
        except BrokenProcessPool as error:
            raise UserError(
                f"devices={processes}: a process was killed, perhaps for want of memory; use fewer"
            ) from error
        finally:
            stop.set()
    return part


def _begin(progress: Any, stop: Any, threads: int) -> None:
    """Set up a process of several."""
    global _progress, _stop
    _progress, _stop = progress, stop
    torch.set_num_threads(max(1, threads))


def _part_of(protocol: Protocol, settings: Settings, rank: int, processes: int, folder: Path) -> Part:
    """Do one process' part, unless another one failed."""
    told = 0

    def tell(done: int) -> None:
        nonlocal told
        with _progress.get_lock():
            _progress.value += done - told
        told = done
        if _stop.is_set():
            raise UserError("another process failed")

    return _part(protocol, settings, rank, processes, folder, tell)


class Frame(NamedTuple):
    """What flicker is measured against: the target and the results of the frame before."""

    target: Tensor
    results: dict[str, Tensor]


def _part(protocol: Protocol, settings: Settings, rank: int, processes: int, folder: Path, tell: Tell) -> Part:
    """Evaluate the cases of one process, a run of successive ones."""
    worker = _Worker(settings, rank, folder)
    part = Part()
    start, stop = (len(protocol) * i // processes for i in (rank, rank + 1))
    for index in range(start, stop):
        try:
            case = protocol[index]
        except UserError as error:
            part.left_out.append(str(error))
            worker.before = None
        else:
            if case.follows and index == start:  # the frame before is another process'
                worker.before = worker.frame(protocol, index - 1)
            part.records.append(worker.record(index, case, part.moments))
        tell(index + 1 - start)
    return part


class _Worker:
    """Methods, measures and the frame before the next one."""

    def __init__(self, settings: Settings, rank: int, folder: Path) -> None:
        self.device = choose_device(settings.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        if str(self.device) == "cuda":
            self.device = torch.device("cuda", rank % torch.cuda.device_count())
        self.methods = load_methods(
            settings.weights, settings.baselines, settings.size, self.device, settings.precision
        )
        self.judge = Judge(self.device, settings.lpips)
        self.inception = Inception(self.device) if settings.fid else None
        self.side, self.folder = settings.side, folder
        self.before: Frame | None = None

    @torch.inference_mode()
    def record(self, index: int, case: Case, moments: dict[str, dict[str, Moments]]) -> Record:
        """Colour a case, measure the results and keep small pictures of them."""
        target, reference = self._tensor(case.target.rgb()), self._tensor(case.reference.rgb())
        guide = self.judge.look(reference)
        truth = None if case.truth is None else self.judge.look(self._tensor(case.truth))
        results = self._results(case)
        frame = Frame(target, {name: self._tensor(result) for name, result in results.items()})
        figures: dict[str, Figures] = {}
        self._describe(moments, _WANTED, truth or guide)
        for name, picture in frame.results.items():
            seen = self.judge.look(picture)
            figures[name] = self.judge.figures(seen, target, guide, None if name == TRUTH else truth)
            if case.follows and self.before is not None and name in self.before.results:
                change = flicker(picture, self.before.results[name], target, self.before.target)
                if change is not None:
                    figures[name]["flicker"] = change
            if name != TRUTH:
                self._describe(moments, name, seen)
        self.before = frame
        shown = {TARGET: case.target.rgb(), REFERENCE: case.reference.rgb(), **results}
        if self.side:
            self._keep(index, shown)
        return Record(index, case.name, figures, tuple(shown))

    @torch.inference_mode()
    def frame(self, protocol: Protocol, index: int) -> Frame | None:
        """Colour a case without measuring it."""
        try:
            case = protocol[index]
        except UserError:
            return None
        results = {name: self._tensor(result) for name, result in self._results(case).items()}
        return Frame(self._tensor(case.target.rgb()), results)

    def _results(self, case: Case) -> dict[str, Image.Image]:
        results = {}
        for name, method in self.methods.items():
            try:
                results[name] = method(case.target, case.reference)
            except UserError as error:
                raise UserError(f"{case.name}, {name}: {error}") from error
        results |= case.given
        return results if case.truth is None else {**results, TRUTH: case.truth}

    def _describe(self, moments: dict[str, dict[str, Moments]], name: str, seen: Any) -> None:
        vectors = {"frechet_efficientnet": describe(seen)}
        if self.inception is not None:
            vectors["fid"] = self.inception(seen.picture)
        for measure, vector in vectors.items():
            own, one = moments.setdefault(measure, {}), Moments.of(vector)
            own[name] = own[name] + one if name in own else one

    def _tensor(self, image: Image.Image) -> Tensor:
        values = torch.from_numpy(np.array(image)).to(self.device)
        return values.permute(2, 0, 1).unsqueeze(0).float() / 255

    def _keep(self, index: int, pictures: Mapping[str, Image.Image]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for column, image in enumerate(pictures.values()):
            small = image.copy()
            small.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
            small.save(kept(self.folder, index, column), quality=_QUALITY, subsampling=0, optimize=True)


def kept(folder: Path, index: int, column: int) -> Path:
    """Return where a small picture of a case is kept."""
    return folder / f"{index:07d}_{column}.jpg"


def _conclude(part: Part, settings: Settings) -> Evaluation:
    found = list(dict.fromkeys(name for record in part.records for name in record.figures))
    own = dict.fromkeys(settings.weights, "weights")
    others = dict.fromkeys(settings.baselines, "baseline") | {TRUTH: "truth"}
    published = {name: "published" for name in found if name not in own | others}
    methods = {name: kind for name, kind in (own | published | others).items() if name in found}
    averages: dict[str, Figures] = {}
    for name in methods:
        averages[name] = means([record.figures[name] for record in part.records if name in record.figures])
        for measure, sets in part.moments.items():
            distance = frechet_distance(sets[name], sets[_WANTED]) if name in sets else None
            if distance is not None:
                averages[name][measure] = distance
    measures = [name for name in MEASURES if any(name in figures for figures in averages.values())]
    return Evaluation(methods, measures, averages, part.records, part.left_out)
