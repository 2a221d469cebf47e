"""Photographs for training: crops drawn with seeds; grey and unreadable pictures are left out.

A crop depends only on its :class:`Draw`, an index and a seed, so batches do not depend on the worker processes, the
number of devices or the moment at which a run was interrupted.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from pdnla.data.pairing import Partners
from pdnla.errors import UserError
from pdnla.images.greys import open_colour
from pdnla.images.io import Openable, read_image

log = logging.getLogger(__name__)

_ATTEMPTS = 64
_PARTNERS = 8  # tried before another target is drawn


class Photograph(Openable, Protocol):
    """An object that can be opened like a :class:`~pathlib.Path`, has its name as ``str``, and can be sorted."""

    def __lt__(self, other: Any, /) -> bool: ...


_P = TypeVar("_P", bound=Photograph)


class Draw(NamedTuple):
    """One crop of one photograph: the photograph's number, and the seed of all randomness.

    If ``unpaired`` is true, the reference is another photograph.
    """

    photograph: int
    seed: int
    unpaired: bool = False


class Crop(NamedTuple):
    """A crop for training.

    ``truth`` is sRGB uint8, ``(3, S, S)``. ``partner`` is a crop of the reference photograph, or ``truth`` itself if
    the draw is not ``unpaired``. ``seed`` is that of the draw. ``grey`` and ``unreadable`` count the photographs that
    were drawn before these two and left out.
    """

    truth: Tensor
    partner: Tensor
    unpaired: bool
    seed: int
    grey: int
    unreadable: int


def random_crop(rgb: Image.Image, size: int, zoom: float, rng: np.random.Generator) -> Image.Image:
    """Crop a random square of 1 to 1/``zoom`` of the shorter side to ``size``; mirror it half of the time."""
    side = min(rgb.size) / rng.uniform(1.0, zoom)
    left, top = (rng.uniform(0, extent - side) for extent in rgb.size)
    crop = _resized(rgb, (left, top, left + side, top + side), size)
    return ImageOps.mirror(crop) if rng.random() < 0.5 else crop


def centre_crop(rgb: Image.Image, size: int) -> Image.Image:
    """Crop the largest centred square and resize it to ``size``."""
    side = min(rgb.size)
    left, top = ((extent - side) / 2 for extent in rgb.size)
    return _resized(rgb, (left, top, left + side, top + side), size)


def _resized(rgb: Image.Image, box: tuple[float, float, float, float], size: int) -> Image.Image:
    return rgb.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def to_tensor(rgb: Image.Image) -> Tensor:
    """Return a picture as a uint8 tensor, ``(3, H, W)``."""
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


class TrainingCrops(Dataset[Crop]):
    """Random square crops of photographs; the index is a ``Draw(photograph, seed, unpaired)``.

    A grey or unreadable photograph is counted and replaced by another one, chosen with the draw's seed.

    Args:
        paths: the photographs.
        size: side of a crop in pixels.
        zoom: the shorter side of a photograph is between 1 and ``zoom`` crops long.
        partners: chooses the reference of an unpaired draw.
        targets: number of first ``paths`` that are targets; the others are only references. None for all.
    """

    def __init__(
        self,
        paths: Sequence[Photograph],
        size: int,
        zoom: float,
        partners: Partners | None = None,
        targets: int | None = None,
    ) -> None:
        self.paths, self.size, self.zoom, self.partners = paths, size, zoom, partners
        self.targets = len(self.paths) if targets is None else targets

    def __len__(self) -> int:
        return self.targets

    def __getitem__(self, draw: Draw) -> Crop:
        """Return the crop of a draw.

        Raises:
            UserError: too many photographs in a row are grey or unreadable.
        """
        rng = np.random.default_rng(draw.seed)
        left_out = {"grey": 0, "unreadable": 0}
        index, path = draw.photograph, self.paths[draw.photograph]
        for _ in range(_ATTEMPTS):
            path = self.paths[index]
            truth = self._crop(index, rng, left_out)
            if truth is None:
                index = int(rng.integers(self.targets))
                continue
            partner: Tensor | None = truth
            if draw.unpaired:
                if self.partners is None:
                    raise ValueError("a draw is unpaired and partners is None")
                for _ in range(_PARTNERS):
                    partner = self._crop(self.partners(index, rng), rng, left_out)
                    if partner is not None:
                        break
            if partner is not None:
                return Crop(truth, partner, draw.unpaired, draw.seed, left_out["grey"], left_out["unreadable"])
            index = int(rng.integers(self.targets))
        raise UserError(
            f"data: {_ATTEMPTS} photographs drawn in a row were grey ({left_out['grey']}) or"
            f" unreadable ({left_out['unreadable']}), the last {path}; choose other photographs"
        )

    def _crop(self, index: int, rng: np.random.Generator, left_out: dict[str, int]) -> Tensor | None:
        """Return a crop of a photograph; if there is none, count the reason and return None."""
        path = self.paths[index]
        try:
            rgb = open_colour(path, round(self.size * self.zoom))
        except UserError as error:
            log.warning("left out of training: %s", error)
            left_out["unreadable"] += 1
            return None
        if rgb is None:
            left_out["grey"] += 1
            return None
        return to_tensor(random_crop(rgb, self.size, self.zoom, rng))


class FixedCrops(Dataset[Crop]):
    """The centred square of each photograph, for validation.

    Args:
        paths: the photographs, none of them grey.
        size: side of a crop in pixels.
        seed: seed of the pairs, combined with the index.
    """

    def __init__(self, paths: Sequence[Photograph], size: int, seed: int) -> None:
        self.paths, self.size, self.seed = paths, size, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Crop:
        """Return the crop of photograph ``index``."""
        rgb = open_colour(self.paths[index], self.size)
        if rgb is None:
            raise UserError(f"{self.paths[index]}: is grey now and was not before; start again")
        truth = to_tensor(centre_crop(rgb, self.size))
        return Crop(truth, truth, False, mix_seeds(self.seed, index), 0, 0)


class FixedPairs(Dataset[Crop]):
    """The centred squares of given targets and references, for validation.

    Args:
        pairs: paths of each target and its reference.
        size: side of the squares in pixels.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], size: int) -> None:
        self.pairs, self.size = list(pairs), size

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Crop:
        """Return the target and reference of a pair; the target may be grey.

        Raises:
            UserError: a picture cannot be read.
        """
        squares = []
        for path in self.pairs[index]:
            try:
                picture = read_image(path, self.size)
            except UserError as error:
                raise UserError(f"data.validation_pairs: {error}") from error
            squares.append(to_tensor(centre_crop(picture.rgb(), self.size)))
        return Crop(squares[0], squares[1], True, index, 0, 0)


def mix_seeds(*seeds: int) -> int:
    """Return a seed of 63 bits derived from several seeds."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> np.uint64(1))


def colourful(paths: Sequence[_P], count: int, seed: int) -> list[_P]:
    """Return the first ``count`` readable colour photographs in an order drawn with ``seed``, sorted."""
    chosen: list[_P] = []
    for index in np.random.default_rng(seed).permutation(len(paths)):
        if len(chosen) == count:
            break
        try:
            if open_colour(paths[index], 32) is not None:
                chosen.append(paths[index])
        except UserError as error:
            log.warning("left out: %s", error)
    return sorted(chosen)


class DrawnBatches(Sampler[list[Draw]]):
    """Batches of draws for one device; each epoch draws every photograph once, in an order derived from the seed.

    The devices' batches of a step are consecutive parts of one global batch: no two devices see the same photograph,
    and the same seed gives the same global batches for any number of devices. An incomplete last batch is left out.

    Args:
        photographs: number of photographs.
        batch_size: number of draws in one device's batch.
        seed: seed of all randomness.
        rank: number of this device.
        devices: number of devices.
        repeats: draws of each photograph in an epoch.
        unpaired: returns the number of first pairs in a device's batch that are unpaired, from the number of earlier
            batches.
        order: draws an order of all photographs with a generator; None for a uniformly random order.
    """

    def __init__(
        self,
        photographs: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        devices: int = 1,
        repeats: int = 1,
        unpaired: Callable[[int], int] = lambda batches: 0,
        order: Callable[[np.random.Generator], NDArray[np.int64]] | None = None,
    ) -> None:
        self.photographs, self.batch_size, self.seed = photographs, batch_size, seed
        self.rank, self.devices, self.repeats = rank, devices, repeats
        self.unpaired = unpaired
        self.order = order or (lambda rng: rng.permutation(photographs))
        self.epoch = 0
        self.skip = 0
        """Number of batches that the next iteration skips, because an interrupted epoch has done them."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.photographs * self.repeats // (self.batch_size * self.devices)

    def __iter__(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = np.concatenate([self.order(rng) for _ in range(self.repeats)])
        seeds = rng.integers(2**62, size=len(order))
        step = self.batch_size * self.devices
        skipped, self.skip = self.skip, 0
        for start in range(skipped * step, len(self) * step, step):
            first = start + self.rank * self.batch_size
            part = slice(first, first + self.batch_size)
            unpaired = self.unpaired(self.epoch * len(self) + start // step)
            drawn = zip(order[part], seeds[part], strict=True)
            yield [Draw(int(i), int(s), row < unpaired) for row, (i, s) in enumerate(drawn)]
