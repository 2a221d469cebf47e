"""Colour every case with every method and measure the results, in one process or several."""

import multiprocessing
import shutil
from collections import deque
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
from pdnla.evaluation import report
from pdnla.evaluation.frechet import Moments, frechet_distance
from pdnla.evaluation.measures import MEASURES, Figures, summarise
from pdnla.evaluation.methods import FLOW, film_name, load_methods
from pdnla.evaluation.metrics import DISTANCES
from pdnla.evaluation.protocols import TRUTH, Case, Clips, Protocol
from pdnla.evaluation.results import REFERENCE, TARGET, Evaluation, Record, kept
from pdnla.evaluation.scoring import MeasureInputs, Scorer
from pdnla.evaluation.suite import Part
from pdnla.memory import keep_freed_memory

_GOAL = ""  # name of the set that results are compared with: truths, or references
_JPEG_QUALITY = 82  # of the pictures in the report
_POLL_SECONDS = 0.3  # between two updates of the progress


class Settings(NamedTuple):
    """Settings of an evaluation; see ``conf/eval.yaml``.

    Attributes:
        weights: files by the names of their methods.
        baselines: names of baselines.
        size: working size of weights, about ``size``² pixels, or ``native`` for the pictures' own size.
        device: ``auto``, ``cpu``, ``cuda``, ...
        precision: precision of the weights.
        available: measures whose weights are not part of the package and are available.
        side: longest side of the pictures kept for the report, in pixels; 0 for none.
        film: weights colour clips as film too.
    """

    weights: Mapping[str, str]
    baselines: tuple[str, ...]
    size: int | str = 512
    device: str = "auto"
    precision: str = "auto"
    available: frozenset[str] = frozenset()
    side: int = 256
    film: bool = False


@dataclass
class Share:
    """The results of one process: records, a sentence for each omitted case, and moments by measure and set."""

    records: list[Record] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    moments: dict[str, dict[str, Moments]] = field(default_factory=dict)

    def add(self, other: "Share") -> None:
        """Append the results of the next process."""
        self.records += other.records
        self.left_out += other.left_out
        for measure, sets in other.moments.items():
            for name, moments in sets.items():
                self.describe(measure, name, moments)

    def describe(self, measure: str, name: str, moments: Moments) -> None:
        """Add moments to those of a set of pictures."""
        sets = self.moments.setdefault(measure, {})
        sets[name] = sets[name] + moments if name in sets else moments


Progress = Callable[[int], None]


def evaluate(
    parts: Mapping[str, Protocol], settings: Settings, processes: int, folder: Path, progress: Progress
) -> dict[str, Evaluation]:
    """Evaluate all methods on all cases of one protocol or of several.

    Args:
        parts: protocols by name.
        settings: methods and measures.
        processes: number of processes; each takes successive cases of every part, and one of the CUDA devices in turn.
        folder: folder of the pictures for the report, with a subfolder for each part.
        progress: called with the number of finished cases of all parts.

    Returns:
        The evaluation of each part by name.

    Raises:
        UserError: a method cannot be loaded or fails, or no case of a part can be used.
    """
    if processes == 1:
        shares = _shares(parts, settings, 0, 1, folder, progress)
    else:
        longest = max(len(protocol) for protocol in parts.values())
        shares = _together(parts, settings, min(processes, longest), folder, progress)
    for name, share in shares.items():
        if not share.records:
            count, first = len(parts[name]), share.left_out[0]
            raise UserError(f"protocol {name}: none of its {count} pictures can be used; the first: {first}")
    return {name: _conclude(share, settings) for name, share in shares.items()}


class Provenance(NamedTuple):
    """Origin of a report's values.

    Attributes:
        title: title of the page.
        configuration: the composed and resolved configuration.
        text: the configuration as text.
        versions: versions of the package, torch and Python.
    """

    title: str
    configuration: Mapping[str, Any]
    text: str
    versions: Mapping[str, str]


def run(
    parts: Mapping[str, Part],
    settings: Settings,
    processes: int,
    folder: Path,
    shown: int,
    provenance: Provenance,
    progress: Progress,
) -> dict[str, Evaluation]:
    """Evaluate, and write ``metrics.json``, ``metrics.csv`` and ``report.html``.

    Args:
        parts: protocols with their headings, by name.
        settings: methods and measures.
        processes: number of processes.
        folder: folder of the files.
        shown: largest number of cases of each part that are shown in pictures.
        provenance: origin of the values, for the report.
        progress: called with the number of finished cases of all parts.

    Returns:
        The evaluation of each part by name.

    Raises:
        UserError: a method cannot be loaded or fails, or no case of a part can be used.
    """
    pictures = folder / ".pictures"
    try:
        protocols = {name: part.protocol for name, part in parts.items()}
        evaluations = evaluate(protocols, settings, processes, pictures, progress)
        report.write_metrics(evaluations, folder, provenance.configuration, provenance.versions)
        remarks = [
            f"{sum(len(evaluation.records) for evaluation in evaluations.values())} pictures",
            f"{len(report.kinds(evaluations))} methods",
            provenance.versions["pdnla"],
        ]
        page = report.PageContents(provenance.title, remarks, provenance.text, pictures, shown)
        report.write_page(folder / "report.html", evaluations, parts, page)
    finally:
        shutil.rmtree(pictures, ignore_errors=True)
    return evaluations


_done: Any = None
_stop: Any = None


def _together(
    parts: Mapping[str, Protocol], settings: Settings, processes: int, folder: Path, progress: Progress
) -> dict[str, Share]:
    context = multiprocessing.get_context("spawn")
    done_cases, stop = context.Value("i", 0), context.Event()
    threads = torch.get_num_threads() // processes
    with ProcessPoolExecutor(processes, context, _set_up, (done_cases, stop, threads)) as pool:
        try:
            futures = [pool.submit(_shares_of, parts, settings, rank, processes, folder) for rank in range(processes)]
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, _POLL_SECONDS, FIRST_EXCEPTION)
                progress(done_cases.value)
                for future in done:
                    future.result()
            whole = {name: Share() for name in parts}
            for future in futures:
                for name, share in future.result().items():
                    whole[name].add(share)
        except BrokenProcessPool as error:
            raise UserError(
                f"devices={processes}: a process was killed, perhaps because memory ran out; use fewer"
            ) from error
        finally:
            stop.set()
    return whole


def _set_up(done_cases: Any, stop: Any, threads: int) -> None:
    """Initialise one of several processes."""
    global _done, _stop
    _done, _stop = done_cases, stop
    torch.set_num_threads(max(1, threads))


def _shares_of(
    parts: Mapping[str, Protocol], settings: Settings, rank: int, processes: int, folder: Path
) -> dict[str, Share]:
    """Evaluate the share of one process; stop if another one failed."""
    reported = 0

    def progress(done: int) -> None:
        nonlocal reported
        with _done.get_lock():
            _done.value += done - reported
        reported = done
        if _stop.is_set():
            raise UserError("another process failed")

    return _shares(parts, settings, rank, processes, folder, progress)


class PastFrame(NamedTuple):
    """The target and the results of a frame, for measures of change."""

    target: Tensor
    results: dict[str, Tensor]


def _bounds(protocol: Protocol, rank: int, processes: int) -> tuple[int, int]:
    """Return the first case of a process and the one after its last; a clip stays whole."""
    bounds = [len(protocol) * i // processes for i in (rank, rank + 1)]
    if isinstance(protocol, Clips):
        ends = [*protocol.starts, len(protocol)]
        bounds = [min(start for start in ends if start >= bound) for bound in bounds]
    return bounds[0], bounds[1]


def _shares(
    parts: Mapping[str, Protocol], settings: Settings, rank: int, processes: int, folder: Path, progress: Progress
) -> dict[str, Share]:
    """Evaluate the share of this process: successive cases of every part."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    worker = _Worker(settings, rank)
    if worker.device.type == "cpu":
        keep_freed_memory()
    shares = {name: Share() for name in parts}
    done = 0
    for name, protocol in parts.items():
        start, stop = _bounds(protocol, rank, processes)
        worker.before.clear()
        for index in range(start, stop):
            try:
                case = protocol[index]
            except UserError as error:
                shares[name].left_out.append(str(error))
                worker.before.clear()
            else:
                worker.record(index, case, shares[name], folder / name)
            done += 1
            progress(done)
    return shares


class _Worker:
    """Methods, measures and the frames before."""

    def __init__(self, settings: Settings, rank: int) -> None:
        self.device = choose_device(settings.device)
        if str(self.device) == "cuda":
            self.device = torch.device("cuda", rank % torch.cuda.device_count())
        self.methods = load_methods(
            settings.weights, settings.baselines, settings.size, self.device, settings.precision, settings.film
        )
        self.scorer = Scorer(self.device, settings.available)
        self.side = settings.side
        self.before: deque[PastFrame] = deque(maxlen=max(DISTANCES))

    @torch.inference_mode()
    def record(self, index: int, case: Case, share: Share, folder: Path) -> None:
        """Colour a case, measure the results and keep small pictures."""
        target, reference = (self._view(picture.rgb()) for picture in (case.target, case.reference))
        truth = None if case.truth is None else self._view(case.truth)
        regions = {name: torch.from_numpy(region).to(self.device) for name, region in case.regions.items()}
        results = self._results(case)
        views = {name: self._view(result) for name, result in results.items()}
        figures: dict[str, Figures] = {}
        self._describe(share, _GOAL, truth or reference)
        if not case.follows:
            self.before.clear()
        for name, view in views.items():
            figures[name] = self.scorer.figures(
                view, target, reference, None if name == TRUTH else truth, regions, case.distance
            )
            earlier = [(frame.results[name], frame.target) for frame in reversed(self.before) if name in frame.results]
            if earlier:
                figures[name] |= self.scorer.change(view.picture, target.picture, earlier)
            if name != TRUTH:
                self._describe(share, name, view)
        self.before.append(PastFrame(target.picture, {name: view.picture for name, view in views.items()}))
        shown = {TARGET: case.target.rgb(), REFERENCE: case.reference.rgb(), **results, **_first_region(case)}
        if self.side:
            self._keep(folder, index, shown)
        share.records.append(Record(index, case.name, figures, tuple(shown)))

    def _results(self, case: Case) -> dict[str, Image.Image]:
        results = {}
        for name, method in self.methods.items():
            try:
                result = method.of_case(case)
            except UserError as error:
                raise UserError(f"{case.name}, {name}: {error}") from error
            if result is not None:
                results[name] = result
        results |= case.given
        return results if case.truth is None else {**results, TRUTH: case.truth}

    def _describe(self, share: Share, name: str, view: MeasureInputs) -> None:
        for measure, vector in self.scorer.vectors(view).items():
            share.describe(measure, name, Moments.of(vector))

    def _view(self, image: Image.Image) -> MeasureInputs:
        return self.scorer.view(self._tensor(image))

    def _tensor(self, image: Image.Image) -> Tensor:
        values = torch.from_numpy(np.array(image)).to(self.device)
        return values.permute(2, 0, 1).unsqueeze(0).float() / 255

    def _keep(self, folder: Path, index: int, pictures: Mapping[str, Image.Image]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for column, image in enumerate(pictures.values()):
            small = image.copy()
            small.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
            small.save(kept(folder, index, column), quality=_JPEG_QUALITY, subsampling=0, optimize=True)


def _first_region(case: Case) -> dict[str, Image.Image]:
    """Return the first region of a case by name, as the truth darkened outside of it."""
    if case.truth is None or not case.regions:
        return {}
    name, region = next(iter(case.regions.items()))
    truth = np.asarray(case.truth)
    return {name: Image.fromarray(np.where(region[..., None], truth, truth // 4))}


def _conclude(share: Share, settings: Settings) -> Evaluation:
    names = list(dict.fromkeys(name for record in share.records for name in record.figures))
    own = dict.fromkeys([name for weights in settings.weights for name in (weights, film_name(weights))], "weights")
    baselines = [name for baseline in settings.baselines for name in (baseline, film_name(baseline))]
    others = dict.fromkeys([*baselines, FLOW], "baseline") | {TRUTH: "truth"}
    published = {name: "published" for name in names if name not in own | others}
    kinds = own | published | others | own  # own first, and own where a baseline has the same name
    methods = {name: kind for name, kind in kinds.items() if name in names}
    summary: dict[str, Figures] = {}
    for name in methods:
        summary[name] = summarise([record.figures[name] for record in share.records if name in record.figures])
        for measure, sets in share.moments.items():
            distance = frechet_distance(sets[name], sets[_GOAL]) if name in sets else None
            if distance is not None:
                summary[name][measure] = distance
    measures = [name for name in MEASURES if any(name in figures for figures in summary.values())]
    return Evaluation(methods, measures, summary, share.records, share.left_out)
