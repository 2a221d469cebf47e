"""Time the network and its training step against a plain transcription of the published network, in one run.

    python scripts/benchmark.py                      # 512×512, channel 32; a training step at channel 8
    python scripts/benchmark.py --size 256 --channel 16 --rounds 5

The variants take turns, so that a machine that slows down slows all of them; medians are shown. Peak memory is the
largest resident size of a process that runs one variant once, the interpreter and torch included.
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

import torch
from torch import Tensor, nn

from pdnla import PDNLA
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


def networks(channel: int, variants: tuple[str, ...] = VARIANTS) -> dict[str, nn.Module]:
    """The networks of the variants, all with the same weights."""
    torch.manual_seed(0)
    net = PDNLA(channel)
    made: dict[str, nn.Module] = {}
    for variant in variants:
        made[variant] = plain_of(net) if variant.startswith("plain") else net
    return made


def forward(variant: str, net: nn.Module, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    half = torch.autocast("cpu", torch.bfloat16) if variant.endswith("bfloat16") else contextlib.nullcontext()
    with half:
        result = net(target, reference)
        return result[0], result[1]


def take_turns(jobs: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each job, after one run of each that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if turn:
                seconds[name].append(time.perf_counter() - start)
            print(f"\r{name}, round {turn} of {rounds}    ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: statistics.median(values) for name, values in seconds.items()}


def inference(channel: int, size: int, rounds: int) -> dict[str, float]:
    target, reference = pictures(1, size)

    def job(variant: str, net: nn.Module) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                forward(variant, net, target, reference)

        return run

    return take_turns({v: job(v, net.eval()) for v, net in networks(channel).items()}, rounds)


def training(rounds: int) -> dict[str, float]:
    target, reference = pictures(TRAINING_BATCH, TRAINING_SIZE)

    def job(variant: str, net: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.Adam(net.parameters(), 1e-4)

        def run() -> None:
            mid, out = forward(variant, net, target, reference)
            ((mid.float() - reference).abs().mean() + (out.float() - reference).abs().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    return take_turns({v: job(v, net.train()) for v, net in networks(TRAINING_CHANNEL).items()}, rounds)


def peak_of(variant: str, channel: int, size: int) -> float:
    """Peak resident memory in GB of a process that colours one picture, measured there."""
    command = [sys.executable, __file__, "--peak-of", variant, "--channel", str(channel), "--size", str(size)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def table(title: str, seconds: dict[str, float], images: int, peaks: dict[str, float] | None = None) -> None:
    print(f"\n{title}\n")
    print("| variant | seconds | images/s | times as fast |" + (" peak GB | of plain |" if peaks else ""))
    print("| --- | --- | --- | --- |" + (" --- | --- |" if peaks else ""))
    plain = seconds[VARIANTS[0]]
    for name, value in seconds.items():
        row = f"| {name} | {value:.3f} | {images / value:.2f} | {plain / value:.2f} |"
        if peaks:
            row += f" {peaks[name]:.2f} | {peaks[name] / peaks[VARIANTS[0]]:.2f} |"
        print(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channel", type=int, default=32)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="a file to write the figures to as well")
    parser.add_argument("--peak-of", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        (net,) = networks(options.channel, (options.peak_of,)).values()
        with torch.inference_mode():
            forward(options.peak_of, net.eval(), *pictures(1, options.size))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
        return
    peaks = {variant: peak_of(variant, options.channel, options.size) for variant in VARIANTS}
    seconds = inference(options.channel, options.size, options.rounds)
    steps = training(options.rounds)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    table(f"One {options.size}×{options.size} picture, channel {options.channel}", seconds, 1, peaks)
    what = f"channel {TRAINING_CHANNEL}, {TRAINING_SIZE}×{TRAINING_SIZE}, batch {TRAINING_BATCH}"
    table(f"A training step, {what}", steps, TRAINING_BATCH)
    if options.json:
        figures = {"inference": seconds, "peak": peaks, "training": steps}
        with open(options.json, "w") as file:  # noqa: PTH123
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
