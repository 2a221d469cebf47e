"""Photographs for training: crops drawn by seed, grey and unreadable pictures left out.

Every crop follows from a :class:`Draw` alone, an index and a seed, so batches do not depend on worker processes, on the
number of devices or on where a run was interrupted.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from skimage.color import rgb2lab
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from pdnla.errors import UserError

log = logging.getLogger(__name__)

GREY_CHROMA = 4.0
"""A photograph with a mean chroma, sqrt(a*^2 + b*^2), under this is grey: it has no colours to learn from."""

_COLOURLESS_MODES = frozenset({"1", "L", "LA", "La", "F", "I", "I;16", "I;16B", "I;16L", "I;16N"})
_ATTEMPTS = 64


class Draw(NamedTuple):
    """One crop of one photograph: its number and the seed that everything random about it follows from."""

    photograph: int
    seed: int


class Crop(NamedTuple):
    """A crop for training.

    ``truth`` is sRGB uint8, ``(3, S, S)``; ``seed`` its draw's; ``grey`` and ``unreadable`` count the photographs that
    were drawn before it and left out.
    """

    truth: Tensor
    seed: int
    grey: int
    unreadable: int


def open_colour(path: Path, side: int) -> Image.Image | None:
    """Open a photograph as sRGB at no less than ``side`` pixels on its shorter side where it has them.

    JPEGs are decoded at a fraction of their size where that is enough.

    Returns:
        the picture, or None if it is grey by the rule of :data:`GREY_CHROMA`.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode in _COLOURLESS_MODES:
                return None
            image.draft("RGB", (side, side))
            rgb = ImageOps.exif_transpose(image).convert("RGB")
    except (ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise OSError(f"{path}: {error}") from error
    return None if is_grey(rgb) else rgb


def is_grey(rgb: Image.Image) -> bool:
    """Return whether a picture's mean chroma is under :data:`GREY_CHROMA`."""
    lab = rgb2lab(np.asarray(rgb.resize((32, 32), Image.Resampling.BOX)))
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean()) < GREY_CHROMA


def random_crop(rgb: Image.Image, size: int, zoom: float, rng: np.random.Generator) -> Image.Image:
    """Cut a square of 1 to 1/``zoom`` of the shorter side from anywhere, bring it to ``size``; mirror every other."""
    side = min(rgb.size) / rng.uniform(1.0, zoom)
    left, top = (rng.uniform(0, extent - side) for extent in rgb.size)
    crop = _resized(rgb, (left, top, left + side, top + side), size)
    return ImageOps.mirror(crop) if rng.random() < 0.5 else crop


def centre_crop(rgb: Image.Image, size: int) -> Image.Image:
    """Cut the largest square from the centre and bring it to ``size``."""
    side = min(rgb.size)
    left, top = ((extent - side) / 2 for extent in rgb.size)
    return _resized(rgb, (left, top, left + side, top + side), size)


def _resized(rgb: Image.Image, box: tuple[float, float, float, float], size: int) -> Image.Image:
    return rgb.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def to_tensor(rgb: Image.Image) -> Tensor:
    """Return a picture as a uint8 tensor, ``(3, H, W)``."""
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


class TrainingCrops(Dataset[Crop]):
    """Random square crops of photographs; item ``Draw(photograph, seed)``.

    A grey or unreadable photograph gives way to another one, chosen by the draw's seed, and is counted.

    Args:
        paths: the photographs.
        size: side of a crop in pixels.
        zoom: the shorter side of a photograph is between 1 and ``zoom`` crops long.
    """

    def __init__(self, paths: Sequence[Path], size: int, zoom: float) -> None:
        self.paths, self.size, self.zoom = list(paths), size, zoom

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, draw: Draw) -> Crop:
        """Return the crop of a draw.

        Raises:
            UserError: photograph after photograph is grey or unreadable.
        """
        rng = np.random.default_rng(draw.seed)
        index, grey, unreadable = draw.photograph, 0, 0
        for _ in range(_ATTEMPTS):
            path = self.paths[index]
            try:
                rgb = open_colour(path, round(self.size * self.zoom))
            except OSError as error:
                log.warning("%s: left out of training, it cannot be read (%s)", path, error)
                unreadable += 1
            else:
                if rgb is not None:
                    truth = to_tensor(random_crop(rgb, self.size, self.zoom, rng))
                    return Crop(truth, draw.seed, grey, unreadable)
                grey += 1
            index = int(rng.integers(len(self.paths)))
        raise UserError(
            f"data: {_ATTEMPTS} photographs drawn in a row were grey ({grey}) or unreadable ({unreadable}), the last"
            f" {path}; choose another data.root"
        )


class FixedCrops(Dataset[Crop]):
    """The centre square of each photograph, always the same: for validation.

    Args:
        paths: the photographs, none of them grey.
        size: side of a crop in pixels.
        seed: what the pairs made of them follow from, together with the index.
    """

    def __init__(self, paths: Sequence[Path], size: int, seed: int) -> None:
        self.paths, self.size, self.seed = list(paths), size, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Crop:
        """Return the crop of photograph ``index``."""
        rgb = open_colour(self.paths[index], self.size)
        if rgb is None:
            raise UserError(f"{self.paths[index]}: is grey now and was not before; start again")
        return Crop(to_tensor(centre_crop(rgb, self.size)), mix_seeds(self.seed, index), 0, 0)


def mix_seeds(*seeds: int) -> int:
    """Return one seed of 63 bits that follows from several."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> np.uint64(1))


def colourful(paths: Sequence[Path], count: int, seed: int) -> list[Path]:
    """Return the first ``count`` photographs, in an order drawn by ``seed``, that can be read and are not grey."""
    found: list[Path] = []
    for index in np.random.default_rng(seed).permutation(len(paths)):
        if len(found) == count:
            break
        try:
            if open_colour(paths[index], 32) is not None:
                found.append(paths[index])
        except OSError as error:
            log.warning("%s: left out, it cannot be read (%s)", paths[index], error)
    return sorted(found)


class DrawnBatches(Sampler[list[Draw]]):
    """Batches of draws for one device: each epoch draws every photograph once, in an order that follows from the seed.

    The devices' batches of a step are consecutive parts of one global batch, so that no two see the same photograph and
    the same seed gives the same global batches on any number of devices. An incomplete last batch is left out.

    Args:
        photographs: how many there are.
        batch_size: draws in one device's batch.
        seed: where all randomness comes from.
        rank: this device's number, of ``devices``.
        devices: how many there are.
        repeats: draws of each photograph in an epoch.
    """

    def __init__(
        self, photographs: int, batch_size: int, seed: int, rank: int = 0, devices: int = 1, repeats: int = 1
    ) -> None:
        self.photographs, self.batch_size, self.seed = photographs, batch_size, seed
        self.rank, self.devices, self.repeats = rank, devices, repeats
        self.epoch = 0
        self.skip = 0
        """Batches that the next iteration leaves out: those an interrupted epoch has had."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.photographs * self.repeats // (self.batch_size * self.devices)

    def __iter__(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = np.concatenate([rng.permutation(self.photographs) for _ in range(self.repeats)])
        seeds = rng.integers(2**62, size=len(order))
        step = self.batch_size * self.devices
        had, self.skip = self.skip, 0
        for start in range(had * step, len(self) * step, step):
            first = start + self.rank * self.batch_size
            part = slice(first, first + self.batch_size)
            yield [Draw(int(i), int(s)) for i, s in zip(order[part], seeds[part], strict=True)]
