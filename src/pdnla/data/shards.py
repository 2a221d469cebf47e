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

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from pdnla.errors import UserError

FORMAT = 1
"""What ``plan.json`` says; it changes when the files do."""

_OPEN = 256  # shards held open at a time, well below the 1024 files a process may usually have


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
        return sample_key(self.shard, int(self.shards.row[self.number]))

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
        count = read_plan(self.root)["shards"]
        columns = []
        for number in range(count):
            index = read_shard_index(self.root, number)
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


def shard_path(root: Path, number: int) -> Path:
    """Return the path of a shard."""
    return root / f"shard-{number:06d}.tar"


def read_shard_index(root: Path, number: int) -> dict[str, Any] | None:
    """Return the index of a shard, or None unless both are there and whole."""
    try:
        index = json.loads(index_path(root, number).read_text())
        return index if shard_path(root, number).stat().st_size == index["bytes"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def index_path(root: Path, number: int) -> Path:
    """Return the path of a shard's index."""
    return shard_path(root, number).with_suffix(".json")


def sample_key(shard: int, row: int) -> str:
    """Return what the members of a photograph are called, without a suffix."""
    return f"{shard:06d}-{row:06d}"


def read_plan(root: Path) -> dict[str, Any]:
    """Return what ``plan.json`` in a folder of shards says.

    Raises:
        UserError: it is missing, damaged or of another version.
    """
    try:
        plan = json.loads((root / "plan.json").read_text())
    except OSError as error:
        raise UserError(f"{root}: has no plan.json; name a folder that pdnla-prepare wrote") from error
    except ValueError as error:
        raise UserError(f"{root / 'plan.json'}: is damaged; run pdnla-prepare again with --overwrite") from error
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        raise UserError(f"{root / 'plan.json'}: is of another version; run pdnla-prepare again with --overwrite")
    return plan
