"""Time the network and its training step against a plain transcription of the published network, in one run.

    python scripts/benchmark.py                      # 512×512, channel 32; a training step at channel 8
    python scripts/benchmark.py --size 256 --channel 16 --rounds 5

Each variant has a process of its own, so that what the package asks of the memory allocator counts for the package
alone. They take turns, so that a machine that slows down slows all of them; medians are shown. Peak memory is the
largest resident size of a variant's process over all its turns, the interpreter and torch included.
"""

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pdnla import PDNLA
from pdnla.memory import keep_freed_memory
from plain_pdnla import plain_of

VARIANTS = ("plain float32", "pdnla float32", "pdnla bfloat16")
TRAINING_CHANNEL, TRAINING_SIZE, TRAINING_BATCH = 8, 128, 12


def pictures(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """A grey target and a colour reference in [-1, 1], smooth with some grain."""
    generator = torch.Generator().manual_seed(0)

    def picture(channels: int) -> Tensor:
        coarse = torch.rand(batch, channels, size // 8, size // 8, generator=generator)
        smooth = nn.functional.interpolate(coarse, size=size, mode="bilinear")
        grain = torch.rand(smooth.shape, generator=generator)
        return ((0.9 * smooth + 0.1 * grain) * 2 - 1).expand(-1, 3, -1, -1).contiguous()

    return picture(1), picture(3)


def network(variant: str, channel: int) -> nn.Module:
    """The network of a variant; all have the same weights."""
    torch.manual_seed(0)
    net = PDNLA(channel)
    if variant.startswith("plain"):
        return plain_of(net)
    keep_freed_memory()  # as pdnla.Colorizer and pdnla-train do
    return net


def forward(variant: str, net: nn.Module, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    half = torch.autocast("cpu", torch.bfloat16) if variant.endswith("bfloat16") else contextlib.nullcontext()
    with half:
        result = net(target, reference)
        return result[0], result[1]


def colouring(variant: str, channel: int, size: int) -> Callable[[], None]:
    """A job that colours one picture."""
    net = network(variant, channel).eval()
    target, reference = pictures(1, size)

    def run() -> None:
        with torch.inference_mode():
            forward(variant, net, target, reference)

    return run


def training(variant: str, channel: int, size: int) -> Callable[[], None]:
    """A job that takes a training step."""
    net = network(variant, channel).train()
    target, reference = pictures(TRAINING_BATCH, size)
    optimizer = torch.optim.Adam(net.parameters(), 1e-4)

    def run() -> None:
        mid, out = forward(variant, net, target, reference)
        ((mid.float() - reference).abs().mean() + (out.float() - reference).abs().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


JOBS = {"colouring": colouring, "training": training}


def work(job: Callable[[], None]) -> None:
    """Do the job for every line that comes in, and answer with its seconds and this process's peak memory in GB."""
    for _ in sys.stdin:
        start = time.perf_counter()
        job()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps([seconds, peak]), flush=True)


class Figures(NamedTuple):
    """What was measured of a variant: median seconds, peak memory in GB."""

    seconds: float
    peak: float


def take_turns(job: str, channel: int, size: int, rounds: int) -> dict[str, Figures]:
    """Measure each variant in its own process, after one run of each that is not counted."""
    size_and_channel = ["--channel", str(channel), "--size", str(size)]
    workers = {
        variant: subprocess.Popen(
            [sys.executable, __file__, "--job", job, "--variant", variant, *size_and_channel],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for variant in VARIANTS
    }
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    peaks: dict[str, float] = {}
    for turn in range(rounds + 1):
        for variant, worker in workers.items():
            print(f"\r{job}: {variant}, round {turn} of {rounds}    ", end="", file=sys.stderr, flush=True)
            assert worker.stdin is not None
            assert worker.stdout is not None
            print(file=worker.stdin, flush=True)
            answer = worker.stdout.readline()
            if not answer:
                raise SystemExit(f"{job}: the process of {variant} ended with status {worker.wait()}")
            took, peaks[variant] = json.loads(answer)
            if turn:
                seconds[variant].append(took)
    print(file=sys.stderr)
    for worker in workers.values():
        worker.communicate()
    return {variant: Figures(statistics.median(seconds[variant]), peaks[variant]) for variant in VARIANTS}


def table(title: str, figures: dict[str, Figures], images: int) -> None:
    print(f"\n{title}\n")
    print("| variant | seconds | images/s | times as fast | peak GB | of plain |")
    print("| --- | --- | --- | --- | --- | --- |")
    plain = figures[VARIANTS[0]]
    for name, (seconds, peak) in figures.items():
        print(
            f"| {name} | {seconds:.3f} | {images / seconds:.2f} | {plain.seconds / seconds:.2f}"
            f" | {peak:.2f} | {peak / plain.peak:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channel", type=int, default=32)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="a file to write the figures to as well")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        work(JOBS[options.job](options.variant, options.channel, options.size))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    one = take_turns("colouring", options.channel, options.size, options.rounds)
    table(f"One {options.size}×{options.size} picture, channel {options.channel}", one, 1)
    steps = take_turns("training", TRAINING_CHANNEL, TRAINING_SIZE, options.rounds)
    what = f"channel {TRAINING_CHANNEL}, {TRAINING_SIZE}×{TRAINING_SIZE}, batch {TRAINING_BATCH}"
    table(f"A training step, {what}", steps, TRAINING_BATCH)
    if options.json:
        with open(options.json, "w") as file:  # noqa: PTH123
            json.dump({"colouring": one, "training": steps}, file, indent=2)


if __name__ == "__main__":
    main()
