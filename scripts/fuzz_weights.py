"""Damage weights files and read them: each must be read, or refused in one sentence, and no payload runs.

    python scripts/fuzz_weights.py --files 500 --seed 0

Kinds: the project's safetensors and training checkpoints, the authors' published checkpoint, a pickle in torch's older
format, and ONNX. Each file is read in its own process with limited memory and time, and colours a small picture if it
can be read. `.pt2` files are left out: they contain machine code, which loading executes.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import pickle
import random
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fuzzing import BYTES, GOOD, Result, attempt, table
from pdnla import PDNLA
from pdnla.export import export, load_exported
from pdnla.models import describe
from pdnla.published import published_names, published_shape
from pdnla.weights import load_network, save_weights

KINDS = ("safetensors", "checkpoint", "published", "old_pickle", "onnx")
SECONDS, MEMORY = 20, 3 << 30  # of a file: the limit, and what may be added to the process
RAN = "ran"  # the file that a payload writes


class Payload:
    """An object whose unpickling calls something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = (function, arguments)

    def __reduce__(self) -> Any:
        return self.called


# --- whole files, small


def whole_files(kinds: Sequence[str]) -> dict[str, bytes]:
    """Return an intact file of each kind."""
    torch.manual_seed(0)
    network = PDNLA(4)
    state = network.state_dict()
    training = {f"{part}.{name}": tensor for part in ("network", "ema") for name, tensor in state.items()}
    checkpoint = {
        "state_dict": training,
        "global_step": 7,
        "model": describe(network)._asdict(),
        "optimizer_states": [],
    }
    theirs = {
        name: state[ours].reshape(published_shape(ours, state[ours])) for ours, name in published_names(state).items()
    }
    published = {"args": argparse.Namespace(channel=4, size=256), "PDNLA_ema": theirs}
    files = {"checkpoint": saved(checkpoint), "published": saved(published), "old_pickle": saved(checkpoint, old=True)}
    with tempfile.TemporaryDirectory() as folder:
        save_weights(network, f"{folder}/w.safetensors", "a test", half=True)
        files["safetensors"] = Path(folder, "w.safetensors").read_bytes()
        if "onnx" in kinds:
            export(network, f"{folder}/w.onnx", source="a test")
            files["onnx"] = Path(folder, "w.onnx").read_bytes()
    return {kind: files[kind] for kind in kinds}


def saved(content: Any, old: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


# --- damages that leave the container sound

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3,
    5,
    10**6,
    10**12,
    2**70,
    1.5,
    float("nan"),
    "",
    "x\ny",
    "x" * 10**5,
    [],
    {},
    [[[]]],
    {"a": 1},
)


def odd_safetensors(data: bytearray, chance: random.Random) -> bytearray:
    """Change something in the header's JSON: a shape, a type, offsets, or the metadata."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    about = header["__metadata__"]
    name = chance.choice([n for n in header if n != "__metadata__"])
    match chance.randrange(8):
        case 0:
            about[chance.choice(list(about))] = chance.choice([str(odd) for odd in ODD])
        case 1:
            about["arguments"] = json.dumps(
                {chance.choice(("channel", "extra", "depth", "backbone")): chance.choice(ODD)}
            )
        case 2:
            about["model"] = chance.choice(("pdnla_semantic", "semantic_warp", "os.system", "torch.nn.Linear", "../x"))
        case 3:
            header[name]["dtype"] = chance.choice(("F64", "BF16", "I64", "BOOL", "F8_E4M3", "C64", "F4", "x"))
        case 4:
            header[name]["shape"] = chance.choice(
                ([], [0], [10**12], [2**63, 2], [-1], ["x"], header[name]["shape"][::-1])
            )
        case 5:
            header[name]["data_offsets"] = [chance.choice((0, 1, 10**12, -1)), chance.choice((0, 2, 10**12))]
        case 6:
            header["x" * chance.choice((1, 10**5)) + chance.choice(("", "\n", "\x1b[31m"))] = header.pop(name)
        case 7:
            del about[chance.choice(list(about))]
    text = json.dumps(header).encode()
    return bytearray(struct.pack("<Q", chance.choice((len(text), len(text), len(text), 2**40))) + text + body)


def payload(chance: random.Random) -> Payload:
    touch = f"open({RAN!r}, 'w').close()"
    return chance.choice(
        (
            Payload(eval, touch),
            Payload(exec, touch),
            Payload(os.system, f"touch {RAN}"),
            Payload(Path(RAN).touch),
            Payload(__import__("subprocess").call, ["touch", RAN]),
            Payload(__import__("runpy").run_path, RAN),
            Payload(torch.load, RAN),
            Payload(getattr, Path(RAN), "touch"),
            Payload(PDNLA, 10**4),
        )
    )


def odd_tensor(chance: random.Random) -> Any:
    """Return an invalid weight: another kind of tensor, or a small one that claims to be large."""
    makers: tuple[Callable[[], Any], ...] = (
        lambda: torch.zeros(1).expand(10**12),
        lambda: torch.zeros(1, dtype=torch.float16).expand(10**6, 10**6),
        lambda: torch.zeros(2, 2).to_sparse(),
        lambda: torch.zeros(2, device="meta"),
        lambda: torch.zeros(2, dtype=torch.complex64),
        lambda: torch.zeros(2, dtype=torch.bool),
        lambda: torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
        lambda: torch.zeros(0),
        lambda: torch.zeros(()),
        lambda: chance.choice(ODD),
    )
    return chance.choice(makers)()


def odd_pickle(data: bytearray, chance: random.Random) -> bytearray:
    """Change the contents of a pickle: a name, a tensor, the description of the network, or add a payload."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        content: dict[Any, Any] = torch.load(io.BytesIO(data), weights_only=True)
    inner = "PDNLA_ema" if "PDNLA_ema" in content else "state_dict"
    state = content[inner]
    name = chance.choice(list(state))
    match chance.randrange(9):
        case 0:
            state[name] = odd_tensor(chance)
        case 1:
            state[chance.choice((b"x", 7, None, "x\ny", "ema." + "x" * 10**5))] = state.pop(name)
        case 2:
            content[inner] = chance.choice(ODD)
        case 3:
            content["args"] = chance.choice(
                (argparse.Namespace(), argparse.Namespace(channel=chance.choice(ODD)), *ODD)
            )
        case 4:
            content["model"] = chance.choice(ODD)
        case 5:
            said = content.get("model") or {}
            content["model"] = {**said, chance.choice(("model", "arguments", "module")): chance.choice(ODD)}
        case 6:
            content["model"] = {"model": "pdnla", "arguments": {"channel": chance.choice(ODD)}, "module": ""}
        case 7:
            content["global_step"] = chance.choice(ODD)
        case 8:
            others: tuple[Any, ...] = ([content], {}, {"model": content}, state, "x", 7)
            content = chance.choice(others)
    return bytearray(saved(content, old=data[:2] != b"PK"))


def with_payload(data: bytearray, chance: random.Random) -> bytearray:
    """Insert an object that runs code into a pickle: in one of torch's formats, or a plain one."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        content: dict[Any, Any] = torch.load(io.BytesIO(data), weights_only=True)
    inner = "PDNLA_ema" if "PDNLA_ema" in content else "state_dict"
    place = chance.choice((content, content[inner]))
    place[chance.choice([*place, "extra"])] = payload(chance)
    plain = chance.random() < 0.2
    return bytearray(pickle.dumps(payload(chance)) if plain else saved(content, old=data[:2] != b"PK"))


def damages(kind: str) -> list[Callable[[bytearray, random.Random], bytearray]]:
    """Return the damages for a kind of file; the more promising ones occur several times."""
    if kind == "safetensors":
        return [*BYTES, *[odd_safetensors] * 5]
    if kind == "onnx":
        return list(BYTES)
    return [*BYTES, *[odd_pickle] * 5, with_payload, with_payload]


# --- reading in a process of its own


def use(file: Path) -> None:
    """Read a file as the commands do and colour a small picture."""
    torch.set_num_threads(1)  # the parent's threads are not in this process
    pictures = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    network = load_exported(file) if file.suffix == ".onnx" else load_network(file)
    with torch.inference_mode():
        network(*pictures)


def campaign(
    files: int, seed: int, folder: Path, kinds: Sequence[str] = KINDS, seconds: int = SECONDS
) -> dict[tuple[str, str], list[Result]]:
    """Damage and read the given number of files, of each kind in turn; return the outcomes by kind and damage."""
    whole, chance = whole_files(kinds), random.Random(seed)
    results_of: dict[tuple[str, str], list[Result]] = collections.defaultdict(list)
    for number in range(files):
        kind = list(whole)[number % len(whole)]
        damage = chance.choice(damages(kind))
        file = folder / ("damaged.onnx" if kind == "onnx" else "damaged.pt")
        file.write_bytes(damage(bytearray(whole[kind]), chance))
        result = attempt(file, use, seconds, MEMORY)
        if (folder / RAN).exists():
            (folder / RAN).unlink()
            result = result._replace(outcome="payload ran")
        if result.outcome not in GOOD:
            kept = folder / f"bad_{number}{file.suffix}"
            file.rename(kept)
            print(f"{kept.name}: {kind}, {damage.__name__}: {result.outcome}: {result.said[:300]}", flush=True)
        results_of[kind, damage.__name__].append(result)
    return results_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files that were neither read nor refused")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="onnx needs pdnla[export]")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="that a file may take")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        results_of = campaign(options.files, options.seed, folder.resolve(), options.kinds, options.seconds)
    print(table(results_of))
    return int(any(result.outcome not in GOOD for results in results_of.values() for result in results))


if __name__ == "__main__":
    sys.exit(main())
