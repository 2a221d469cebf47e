"""Photographs in a few large files: WebDataset shards, and an index beside each that says where its pictures lie.

A shard is a plain tar of ``<key>.jpg`` and ``<key>.cls`` members, an open format that ``tar`` and the webdataset
library read. A million small files are slow to list, to copy and, on a disk that many share, to open; a shard is one
file per thousand photographs or so. Its index, ``shard-000000.json``, gives each picture's offset, so that any one is
read by one seek: what an epoch draws follows from (photograph, seed) alone, as with a folder, and exact resuming and
the disjoint split over devices come from the same sampler.

A folder of shards holds:

* ``plan.json``: what was asked for, the number of shards and the names of the classes;
* ``shard-000000.tar``, …: pictures, their bytes as they were or scaled down to JPEG, each followed by its class's
  number, an index into the names;
* ``shard-000000.json``, …: ``bytes``, the tar's length; a list each of ``names``, ``offsets``, ``sizes``, ``classes``
  and ``paths`` (below the folder they came from) of its pictures; and ``left_out``, pairs of a path and a reason;
* ``left_out.csv``: those of all shards.
"""

import csv
import hashlib
import io
import json
import os
import tarfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pdnla.data.photographs import open_colour
from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.images.io import list_images

GREY = "grey"
"""The reason in ``left_out`` of a photograph that :func:`~pdnla.data.photographs.is_grey`."""

_FORMAT = 1
_SEED = 0  # of the order in which photographs fill shards
_OPEN = 256  # shards held open at a time, well below the 1024 files a process may usually have
_VERIFIED_SIDE = 32  # all of a JPEG is read at any scale, and greyness is judged at this one


class Sample(NamedTuple):
    """A photograph in a shard, to be opened as a path is."""

    shards: "Shards"
    number: int

    def open(self, mode: str = "rb") -> BinaryIO:
        """Return the encoded picture.

        Raises:
            OSError: it cannot be read.
        """
        return io.BytesIO(self.shards.read(self.number))

    @property
    def parent(self) -> int:
        """The number of its class, which stands for the folder it came from."""
        return int(self.shards.classes[self.number])

    @property
    def shard(self) -> int:
        """The number of its shard."""
        return int(self.shards.shard[self.number])

    @property
    def key(self) -> str:
        """What it is called in there, without a suffix."""
        return _key(self.shard, int(self.shards.row[self.number]))

    def __str__(self) -> str:
        return f"{shard_path(self.shards.root, self.shard)}: {self.key}"


class Shards(Sequence[Sample]):
    """The photographs of a folder of shards.

    Shards are opened as they are needed. A pickled copy opens its own, and a forked process may read from its parent's.

    Args:
        root: the folder.

    Raises:
        UserError: it is no folder of shards, or a shard is missing or truncated.

    Attributes:
        shard: the number of each photograph's shard.
        row: its place in there.
        offset: where its bytes begin.
        size: how many there are.
        classes: the number of its class.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._files: dict[int, io.FileIO] = {}
        count = _read_plan(self.root)["shards"]
        columns = []
        for number in range(count):
            index = _read_index(self.root, number)
            if index is None:
                raise UserError(
                    f"{shard_path(self.root, number)}: is missing, truncated or without its index; run pdnla-prepare"
                    " again, which writes such shards anew"
                )
            given = [np.array(index[name], np.int64) for name in ("offsets", "sizes", "classes")]
            columns.append([np.full(len(given[0]), number), np.arange(len(given[0])), *given])
        shard, row, offset, size, classes = (np.concatenate(column) for column in zip(*columns, strict=True))
        self.shard: NDArray[np.int32] = shard.astype(np.int32)
        self.row: NDArray[np.int32] = row.astype(np.int32)
        self.offset: NDArray[np.int64] = offset.astype(np.int64)
        self.size: NDArray[np.int64] = size.astype(np.int64)
        self.classes: NDArray[np.int32] = classes.astype(np.int32)
        if not len(self):
            raise UserError(f"{self.root}: holds no photograph; run pdnla-prepare on a folder of colour photographs")

    def __len__(self) -> int:
        return len(self.shard)

    @overload
    def __getitem__(self, number: int) -> Sample: ...

    @overload
    def __getitem__(self, number: slice) -> "Shards": ...

    def __getitem__(self, number: int | slice) -> "Sample | Shards":
        if isinstance(number, slice):
            return self.take(np.arange(len(self))[number])
        return Sample(self, range(len(self))[number])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def take(self, numbers: NDArray[np.int64]) -> "Shards":
        """Return some of the photographs."""
        taken = Shards.__new__(Shards)
        taken.root, taken._files = self.root, {}
        taken.shard, taken.row, taken.classes = self.shard[numbers], self.row[numbers], self.classes[numbers]
        taken.offset, taken.size = self.offset[numbers], self.size[numbers]
        return taken

    def read(self, number: int) -> bytes:
        """Return the encoded picture of a photograph.

        Raises:
            OSError: its shard cannot be read or ends before it.
        """
        shard, size = int(self.shard[number]), int(self.size[number])
        file = self._files.get(shard)
        if file is None:
            if len(self._files) == _OPEN:
                self._files.pop(next(iter(self._files))).close()
            file = self._files[shard] = io.FileIO(shard_path(self.root, shard))
        picture = _read_at(file, size, int(self.offset[number]))
        if len(picture) < size:
            raise OSError(f"{shard_path(self.root, shard)}: is truncated; run pdnla-prepare again")
        return picture


def _read_at(file: io.FileIO, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        # A forked process shares its parent's place in the file, which this neither uses nor moves.
        return os.pread(file.fileno(), size, offset)
    file.seek(offset)  # Windows, where no process is forked
    return file.read(size)


def window_order(shard: NDArray[np.int32], window: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return an order of photographs that reads few shards at a time.

    Shards are put in a random order; ``window`` of them are mixed, then the next.

    Args:
        shard: the number of each photograph's shard.
        window: how many shards are mixed.
        rng: what all randomness comes from.
    """
    windows = rng.permutation(int(shard.max()) + 1) // window
    order = rng.permutation(len(shard))
    return order[np.argsort(windows[shard[order]], kind="stable")]


class Job(NamedTuple):
    """A shard to write: its number, and the photographs' paths below ``folder`` and their classes' numbers.

    ``size`` is what the shorter side of a larger one is scaled down to; 0 keeps all as they are.
    """

    folder: Path
    out: Path
    number: int
    paths: list[str]
    classes: list[int]
    size: int


class Plan(NamedTuple):
    """What is to be written: one job for each shard, and the record of what was asked for."""

    jobs: list[Job]
    record: dict[str, Any]


def plan_shards(folder: Path, out: Path, shard_size: int, size: int) -> Plan:
    """Assign the photographs below a folder to shards, in an order that mixes the classes and is always the same.

    Args:
        folder: a tree of photographs; each one's class is the folder it lies in.
        out: where the shards go.
        shard_size: megabytes of photographs in a shard, as they are now.
        size: see :class:`Job`.

    Raises:
        UserError: the folder is missing or holds no image.
    """
    found = list_images(folder)
    paths = [path.relative_to(folder).as_posix() for path in found]
    lengths = np.array([_length(path) for path in found])
    names = [path.parent.relative_to(folder).as_posix() for path in found]
    classes = sorted(set(names))
    number_of = {name: number for number, name in enumerate(classes)}
    order = np.random.default_rng(_SEED).permutation(len(found))
    before = np.cumsum(lengths[order]) - lengths[order]
    starts = np.flatnonzero(np.diff(before // (shard_size * 1_000_000), prepend=-1))
    jobs = [
        Job(folder, out, number, [paths[i] for i in part], [number_of[names[i]] for i in part], size)
        for number, part in enumerate(np.split(order, starts[1:]))
    ]
    listed = hashlib.sha256()
    for path, length in zip(paths, lengths, strict=True):
        listed.update(os.fsencode(f"{path}\0{length}\0"))
    record = {
        "format": _FORMAT,
        "photographs": len(found),
        "sha256": listed.hexdigest(),
        "shard_size": shard_size,
        "size": size,
        "shards": len(jobs),
        "classes": classes,
    }
    return Plan(jobs, record)


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # such as a link to nowhere; why is said when the photograph is left out
        return 0


def begin(plan: Plan, out: Path, overwrite: bool) -> None:
    """Write ``plan.json``, or find that it is there already; remove what a killed run left half-written.

    Args:
        plan: what is to be written.
        out: where.
        overwrite: remove the shards that are there.

    Raises:
        UserError: ``out`` holds shards of other photographs or options, or cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name a folder for the shards")
    if overwrite:
        _remove([out / "plan.json", out / "left_out.csv", *out.glob("shard-*.json"), *out.glob("shard-*.tar")])
    elif (out / "plan.json").exists():
        was = _read_plan(out)
        for key, what in (("shard_size", "--shard-size"), ("size", "--size")):
            if was.get(key) != plan.record[key]:
                raise UserError(
                    f"{out}: was begun with {what} {was.get(key)}; give that again, choose another folder, or add"
                    " --overwrite to begin anew"
                )
        if was != plan.record:
            raise UserError(
                f"{out}: holds shards of other photographs; choose another folder, or add --overwrite to begin anew"
            )
    elif any(out.glob("shard-*")):
        raise UserError(f"{out}: holds shards without plan.json; choose another folder, or add --overwrite")
    remove_halves(out)
    with replacing(out / "plan.json") as temporary:
        temporary.write_text(json.dumps(plan.record, indent=1))


def remove_halves(out: Path) -> None:
    """Remove the temporary files of shards whose writing was killed."""
    _remove(out.glob(".shard-*"))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be removed ({error.strerror}); check its permissions") from error


class Written(NamedTuple):
    """What became of a shard's photographs: how many it holds, and a path and a reason for each that it does not."""

    kept: int
    left_out: list[tuple[str, str]]


def write_shard(job: Job) -> Written:
    """Write a shard and then its index, each whole.

    Each photograph is decoded; the ones that cannot be and grey ones are left out.

    Raises:
        UserError: the disk is full, or the place cannot be written to.
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
                key = _key(job.number, len(kept))
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
    with replacing(_index_path(job.out, job.number)) as temporary:
        temporary.write_text(json.dumps(index))
    return Written(len(kept), left_out)


class _Encoded(NamedTuple):
    """A picture as it goes into a shard."""

    suffix: str
    content: bytes


class _InMemory(NamedTuple):
    """A photograph whose bytes have been read, so that those that are verified are those that are written."""

    path: Path
    content: bytes

    def open(self, mode: str = "rb") -> BinaryIO:
        return io.BytesIO(self.content)

    def __str__(self) -> str:
        return self.path.name


def _encoded(path: Path, size: int) -> _Encoded | str:
    """Return a photograph as it goes into a shard, or the reason why it is left out."""
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF data and the like, which do no harm here
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


def written(job: Job) -> Written | None:
    """Return what became of a shard's photographs, or None unless it and its index are there and agree."""
    index = _read_index(job.out, job.number)
    if index is None:
        return None
    return Written(len(index["paths"]), [(path, reason) for path, reason in index["left_out"]])


def write_left_out(out: Path, left_out: Iterable[tuple[str, str]]) -> None:
    """Write ``left_out.csv``: a line with a path and a reason for each photograph that no shard holds."""
    with (
        replacing(out / "left_out.csv") as temporary,
        # Names may hold bytes that are no UTF-8.
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows([("photograph", "reason"), *sorted(left_out)])


def shard_path(root: Path, number: int) -> Path:
    """Return the path of a shard."""
    return root / f"shard-{number:06d}.tar"


def _read_index(root: Path, number: int) -> dict[str, Any] | None:
    """Return the index of a shard, or None unless both are there and whole."""
    try:
        index = json.loads(_index_path(root, number).read_text())
        return index if shard_path(root, number).stat().st_size == index["bytes"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _index_path(root: Path, number: int) -> Path:
    return shard_path(root, number).with_suffix(".json")


def _key(shard: int, row: int) -> str:
    return f"{shard:06d}-{row:06d}"


def _read_plan(root: Path) -> dict[str, Any]:
    try:
        plan = json.loads((root / "plan.json").read_text())
    except OSError as error:
        raise UserError(f"{root}: has no plan.json; name a folder that pdnla-prepare wrote") from error
    except ValueError as error:
        raise UserError(f"{root / 'plan.json'}: is damaged; run pdnla-prepare again with --overwrite") from error
    if not isinstance(plan, dict) or plan.get("format") != _FORMAT:
        raise UserError(f"{root / 'plan.json'}: is of another version; run pdnla-prepare again with --overwrite")
    return plan
