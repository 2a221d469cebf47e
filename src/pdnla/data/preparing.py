"""Writing shards from a folder of photographs: each photograph is verified, each shard is written atomically."""

import csv
import hashlib
import io
import json
import multiprocessing
import os
import signal
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from pdnla.data.held_out import without_held_out
from pdnla.data.shards import FORMAT, index_path, read_plan, read_shard_index, sample_key, shard_path
from pdnla.errors import UserError
from pdnla.files import remove_stale_temporaries, replacing
from pdnla.images.greys import open_colour
from pdnla.images.io import list_images
from pdnla.processes import become_child

GREY = "grey"
"""The reason in ``left_out`` of a photograph that :func:`~pdnla.images.greys.is_grey`."""

_SEED = 0  # seed of the order of photographs in shards
_VERIFIED_SIDE = 32  # a JPEG is read completely at any scale; this is enough to find grey ones


class ShardJob(NamedTuple):
    """A shard to write: its number, the photographs' paths below ``folder``, and the numbers of their classes.

    A photograph whose shorter side is larger than ``size`` is reduced to it; 0 keeps all unchanged.
    """

    folder: Path
    out: Path
    number: int
    paths: list[str]
    classes: list[int]
    size: int


class ShardPlan(NamedTuple):
    """The shards to write, and the record of the options."""

    jobs: list[ShardJob]
    record: dict[str, Any]


def plan_shards(
    folder: Path, out: Path, shard_size: int, size: int, left_out: Callable[[str], None] | None = None
) -> ShardPlan:
    """Assign the photographs below a folder to shards, in a fixed order that mixes the classes.

    People that :mod:`pdnla.data.held_out` names are left out: shards are for training.

    Args:
        folder: a tree of photographs; the class of each is its folder.
        out: folder of the shards.
        shard_size: megabytes of photographs in a shard, before they are reduced.
        size: see :class:`ShardJob`.
        left_out: called with a sentence for each folder that cannot be listed; None makes such a folder an error.

    Raises:
        UserError: the folder is missing, holds no image, or is ``out``.
    """
    if out.resolve() == folder.resolve():
        raise UserError(f"{out}: is the folder of the photographs; name another folder for the shards")
    images = without_held_out(list_images(folder, left_out, natural=False), folder)
    paths = [path.relative_to(folder).as_posix() for path in images]
    lengths = np.array([_length(path) for path in images])
    names = [path.parent.relative_to(folder).as_posix() for path in images]
    classes = sorted(set(names))
    number_of = {name: number for number, name in enumerate(classes)}
    order = np.random.default_rng(_SEED).permutation(len(images))
    before = np.cumsum(lengths[order]) - lengths[order]
    starts = np.flatnonzero(np.diff(before // (shard_size * 1_000_000), prepend=-1))
    jobs = [
        ShardJob(folder, out, number, [paths[i] for i in part], [number_of[names[i]] for i in part], size)
        for number, part in enumerate(np.split(order, starts[1:]))
    ]
    listed = hashlib.sha256()
    for path, length in zip(paths, lengths, strict=True):
        listed.update(os.fsencode(f"{path}\0{length}\0"))
    record = {
        "format": FORMAT,
        "photographs": len(images),
        "sha256": listed.hexdigest(),
        "shard_size": shard_size,
        "size": size,
        "shards": len(jobs),
        "classes": classes,
    }
    return ShardPlan(jobs, record)


def discard(out: Path) -> None:
    """Remove the shards in a folder, their plan and their list of what was left out."""
    _remove([out / "plan.json", out / "left_out.csv", *out.glob("shard-*.json"), *out.glob("shard-*.tar")])


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # such as a broken link; the reason is reported when the photograph is left out
        return 0


def begin(plan: ShardPlan, out: Path, overwrite: bool) -> None:
    """Write ``plan.json`` or check the existing one; remove temporary files of a killed run.

    Args:
        plan: the plan.
        out: folder of the shards.
        overwrite: remove the shards in the folder.

    Raises:
        UserError: ``out`` holds shards of other photographs or options, or cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name a folder for the shards")
    if overwrite:
        discard(out)
    elif (out / "plan.json").exists():
        existing = read_plan(out)
        for key, what in (("shard_size", "--shard-size"), ("size", "--size")):
            if existing.get(key) != plan.record[key]:
                raise UserError(
                    f"{out}: was begun with {what} {existing.get(key)}; repeat that, choose another folder, or add"
                    " --overwrite to start again"
                )
        if existing != plan.record:
            raise UserError(
                f"{out}: holds shards of other photographs; choose another folder, or add --overwrite to start again"
            )
    elif any(out.glob("shard-*")):
        raise UserError(f"{out}: holds shards without plan.json; choose another folder, or add --overwrite")
    remove_stale_temporaries(out)
    with replacing(out / "plan.json") as temporary:
        temporary.write_text(json.dumps(plan.record, indent=1))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be removed ({error.strerror}); check its permissions") from error


class Written(NamedTuple):
    """The contents of a written shard: the number of photographs, and a path and a reason for each omitted one."""

    kept: int
    left_out: list[tuple[str, str]]


def write_shard(job: ShardJob) -> Written:
    """Write a shard and then its index, each atomically.

    Each photograph is decoded; unreadable and grey ones are left out.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    kept: list[tuple[str, int]] = []
    left_out: list[tuple[str, str]] = []
    with replacing(shard_path(job.out, job.number)) as temporary:
        # USTAR without times and owners: the same photographs are the same bytes.
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for path, number in zip(job.paths, job.classes, strict=True):
                picture = _encoded(job.folder / path, job.size)
                if isinstance(picture, str):
                    left_out.append((path, picture))
                    continue
                key = sample_key(job.number, len(kept))
                _add(tar, f"{key}.{picture.suffix}", picture.content)
                _add(tar, f"{key}.cls", str(number).encode())
                kept.append((path, number))
        with tarfile.open(temporary) as tar:
            pictures = [member for member in tar if not member.name.endswith(".cls")]
        length = temporary.stat().st_size
    index = {
        "bytes": length,
        "names": [member.name for member in pictures],
        "offsets": [member.offset_data for member in pictures],
        "sizes": [member.size for member in pictures],
        "classes": [number for _, number in kept],
        "paths": [path for path, _ in kept],
        "left_out": left_out,
    }
    with replacing(index_path(job.out, job.number)) as temporary:
        temporary.write_text(json.dumps(index))
    return Written(len(kept), left_out)


class _Encoded(NamedTuple):
    """A picture in the form that a shard holds."""

    suffix: str
    content: bytes


class _InMemory(NamedTuple):
    """A photograph whose bytes have been read, so that the verified and the written bytes are the same."""

    path: Path
    content: bytes

    def open(self, mode: str = "rb") -> BinaryIO:
        return io.BytesIO(self.content)

    def __str__(self) -> str:
        return self.path.name


def _encoded(path: Path, size: int) -> _Encoded | str:
    """Return a photograph in the form that a shard holds, or the reason why it is left out."""
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # harmless, such as odd EXIF data
            rgb = open_colour(_InMemory(path, content), size or _VERIFIED_SIDE)
            with Image.open(io.BytesIO(content)) as image:
                kind, shorter = image.format or "", min(image.size)
    except UserError as error:
        return str(error).removeprefix(f"{path.name}: ")
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if rgb is None:
        return GREY
    if not size or shorter <= size:
        # An MPO, as telephones write, begins with a JPEG.
        return _Encoded({"JPEG": "jpg", "MPO": "jpg"}.get(kind, kind.lower()), content)
    scale = size / min(rgb.size)
    scaled = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BICUBIC)
    encoded = io.BytesIO()
    scaled.save(encoded, "JPEG", quality=95, subsampling="4:4:4")
    return _Encoded("jpg", encoded.getvalue())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def written(job: ShardJob) -> Written | None:
    """Return the contents of a written shard; None unless the shard and its index exist and agree."""
    index = read_shard_index(job.out, job.number)
    if index is None:
        return None
    return Written(len(index["paths"]), [(path, reason) for path, reason in index["left_out"]])


def write_left_out(out: Path, left_out: Iterable[tuple[str, str]]) -> None:
    """Write ``left_out.csv``: a line with a path and a reason for each photograph that no shard holds."""
    with (
        replacing(out / "left_out.csv") as temporary,
        # File names may be invalid UTF-8.
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows([("photograph", "reason"), *sorted(left_out)])


def write_shards(jobs: Sequence[ShardJob], workers: int) -> Iterator[tuple[ShardJob, Written]]:
    """Write shards in one process or several, and yield each when it is finished.

    Raises:
        UserError: the disk is full, the folder cannot be written to, or a process was killed.
    """
    workers = min(workers, len(jobs))
    if workers < 2:
        yield from ((job, write_shard(job)) for job in jobs)
        return
    # Spawned, not forked, because this process already has threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=become_child, initargs=(signal.SIG_DFL,))
    try:
        futures = {pool.submit(write_shard, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process that writes shards was killed, perhaps because memory ran out; repeat the command with"
            " fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        remove_stale_temporaries(jobs[0].out)
