"""Measure speed and memory of all variants in one run, relative to the plain network and the machine's limit.

    make bench                                              # all of it: an hour on two cores
    python scripts/benchmark.py --only network --sizes 512  # one part, one size
    python scripts/benchmark.py --rounds 1 --variants plain,eager   # without compiling and exporting
    python scripts/benchmark.py --against ../before         # the package's variants next to those of another checkout

Parts: `network` (every variant at 512×512 and channel 32, then the eager ones at other sizes and channels), `profile`
(the time of one picture by kind of operation), `training` (a step at channel 8, 128×128, batch 12), `files` (from files
to files, compared with only the network, and with an encoded reference) and `film` (a 480×270 video file and one twice
as long, with the default weights, decoding and encoding included). `--out FOLDER` writes performance.json and
performance.md to the folder.

Variants: `plain` is the network of pdnla.network, the baseline; `published` evaluates the formulas as published, with
keys and values projected from whole maps; `pdnla` is the accelerated network. With `--against`, the package's variants
of another checkout take turns with these; the table's last columns are the medians of the ratios, here over there.

Each variant has its own process, so that the package's setting of the memory allocator affects only the package. The
variants take turns, so that a change of the machine's speed affects all of them; the tables show medians without the
first turn. Peak memory is the largest resident size of a variant's process over all turns, with the interpreter and
torch (on a CUDA device, torch's allocated memory); "beyond torch" is the difference to the size after the imports. The
limit is the number of the network's operations, counted by torch, divided by the rate of torch's fastest large
convolution on this machine, measured in the same run.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast
from unittest.mock import patch

import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pdnla import PDNLA
from pdnla.devices import compiled
from pdnla.errors import UserError
from pdnla.fast import accelerate, for_inference, native
from pdnla.fast.encoder import FastEdges
from pdnla.memory import keep_freed_memory
from pdnla.network.fusion import ModalBranch, PyramidAveragePooling, as_map, positions

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EAGER = ("published float32", "plain float32", "pdnla float32", "pdnla bfloat16")
COMPILED = ("compiled float32", "compiled bfloat16")
EXPORTED = ("onnx float32", "pt2 float32", "pt2 bfloat16") if DEVICE.type == "cpu" else ("onnx float32",)
MAIN_SIZE, MAIN_CHANNEL = 512, 32
TRAINING_CHANNEL, TRAINING_SIZE, TRAINING_BATCH = 8, 128, 12
CONVOLUTIONS = ((64, 128, 512), (128, 256, 256), (256, 512, 128), (512, 512, 64))
"""Input channels, output channels and side of the convolutions that are tried for the machine's best rate."""
BIGGEST_PLAIN = 1024  # the plain network takes 28 GB for 2048×2048


def pictures(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """Return a grey target and a colour reference in [-1, 1], smooth with some noise."""
    generator = torch.Generator().manual_seed(0)

    def picture(channels: int) -> Tensor:
        coarse = torch.rand(batch, channels, size // 8, size // 8, generator=generator)
        smooth = nn.functional.interpolate(coarse, size=size, mode="bilinear")
        grain = torch.rand(smooth.shape, generator=generator)
        return ((0.9 * smooth + 0.1 * grain) * 2 - 1).expand(-1, 3, -1, -1).contiguous()

    return picture(1), picture(3)


def precision_of(variant: str) -> torch.dtype:
    return torch.bfloat16 if variant.endswith("bfloat16") else torch.float32


def autocast(variant: str) -> contextlib.AbstractContextManager[object]:
    half = precision_of(variant) is torch.bfloat16
    return torch.autocast(DEVICE.type, torch.bfloat16) if half else contextlib.nullcontext()


def network(variant: str, channel: int) -> nn.Module:
    """Return the network of a variant; all have the same weights."""
    torch.manual_seed(0)
    net = PDNLA(channel)
    if as_written(variant):
        return (published(net) if variant.startswith("published") else net).to(DEVICE)
    if DEVICE.type == "cpu":
        keep_freed_memory()  # as the commands do
    return net.to(DEVICE)


def as_written(variant: str) -> bool:
    """Return whether a variant is computed without the fast modules."""
    return variant.startswith(("plain", "published"))


class RingedMaps(PyramidAveragePooling):
    """No pooling: keys and values are projected from the whole map, as published."""

    def forward(self, x: Tensor, ring: int = 0) -> Tensor:
        return nn.functional.pad(x, (ring,) * 4)


class PublishedBranch(ModalBranch):
    """A branch of PDMF that projects whole maps before pooling."""

    def forward(self, g: Tensor, pooled: Sequence[Tensor]) -> Tensor:
        queries, own, pool = positions(self.query(g)), positions(g), PyramidAveragePooling()
        mixed = []
        for source, key, value in zip(pooled, self.keys, self.values, strict=True):
            weights = cast(nn.Linear, key).weight, cast(nn.Linear, value).weight
            keys, values = (pool(nn.functional.conv2d(source, weight[..., None, None])) for weight in weights)
            mixed.append(self.mix(torch.cat([own, self.attention(queries, keys, values)], dim=-1)))
        return as_map(torch.tanh(self.fuse(torch.cat(mixed, dim=-1))) + own, *g.shape[2:])


def published(net: PDNLA) -> PDNLA:
    """Return the network with the formulas as published."""
    net.decoder.pool = RingedMaps()
    for fusion in net.decoder.fusions:
        fusion.to_reference.__class__ = fusion.to_target.__class__ = PublishedBranch
    return net


def colouring(variant: str, channel: int, size: int, file: str) -> Callable[[], None]:
    """Return a job that colours one picture."""
    if file:
        from pdnla.export import load_exported

        net: nn.Module = load_exported(file)
        variant = "exported"  # it has its own precision
    else:
        net = network(variant, channel).eval()
        if not as_written(variant):
            net = for_inference(net, precision_of(variant), copied=False)  # as pdnla.Colorizer does
        if variant.startswith("compiled"):
            net = compiled(net, DEVICE)
    target, reference = (picture.to(DEVICE) for picture in pictures(1, size))

    def run() -> None:
        with torch.inference_mode(), autocast(variant):
            net(target, reference)[1].sum().item()

    return run


def training(variant: str, channel: int, size: int, file: str) -> Callable[[], None]:
    """Return a job that takes a training step."""
    net = network(variant, channel).train()
    if not as_written(variant):
        net = accelerate(net)
    target, reference = (picture.to(DEVICE) for picture in pictures(TRAINING_BATCH, size))
    optimizer = torch.optim.Adam(net.parameters(), 1e-4)

    def run() -> None:
        with autocast(variant):
            mid, out = net(target, reference)[:2]
        loss = (mid.float() - reference).abs().mean() + (out.float() - reference).abs().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return run


JOBS = {"colouring": colouring, "training": training}


def work(make: Callable[[], Callable[[], None]]) -> None:
    """Create a job and run it for every input line; print the seconds and this process's memory in GB."""
    imports = 0.0 if DEVICE.type == "cuda" else resident()
    job = make()
    for _ in sys.stdin:
        start = time.perf_counter()
        job()
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() / 1e9 if DEVICE.type == "cuda" else resident()
        print(json.dumps([seconds, peak, imports]), flush=True)


def resident() -> float:
    with contextlib.suppress(OSError):  # what getrusage says begins, on Linux, with the size of the process before
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


class Figures(NamedTuple):
    """The measurements of a variant: median seconds, peak memory and the memory of the imports in GB.

    ``ratios`` are those of its seconds and of its peak to another checkout's.
    """

    seconds: float
    peak: float
    imports: float = 0.0
    ratios: tuple[float, float] | None = None

    @property
    def own(self) -> float:
        """Peak memory minus that of the interpreter and torch before the network is created."""
        return self.peak - self.imports


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Worker:
    """A process that does a variant's job each time that it is asked."""

    def __init__(self, variant: str, options: Sequence[str], checkout: Path | None) -> None:
        script, environment = Path(__file__), dict(os.environ)
        if checkout is not None:
            script = checkout / "scripts" / "benchmark.py"
            environment["PYTHONPATH"] = os.pathsep.join([str(checkout / "src"), str(checkout / "scripts")])
        command = [sys.executable, str(script), "--variant", variant, *options]
        self.variant = variant
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.seconds: list[float] = []
        self.peak = self.imports = 0.0

    def turn(self, counted: bool) -> None:
        """Do the job once."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process of {self.variant} ended with status {self.process.wait()}")
        took, self.peak, self.imports = json.loads(answer)
        if counted:
            self.seconds.append(took)

    def figures(self, other: "Worker | None") -> Figures:
        """Return the medians, with the ratios to another checkout's worker."""
        ratios = None
        if other is not None:
            quotients = [here / there for here, there in zip(self.seconds, other.seconds, strict=True)]
            ratios = statistics.median(quotients), self.peak / other.peak
        return Figures(statistics.median(self.seconds), self.peak, self.imports, ratios)


Files = Mapping[tuple[str, Path | None], Path]


def take_turns(
    job: str,
    variants: Sequence[str],
    channel: int,
    size: int,
    rounds: int,
    files: Files | None = None,
    against: Path | None = None,
) -> dict[str, Figures]:
    """Measure each variant in its own process, after an uncounted run of each."""
    workers: dict[tuple[str, Path | None], Worker] = {}
    for variant in variants:
        for checkout in (None, against) if against and not as_written(variant) else (None,):
            file = str((files or {}).get((variant, checkout), ""))
            options = ["--job", job, "--channel", str(channel), "--size", str(size), "--file", file]
            workers[variant, checkout] = Worker(variant, options, checkout)
    for turn in range(rounds + 1):
        # Neither checkout is always the first.
        for variant, checkout in sorted(
            workers, key=lambda w: (variants.index(w[0]), (w[1] is None) == bool(turn % 2))
        ):
            where = f" of {checkout}" if checkout else ""
            report(f"{job} {size}×{size}, channel {channel}: {variant}{where}, round {turn} of {rounds}")
            workers[variant, checkout].turn(counted=turn > 0)
    for worker in workers.values():
        worker.process.communicate()
    return {v: workers[v, None].figures(workers.get((v, against)) if against else None) for v in variants}


@torch.inference_mode()
def best_rate(dtype: torch.dtype) -> float:
    """Return the operations per second of the fastest of a few 3×3 convolutions."""
    best = 0.0
    for inputs, outputs, side in CONVOLUTIONS:
        for layout in (torch.channels_last, torch.contiguous_format):
            x = torch.randn(1, inputs, side, side, device=DEVICE).to(dtype).contiguous(memory_format=layout)
            weight = torch.randn(outputs, inputs, 3, 3, device=DEVICE).to(dtype).contiguous(memory_format=layout)
            times = []
            for _ in range(6):
                start = time.perf_counter()
                nn.functional.conv2d(x, weight, padding=1)
                if DEVICE.type == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
            best = max(best, 2 * 9 * inputs * outputs * side**2 / min(times[1:]))
    return best


@torch.inference_mode()
def operations(channel: int, size: int) -> dict[str, float]:
    """Count the operations for one picture, for the formulas as published and for the accelerated network."""
    measured = {}
    net = PDNLA(channel).requires_grad_(False)  # the counter hooks into gradients, which are not made here
    for name, module in (("pdnla", for_inference(net)), ("published", published(net))):
        # torch's own convolutions are counted.
        with FlopCounterMode(display=False) as counter, patch.object(native, "vectors_for", lambda *channels: None):
            module(*pictures(1, size))
        measured[name] = float(counter.get_total_flops())
    return measured


def table(title: str, figures: dict[str, Figures], images: int) -> list[str]:
    lines = [f"**{title}**", ""]
    names = ["variant", "seconds", "images/s", "times as fast", "peak GB", "of plain", "beyond torch, GB", "of plain"]
    compared = any(measured.ratios for measured in figures.values())
    if compared:
        names += ["seconds, to the other checkout's", "peak, the same"]
    lines += ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    plain = figures.get("plain float32")
    for name, measured in figures.items():
        speed, whole, own = ("–", "–", "–")
        if plain is not None:
            speed = f"{plain.seconds / measured.seconds:.2f}"
            whole, own = f"{measured.peak / plain.peak:.2f}", f"{measured.own / plain.own:.2f}"
        lines.append(
            f"| {name} | {measured.seconds:.3f} | {images / measured.seconds:.2f} | {speed}"
            f" | {measured.peak:.2f} | {whole} | {measured.own:.2f} | {own} |"
        )
        if compared:
            lines[-1] += " {:.3f} | {:.3f} |".format(*measured.ratios) if measured.ratios else " – | – |"
    return [*lines, ""]


def measure_network(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    variants = {
        (channel, size): variants_of(channel, size, options.variants)
        for channel in options.channels
        for size in options.sizes
        if channel == MAIN_CHANNEL or size == MAIN_SIZE
    }
    if not any(variants.values()):
        raise UserError(
            f"network: no variant is selected; name others with --variants. Compiled and exported ones are measured"
            f" with --channels {MAIN_CHANNEL} --sizes {MAIN_SIZE} only"
        )
    exported = dict.fromkeys(variant for some in variants.values() for variant in some)
    files = export_all(list(exported), folder, options.against)
    measured: dict[str, Any] = {"runs": []}
    lines: list[str] = []
    for (channel, size), some in variants.items():
        if not some:
            continue
        rounds = options.rounds if size <= MAIN_SIZE else 1
        figures = take_turns("colouring", some, channel, size, rounds, files, options.against)
        measured["runs"].append({"channel": channel, "size": size, "figures": as_json(figures)})
        lines += table(f"One {size}×{size} picture, channel {channel}", figures, 1)
        if (channel, size) == (MAIN_CHANNEL, MAIN_SIZE):
            report("counting operations, measuring the machine's best convolution")
            counted = operations(channel, size)
            rates = {n: best_rate(dtype) for n, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))}
            measured |= {"operations": counted, "best_convolution": rates}
            lines += limit(counted, rates, figures)
    return measured, lines


def variants_of(channel: int, size: int, parts: Sequence[str]) -> list[str]:
    """Return the selected variants that are measured at a width and a size."""
    all_of_them = (*EAGER, *COMPILED, *EXPORTED) if (channel, size) == (MAIN_CHANNEL, MAIN_SIZE) else EAGER
    return [v for v in all_of_them if selected(v, parts) and not (as_written(v) and size > BIGGEST_PLAIN)]


def limit(counted: dict[str, float], rates: dict[str, float], figures: dict[str, Figures]) -> list[str]:
    """Compare the variants with the time of all operations at the rate of the machine's best convolution."""
    lines = [
        f"Operations: {counted['published'] / 1e12:.2f}·10¹² as published, {counted['pdnla'] / 1e12:.2f}·10¹² here.",
        "",
        "| numbers | best convolution | all operations at that rate | fastest variant | of the limit |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rate in rates.items():
        own = {v: f.seconds for v, f in figures.items() if v.endswith(name) and not as_written(v)}
        if own:
            fastest = min(own, key=own.__getitem__)
            least = counted["pdnla"] / rate
            lines.append(
                f"| {name} | {rate / 1e9:.0f} GFLOP/s | {least:.2f} s | {fastest}, {own[fastest]:.2f} s"
                f" | {100 * least / own[fastest]:.0f}% |"
            )
    return [*lines, ""]


def export_all(variants: Sequence[str], folder: Path, against: Path | None) -> dict[tuple[str, Path | None], Path]:
    """Export the network for the variants that run from a file, with each checkout's own code."""
    files: dict[tuple[str, Path | None], Path] = {}
    for variant in variants:
        kind, precision = variant.split()
        if kind not in ("onnx", "pt2"):
            continue
        for checkout in (None, against) if against else (None,):
            report(f"exporting {variant}" + (f" of {checkout}" if checkout else ""))
            file = folder / f"{'there' if checkout else 'here'}_{precision}.{kind}"
            code = (
                "import torch; from pdnla import PDNLA; from pdnla.export import export; torch.manual_seed(0); "
                f"export(PDNLA({MAIN_CHANNEL}), {str(file)!r}, {precision!r})"
            )
            source = (checkout or Path(__file__).resolve().parents[1]) / "src"
            subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(source)}, check=True)
            files[variant, checkout] = file
    return files


class Clock(TorchDispatchMode):
    """Adds up the seconds of torch's operations by kind; operations within a timed one do not count."""

    KINDS: ClassVar[dict[str, str]] = {
        "_softmax": "attention's softmax",
        "upsample_bilinear2d": "interpolation",
        **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm"), "1×1 convolutions, attention's products"),
        **dict.fromkeys(("_to_copy", "cat", "clone", "copy_"), "casts, copies, concatenations"),
    }

    def __init__(self) -> None:
        super().__init__()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.within = False

    def timed(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``function`` so that it counts as one operation."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.within:
                return function(*args, **kwargs)
            self.within = True
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[kind] += time.perf_counter() - start
                self.within = False

        return call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        kind = self.KINDS.get(name, "other passes over maps")
        if name == "convolution":
            weight, groups = args[1], args[8]
            if groups > 8:
                kind = "blurs"
            elif weight.shape[2] == 1:
                kind = "1×1 convolutions, attention's products"
            else:
                kind = "3×3 convolutions, torch's"
        return self.timed(kind, func)(*args, **(kwargs or {}))


def measure_profile(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Profile the colouring of one picture; only for the CPU, because other devices run asynchronously."""
    if DEVICE.type != "cpu":
        return {}, []
    target, reference = pictures(1, MAIN_SIZE)
    measured: dict[str, dict[str, float]] = {}
    for variant in [v for v in EAGER if v.startswith("pdnla") and selected(v, options.variants)]:
        net = for_inference(network(variant, MAIN_CHANNEL), precision_of(variant), copied=False)
        runs = []
        for turn in range(options.rounds + 1):
            report(f"profile: {variant}, round {turn} of {options.rounds}")
            clock = Clock()
            with (
                torch.no_grad(),  # in inference mode, torch's layers would come as a whole
                autocast(variant),
                patch.object(native, "conv3x3", clock.timed("3×3 convolutions, this package's", native.conv3x3)),
                patch.object(native, "tanh_", clock.timed("hyperbolic tangents", native.tanh_)),
                patch.object(FastEdges, "forward", clock.timed("Canny edges", FastEdges.forward)),
                clock,
            ):
                net(target, reference)
            if turn:
                runs.append(clock.seconds)
        measured[variant] = {kind: statistics.median(run[kind] for run in runs) for kind in runs[0]}
    variants = list(measured)
    lines = [f"**Where the time goes**, one {MAIN_SIZE}×{MAIN_SIZE} picture, channel {MAIN_CHANNEL}, seconds", ""]
    lines += ["| | " + " | ".join(variants) + " |", "| --- |" + " --- |" * len(variants)]
    for kind in sorted({k for run in measured.values() for k in run}, key=lambda k: -measured[variants[0]].get(k, 0)):
        parts = (
            f"{run.get(kind, 0):.3f} ({100 * run.get(kind, 0) / sum(run.values()):.0f}%)" for run in measured.values()
        )
        lines.append(f"| {kind} | " + " | ".join(parts) + " |")
    return measured, [*lines, ""]


def measure_training(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    variants = [v for v in EAGER if selected(v, options.variants)]
    figures = take_turns(
        "training", variants, TRAINING_CHANNEL, TRAINING_SIZE, options.rounds + 2, against=options.against
    )
    what = f"channel {TRAINING_CHANNEL}, {TRAINING_SIZE}×{TRAINING_SIZE}, batch {TRAINING_BATCH}"
    return as_json(figures), table(f"A training step, {what}", figures, TRAINING_BATCH)


def measure_files(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Measure colouring from files to files, only the network, and the network with an encoded reference."""
    lines = [
        "**From files to files**, 768×512 JPEG in, PNG out, one reference for all, at 512² pixels, images/s",
        "",
        "| channel | network only | files to files | relative to it | with an encoded reference, times as fast |",
        "| --- | --- | --- | --- | --- |",
    ]
    measured: dict[str, Any] = {}
    for channel in options.channels:
        rates = measured[str(channel)] = file_rates(channel, options.rounds, folder / str(channel))
        lines.append(
            f"| {channel} | {rates['network_only']:.2f} | {rates['files']:.2f}"
            f" | {100 * rates['files'] / rates['network_only']:.0f}% | {rates['kept'] / rates['encoded']:.2f} |"
        )
    return measured, [*lines, ""]


def file_rates(channel: int, rounds: int, folder: Path) -> dict[str, float]:
    """Return images per second: only the network, pictures in memory with and without an encoded reference, files."""
    from pdnla import Colorizer
    from pdnla.images.io import Picture
    from pdnla.inference.pipeline import colour_tasks, shared_references
    from pdnla.inference.planning import plan_album
    from pdnla.inference.preprocessing import network_input

    count = max(6, 24 * 8 // channel)
    (folder / "targets").mkdir(parents=True)
    view = Image.fromarray(data.coffee())
    for number in range(count):
        crop = view.crop((number, 0, number + 560, 373)).resize((768, 512)).convert("L")
        crop.save(folder / "targets" / f"{number:03d}.jpg", quality=92)
    guide = Picture(Image.fromarray(data.chelsea()))
    guide.colour.save(folder / "reference.jpg")
    torch.manual_seed(0)
    net = PDNLA(channel)
    net.refiner.to_rgb.weight.data.mul_(0.1)  # colours as of photographs: random ones are nearly all outside sRGB
    colorizer = Colorizer(net)
    colorizer.set_reference(guide)
    paths = sorted((folder / "targets").iterdir())
    grey = (network_input(Picture(Image.open(paths[0])), colorizer.size, grey=True) * 2 - 1).to(colorizer.device)

    half = torch.autocast(colorizer.device.type, torch.bfloat16, enabled=colorizer.dtype is torch.bfloat16)
    colours = (network_input(guide, colorizer.size, grey=False) * 2 - 1).to(colorizer.device)
    with torch.inference_mode(), half:
        code = colorizer.network.encode_reference(colours)

    def network_only() -> None:
        with torch.inference_mode(), half:
            for _ in paths:
                colorizer.network(grey, code).out.sum().item()

    def kept() -> None:
        for path in paths:
            colorizer.colorize(Picture(Image.open(path)))

    def encoded() -> None:
        for path in paths:
            colorizer(Picture(Image.open(path)), guide)

    def files() -> None:
        results = folder / "results"
        tasks = plan_album(folder / "targets", folder / "reference.jpg", results).tasks
        outcomes = list(colour_tasks(colorizer, tasks, 1, shared_references(tasks)))
        assert [outcome.failure for outcome in outcomes] == [None] * count
        shutil.rmtree(results)

    jobs = (network_only, kept, encoded, files)
    seconds: dict[str, list[float]] = {job.__name__: [] for job in jobs}
    for turn in range(rounds + 1):
        for job in jobs:
            report(f"{count} pictures, channel {channel}: {job.__name__}, round {turn} of {rounds}")
            start = time.perf_counter()
            job()
            if turn:
                seconds[job.__name__].append(time.perf_counter() - start)
    return {name: count / statistics.median(values) for name, values in seconds.items()}


def measure_film(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Measure colouring a video file, and one twice as long with a cut, with the default weights."""
    from pdnla import Colorizer
    from pdnla.film.colouring import colour_film
    from pdnla.film.planning import plan_film

    Image.fromarray(data.coffee()).save(folder / "coffee.png")
    Image.fromarray(data.astronaut()).save(folder / "astronaut.png")
    guides = [folder / "coffee.png", folder / "astronaut.png"]
    colorizer = Colorizer()
    measured: dict[str, Any] = {}
    for shots in (1, 2):
        film = folder / f"{shots}.mp4"
        write_film(film, [data.coffee(), data.astronaut()][:shots], options.frames)
        seconds = []
        for turn in range(options.rounds + 1):
            report(f"film of {shots * options.frames} frames, round {turn} of {options.rounds}")
            start = time.perf_counter()
            colour_film(plan_film(film, guides, str(folder / "out.mp4")), colorizer, {}, False, Silent())
            if turn:
                seconds.append(time.perf_counter() - start)
        measured[str(shots)] = shots * options.frames / statistics.median(seconds)
    lines = [
        "**Film**, 480×270 H.264 in and out, default weights, two references, frames/s",
        "",
        f"| one shot, {options.frames} frames | two shots, {2 * options.frames} frames |",
        "| --- | --- |",
        f"| {measured['1']:.2f} | {measured['2']:.2f} |",
        "",
    ]
    return measured, lines


def write_film(path: Path, scenes: Sequence[Any], frames: int) -> None:
    """Write grey shots of a camera that moves over photographs."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 480, 270, "yuv420p"
        for scene in scenes:
            photograph = Image.fromarray(scene).convert("L")
            for number in range(frames):
                view = photograph.resize((480, 270), box=(number, number / 2, number + 400, number / 2 + 225))
                container.mux(stream.encode(av.VideoFrame.from_image(view.convert("RGB"))))
        container.mux(stream.encode())


class Silent:
    """Ignores the events of a film."""

    def remark(self, sentence: str) -> None: ...

    def damage(self, sentence: str) -> None: ...

    def scanned(self, done: int, total: int) -> None: ...

    def coloured(self, done: int, total: int) -> None: ...


PARTS = {
    "network": measure_network,
    "profile": measure_profile,
    "training": measure_training,
    "files": measure_files,
    "film": measure_film,
}


def as_json(figures: dict[str, Figures]) -> dict[str, dict[str, float]]:
    return {variant: f._asdict() for variant, f in figures.items()}


def selected(variant: str, parts: Sequence[str]) -> bool:
    return not parts or any(part in variant.replace("pdnla ", "eager ") for part in parts)


def processor() -> str:
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; several times for several")
    parser.add_argument("--sizes", type=numbers, default=[256, 512, 1024, 2048])
    parser.add_argument("--channels", type=numbers, default=[8, 16, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=48, help="of a shot of the film")
    parser.add_argument(
        "--variants",
        type=lambda text: text.split(","),
        default=[],
        help="parts of their names; eager: the package's, neither compiled nor exported",
    )
    parser.add_argument("--against", type=Path, help="another checkout, whose variants are measured in the same turns")
    parser.add_argument("--out", type=Path, help="a folder for performance.json and performance.md")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--channel", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--file", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        work(lambda: JOBS[options.job](options.variant, options.channel, options.size, options.file))
        return
    machine = f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    measured: dict[str, Any] = {"machine": machine, "command": " ".join(["python", *sys.argv])}
    lines = [machine, ""]
    for part in options.only or PARTS:
        with temporary_folder() as folder:
            try:
                measured[part], own = PARTS[part](options, folder)
            except UserError as error:
                parser.error(str(error))
        lines += own
        if options.out:  # after each part: the next may take half an hour, and be stopped
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "performance.json").write_text(json.dumps(measured, indent=2) + "\n")
            (options.out / "performance.md").write_text("\n".join(lines))
    print("\n".join(lines))


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
