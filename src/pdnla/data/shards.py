"""Photographs in a few large files: WebDataset shards, each with an index of its pictures' offsets.

A shard is a plain tar of ``<key>.jpg`` and ``<key>.cls`` members, an open format that ``tar`` and the webdataset
library read. A million small files are slow to list, to copy and, on a shared disk, to open; a shard holds about a
thousand photographs. Its index, ``shard-000000.json``, gives each picture's offset, so that any picture is read with
one seek. As with a folder, the draws of an epoch depend only on (photograph, seed), and the same sampler gives exact
resuming and the split over devices.

A folder of shards holds:

* ``plan.json``: the options, the number of shards and the names of the classes;
* ``shard-000000.tar``, …: pictures, with their original bytes or reduced to JPEG, each followed by the number of its
  class, an index into the names;
* ``shard-000000.json``, …: ``bytes``, the length of the tar; lists of the pictures' ``names``, ``offsets``, ``sizes``,
  ``classes`` and ``paths`` (below the original folder); and ``left_out``, pairs of a path and a reason;
* ``left_out.csv``: the omitted photographs of all shards.
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
"""Version in ``plan.json``, which changes with the format of the files."""

MOST_OPEN = 256
"""Shards kept open at a time, well below the usual limit of 1024 files per process."""


class Sample(NamedTuple):
    """A photograph in a shard, which can be opened like a path."""

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
        """The number of its class, in place of a path's folder."""
        return int(self.shards.classes[self.number])

    @property
    def shard(self) -> int:
        """The number of its shard."""
        return int(self.shards.shard[self.number])

    @property
    def key(self) -> str:
        """Its name in the shard, without a suffix."""
        return sample_key(self.shard, int(self.shards.row[self.number]))

    def __str__(self) -> str:
        return f"{shard_path(self.shards.root, self.shard)}: {self.key}"


class Shards(Sequence[Sample]):
    """The photographs of a folder of shards.

    Shards are opened on demand. A pickled copy opens its own files, and a forked process can read from its parent's.

    Args:
        root: the folder.

    Raises:
        UserError: it is not a folder of shards, or a shard is missing or truncated.

    Attributes:
        shard: the number of each photograph's shard.
        row: its position in the shard.
        offset: offset of its first byte.
        size: number of its bytes.
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
                    " again, which writes such shards again"
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
        """Return a subset of the photographs."""
        taken = Shards.__new__(Shards)
        taken.root, taken._files = self.root, {}
        taken.shard, taken.row, taken.classes = self.shard[numbers], self.row[numbers], self.classes[numbers]
        taken.offset, taken.size = self.offset[numbers], self.size[numbers]
        return taken

    def read(self, number: int) -> bytes:
        """Return the encoded picture of a photograph.

        Raises:
            OSError: its shard cannot be read or is truncated.
        """
        shard, size = int(self.shard[number]), int(self.size[number])
        file = self._files.get(shard)
        if file is None:
            if len(self._files) == MOST_OPEN:
                self._files.pop(next(iter(self._files))).close()
            file = self._files[shard] = io.FileIO(shard_path(self.root, shard))
        picture = _read_at(file, size, int(self.offset[number]))
        if len(picture) < size:
            raise OSError(f"{shard_path(self.root, shard)}: is truncated; run pdnla-prepare again")
        return picture


def _read_at(file: io.FileIO, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        # pread does not use the position in the file, which a forked process shares with its parent.
        return os.pread(file.fileno(), size, offset)
    file.seek(offset)  # Windows, where no process is forked
    return file.read(size)


def window_order(shard: NDArray[np.int32], window: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return an order of photographs that needs few shards at a time.

    The shards are put in a random order; the photographs of ``window`` shards are mixed, then those of the next.

    Args:
        shard: the number of each photograph's shard.
        window: number of shards that are mixed.
        rng: the random generator.
    """
    windows = rng.permutation(int(shard.max()) + 1) // window
    order = rng.permutation(len(shard))
    return order[np.argsort(windows[shard[order]], kind="stable")]


def shard_path(root: Path, number: int) -> Path:
    """Return the path of a shard."""
    return root / f"shard-{number:06d}.tar"


def read_shard_index(root: Path, number: int) -> dict[str, Any] | None:
    """Return the index of a shard; None unless both exist and are complete."""
    try:
        index = json.loads(index_path(root, number).read_text())
        return index if shard_path(root, number).stat().st_size == index["bytes"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def index_path(root: Path, number: int) -> Path:
    """Return the path of a shard's index."""
    return shard_path(root, number).with_suffix(".json")


def sample_key(shard: int, row: int) -> str:
    """Return the name of a photograph's members, without a suffix."""
    return f"{shard:06d}-{row:06d}"


def read_plan(root: Path) -> dict[str, Any]:
    """Read ``plan.json`` in a folder of shards.

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
