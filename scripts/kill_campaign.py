"""Kill commands, fill their disk and remove their folders: nothing is lost, half written or left over.

    python scripts/kill_campaign.py                           # all parts: about an hour on two cores
    python scripts/kill_campaign.py --only album --pictures 1000 --kills 20
    python scripts/kill_campaign.py --only training --seeds 3 --kills 3

Parts:

- `album`: `pdnla-colorize` colours an album and is killed (SIGKILL to all of its processes) at random moments, then run
  to the end. Every picture must have the bytes that an undisturbed run gives, and no other file may be left.
- `disk`: the results' folder has too little space (a small tmpfs, which needs root). What was written must be whole,
  the full disk be said with exit status 2, and the same command must finish when there is space again.
- `removed`: the results' folder is removed while the command runs. There must be no traceback, and the same command
  must finish.
- `training`: for each seed, a short `pdnla-train` is killed and resumed; the weights must be those, bit for bit, of a
  run that was not disturbed.
- `shards`: `pdnla-prepare` is killed, then run to the end. The shards must have the bytes of an undisturbed run.

Prints a table in Markdown; the exit status is 1 if something was lost, differed or was left over.
"""

import argparse
import contextlib
import functools
import hashlib
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

BIN = Path(sys.executable).parent
TRAINING = (
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.max_steps=30",
    "trainer.val_check_interval=1000",
    "callbacks.last.every_n_train_steps=2",
    "model.channel=4",
    "data.batch_size=4",
    "data.size=32",
    "data.repeats=2",
    "data.workers=1",
)
CHECKPOINTS = 15  # that such a run writes


class Finding(NamedTuple):
    """What a part of the campaign did, and what was wrong."""

    part: str
    did: str
    wrong: list[str]


def command_line(name: str, *arguments: object) -> list[str]:
    return [str(BIN / name), *map(str, arguments)]


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own."""
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def run_to_the_end(command: Sequence[str], log: Path) -> tuple[int, float]:
    """Return a command's exit status and its seconds."""
    began = time.monotonic()
    return start(command, log).wait(), time.monotonic() - began


def kill(command: Sequence[str], due: Callable[[], bool], log: Path) -> bool:
    """Start a command and kill all of its processes as soon as it is due; return whether it still ran."""
    process = start(command, log)
    while process.poll() is None:
        if due():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.02)
    return False


def after(seconds: float) -> Callable[[], bool]:
    """Return what is due after so many seconds from now."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() >= deadline


def after_more(count: Callable[[], int], more: int, seconds: float) -> Callable[[], bool]:
    """Return what is due so many seconds after a count has risen by ``more``."""
    least, deadline = count() + more, math.inf

    def due() -> bool:
        nonlocal deadline
        if deadline == math.inf and count() >= least:
            deadline = time.monotonic() + seconds
        return time.monotonic() >= deadline

    return due


def writings(file: Path) -> Callable[[], int]:
    """Return what counts how often a file was seen to be new or changed."""
    seen: set[int] = set()

    def count() -> int:
        with contextlib.suppress(FileNotFoundError):
            seen.add(file.stat().st_mtime_ns)
        return len(seen)

    return count


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def differences(expected: dict[str, str], actual: dict[str, str]) -> list[str]:
    """Return what differs between two folders' contents, one line per file."""
    wrong = [f"{name}: missing" for name in expected.keys() - actual.keys()]
    wrong += [f"{name}: left over" for name in actual.keys() - expected.keys()]
    return sorted(
        wrong + [f"{name}: differs" for name in expected.keys() & actual.keys() if expected[name] != actual[name]]
    )


def tracebacks(log: Path) -> list[str]:
    text = log.read_text(errors="replace")
    return [f"{log.name}: a traceback"] if "Traceback" in text else []


def photographs(folder: Path, count: int, seed: int) -> None:
    """Write small colourful pictures of smooth noise, two classes of them."""
    chance = np.random.default_rng(seed)
    for number in range(count):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(chance.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((96, 80), Image.Resampling.BICUBIC).save(folder / "ab"[number % 2] / f"{number:04d}.png")


def colour_command(folder: Path, out: Path) -> list[str]:
    """Return the command that colours the campaign's album."""
    size = ("--size", 64, "--weights", "pdnla_tiny", "--device", "cpu")
    return command_line("pdnla-colorize", folder / "photographs", folder / "reference.png", "--out", out, *size)


@functools.cache
def undisturbed(folder: Path, pictures: int, seed: int) -> tuple[dict[str, str], float]:
    """Make an album, colour it, and return the results' contents and the seconds that it took."""
    photographs(folder / "photographs", pictures, seed)
    shutil.copy(next((folder / "photographs").rglob("*.png")), folder / "reference.png")
    status, seconds = run_to_the_end(colour_command(folder, folder / "undisturbed"), folder / "undisturbed.log")
    if status:
        raise SystemExit(f"the undisturbed run ended with status {status}: {folder / 'undisturbed.log'}")
    return contents(folder / "undisturbed"), seconds


def kill_album(folder: Path, options: argparse.Namespace) -> Finding:
    expected, _ = undisturbed(folder.parent, options.pictures, options.seed)
    chance, log, out = random.Random(options.seed), folder / "album.log", folder / "out"
    command = colour_command(folder.parent, out)
    killed, share = 0, 2 * options.pictures // (options.kills + 5)

    def coloured() -> int:
        return sum(1 for _ in out.rglob("[!.]*.png"))

    for _ in range(options.kills):
        due = after_more(coloured, chance.randint(0, share), chance.uniform(0, 0.3))
        killed += kill(command, due, log)
    wrong = []
    if out.exists():
        whole = {name: digest for name, digest in contents(out).items() if name in expected}
        wrong += [f"{name}: half written" for name, digest in whole.items() if expected[name] != digest]
    status, _ = run_to_the_end(command, log)
    wrong += [f"exit status {status}"] * (status != 0) + differences(expected, contents(out)) + tracebacks(log)
    return Finding("album", f"{options.pictures} pictures, {killed} kills", wrong)


def fill_disk(folder: Path, options: argparse.Namespace) -> Finding:
    expected, _ = undisturbed(folder.parent, options.pictures, options.seed)
    disk, log = folder / "disk", folder / "disk.log"
    disk.mkdir()
    size = sum(path.stat().st_size for path in (folder.parent / "undisturbed").rglob("*.png"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        return Finding("disk", f"not run: {done.stderr.strip()}", [])
    try:
        out = disk / "out"
        command = colour_command(folder.parent, out)
        status, _ = run_to_the_end(command, log)
        wrong = [f"exit status {status} on the full disk"] * (status != 2) + tracebacks(log)
        actual = {name: digest for name, digest in contents(out).items() if name.endswith(".png")}
        wrong += [f"{name}: half written" for name, digest in actual.items() if expected.get(name) != digest]
        subprocess.run(["mount", "-o", f"remount,size={size * 4}", str(disk)], check=True)
        status, _ = run_to_the_end(command, log)
        wrong += [f"exit status {status} with space"] * (status != 0) + differences(expected, contents(out))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return Finding("disk", f"{len(actual)} of {options.pictures} pictures fitted", wrong)


def remove_folder(folder: Path, options: argparse.Namespace) -> Finding:
    expected, seconds = undisturbed(folder.parent, options.pictures, options.seed)
    out, log = folder / "out", folder / "removed.log"
    command = colour_command(folder.parent, out)
    process = start(command, log)
    while not list(out.rglob("*.png")) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.1 * seconds)
    shutil.rmtree(out, ignore_errors=True)
    status = process.wait()
    wrong = [f"exit status {status}"] * (status not in (0, 1)) + tracebacks(log)
    status, _ = run_to_the_end(command, log)
    wrong += [f"exit status {status} afterwards"] * (status != 0) + differences(expected, contents(out))
    return Finding("removed", f"{options.pictures} pictures, the folder removed once", wrong)


def kill_training(folder: Path, options: argparse.Namespace) -> Finding:
    wrong, killed, log = [], 0, folder / "training.log"
    for seed in range(options.seed, options.seed + options.seeds):
        whole, cut = folder / f"whole_{seed}", folder / f"cut_{seed}"
        command = command_line("pdnla-train", *TRAINING, f"seed={seed}")
        status, _ = run_to_the_end([*command, f"hydra.run.dir={whole}"], log)
        wrong += [f"seed {seed}: exit status {status}"] * (status != 0)
        chance = random.Random(seed)
        for _ in range(options.kills):
            resumed = [f"ckpt_path={cut}"] if list(cut.glob("*.ckpt")) else []
            more = chance.randint(1, 2 * CHECKPOINTS // (options.kills + 2))
            due = after_more(writings(cut / "last.ckpt"), more, chance.uniform(0, 0.5))
            killed += kill([*command, f"hydra.run.dir={cut}", *resumed], due, log)
        resumed = [f"ckpt_path={cut}"] if list(cut.glob("*.ckpt")) else []
        status, _ = run_to_the_end([*command, f"hydra.run.dir={cut}", *resumed], log)
        wrong += [f"seed {seed}: exit status {status} in the end"] * (status != 0)
        if status == 0:
            expected, got = (torch.load(run / "last.ckpt", weights_only=True)["state_dict"] for run in (whole, cut))
            same = expected.keys() == got.keys() and all(torch.equal(expected[name], got[name]) for name in expected)
            wrong += [f"seed {seed}: the weights differ"] * (not same)
        hidden = (path for path in cut.rglob(".*") if path.is_file())  # as temporary files are
        wrong += [f"{path}: left over" for path in hidden]
    return Finding("training", f"{options.seeds} seeds, {killed} kills", wrong + tracebacks(log))


def kill_shards(folder: Path, options: argparse.Namespace) -> Finding:
    photographs(folder / "photographs", options.pictures, options.seed)
    log, out, whole = folder / "shards.log", folder / "shards", folder / "whole"

    def command(out: Path) -> list[str]:
        return command_line("pdnla-prepare", folder / "photographs", out, "--shard-size", 1, "--workers", 2)

    status, seconds = run_to_the_end(command(whole), log)
    wrong = [f"exit status {status}"] * (status != 0)
    chance = random.Random(options.seed)
    killed = sum(kill(command(out), after(chance.uniform(0.3, 0.95) * seconds), log) for _ in range(options.kills))
    status, _ = run_to_the_end(command(out), log)
    wrong += [f"exit status {status} in the end"] * (status != 0) + differences(contents(whole), contents(out))
    return Finding("shards", f"{options.pictures} photographs, {killed} kills", wrong + tracebacks(log))


PARTS: dict[str, Callable[[Path, argparse.Namespace], Finding]] = {
    "album": kill_album,
    "disk": fill_disk,
    "removed": remove_folder,
    "training": kill_training,
    "shards": kill_shards,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; several times for several")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="of the training")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures and of the moments")
    parser.add_argument("--keep", type=Path, help="a new folder for all files and logs")
    options = parser.parse_args()
    findings = []
    with tempfile.TemporaryDirectory() as temporary:
        for part in options.only or PARTS:
            folder = (options.keep or Path(temporary)) / part
            folder.mkdir(parents=True)
            print(f"{part} ...", file=sys.stderr, flush=True)
            findings.append(PARTS[part](folder, options))
    print("| part | what was done | wrong |\n| --- | --- | --- |")
    for part, did, wrong in findings:
        print(f"| {part} | {did} | {len(wrong)} |")
    for part, _, wrong in findings:
        for line in wrong[:20]:
            print(f"{part}: {line}")
    return int(any(finding.wrong for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
