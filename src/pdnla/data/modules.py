"""Lightning data modules: where photographs come from, and the pseudo-pairs made of them."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pytorch_lightning as pl
import skimage
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset

from pdnla.data.held_out import is_held_out, without_held_out
from pdnla.data.pairing import GivenPartners, Partners, partners_by
from pdnla.data.pairs_file import read_pairs
from pdnla.data.photographs import (
    Crop,
    Draw,
    DrawnBatches,
    FixedCrops,
    FixedPairs,
    Photograph,
    TrainingCrops,
    colourful,
    mix_seeds,
)
from pdnla.data.pseudo_pairs import Pairs, PseudoPairs
from pdnla.data.shards import Shards, window_order
from pdnla.errors import UserError
from pdnla.images import color
from pdnla.images.io import list_images
from pdnla.network import STRIDE
from pdnla.network.guide import Guide

log = logging.getLogger(__name__)

BUILTIN = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "ihc.png",
    "retina.jpg",
    "rocket.jpg",
)
BUILTIN_VALIDATION = ("motorcycle_left.png", "motorcycle_right.png")

_OVERFIT_EPOCH = 100  # steps

# Validation measures photographs as they are, and the same whatever training does to its own.
VALIDATION_PAIRS = PseudoPairs(noise=0.0, recolour=0.0)


class Batch(NamedTuple):
    """A batch for a step.

    ``pairs``, of which the first ``unpaired`` have another photograph for their reference; the ``seed`` of what the
    step draws; how many ``grey`` and ``unreadable`` photographs were left out while drawing the batch; and the
    ``guide`` of pairs whose correspondence was computed beforehand.
    """

    pairs: Pairs
    unpaired: int
    seed: int
    grey: int
    unreadable: int
    guide: Guide | None = None


class PseudoPairData(pl.LightningDataModule):
    """Pseudo-pairs of photographs, for training and validation.

    Workers decode, crop and mirror; pairs are made on the batch, on its device. The same seed gives the same batches,
    whatever the number of workers.

    Args:
        batch_size: photographs in one device's batch.
        size: side of the square crops in pixels, a multiple of 16.
        pairs: how a photograph becomes a pair.
        seed: where all randomness comes from.
        workers: processes that read photographs for each device.
        validation_count: photographs that validate.
        repeats: draws of each photograph in an epoch.
        unpaired_fraction: the part of a batch whose references are other photographs.
        pairing: which other photograph: ``class`` (of the same folder), ``nearest`` (by a frozen network's features),
            ``random``.
        zoom: the shorter side of a photograph is between 1 and ``zoom`` crops long.
        unpaired_ramp: batches over which that part rises from none, so that the network first learns what pairs teach.
        backbone: the network that says which are nearest.
        validation_pairs: a file of pairs (``target,reference`` lines) whose results every validation measures.
        overfit: train on one batch alone, always the same, and validate on it: a network that cannot learn that by
            heart cannot learn.
    """

    def __init__(
        self,
        batch_size: int,
        size: int,
        pairs: PseudoPairs,
        seed: int,
        workers: int,
        validation_count: int,
        repeats: int,
        unpaired_fraction: float,
        pairing: str,
        zoom: float = 1.5,
        unpaired_ramp: int = 0,
        backbone: str = "efficientnet_lite0",
        validation_pairs: str | None = None,
        overfit: bool = False,
    ) -> None:
        super().__init__()
        if size < STRIDE or size % STRIDE:
            raise UserError(
                f"data.size={size}: must be a multiple of {STRIDE}, such as {max(1, size // STRIDE) * STRIDE}"
            )
        self.batch_size, self.size, self.pairs, self.seed, self.zoom = batch_size, size, pairs, seed, zoom
        self.unpaired_fraction, self.unpaired_ramp, self.pairing = unpaired_fraction, unpaired_ramp, pairing
        self.backbone = backbone
        self.validation_pairs = [] if validation_pairs is None else read_pairs(Path(validation_pairs))
        self.workers, self.validation_count, self.repeats = workers, validation_count, repeats
        self.overfit = overfit
        self.training_paths: Sequence[Photograph] = ()
        self.references: list[Path] = []  # photographs that are references alone
        self.partners: Partners | None = None
        self.validation_paths: Sequence[Photograph] = ()
        self.batches_had = 0

    def photographs(self) -> tuple[Sequence[Photograph], Sequence[Photograph]]:
        """Return the training photographs and those that may validate."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """List the photographs and look at some of them before training begins.

        Raises:
            UserError: there are none, too few for a batch, or none in colour.
        """
        if self.training_paths:
            return
        training, validation = self.photographs()
        self.training_paths = training
        devices = self.trainer.world_size if self.trainer else 1
        draws = len(self.training_paths) * self.repeats
        if draws < self.batch_size * devices:
            raise UserError(
                f"data.batch_size={self.batch_size} on {devices} device(s) is more than the {draws} photographs to"
                " train on; choose a smaller batch or set data.repeats"
            )
        if not colourful(self.training_paths, 1, self.seed):
            raise UserError(
                f"none of the {len(self.training_paths)} photographs to train on can be read and has colours; choose"
                " another data.root"
            )
        self.validation_paths = colourful(validation, self.validation_count, self.seed)
        if not self.validation_paths:
            raise UserError("none of the photographs to validate with can be read and has colours; choose others")
        if self.unpaired_fraction:
            self.partners, self.references = self.choose_partners()
        log.info(
            "training on %d photographs, validating on %d; grey ones are left out as they are drawn",
            len(self.training_paths),
            len(self.validation_paths),
        )

    def choose_partners(self) -> tuple[Partners, list[Path]]:
        """Return what chooses the references of unpaired pairs, and the photographs that are references alone."""
        return partners_by(self.pairing, cast(Sequence[Path], self.training_paths), self.backbone), []

    def order(self) -> Callable[[np.random.Generator], NDArray[np.int64]] | None:
        """Return what draws the order of an epoch; None for any order, each as likely."""
        return None

    def unpaired(self, batches: int) -> int:
        """Return how many pairs of a device's batch are unpaired after so many batches."""
        ramp = min(1.0, batches / self.unpaired_ramp) if self.unpaired_ramp else 1.0
        return round(self.unpaired_fraction * ramp * self.batch_size)

    def train_dataloader(self) -> DataLoader[Crop]:
        """Return the loader of this device's training crops."""
        if self.overfit:
            return self._loader(self._crops(), batch_sampler=[self._first_batch()] * _OVERFIT_EPOCH)
        sampler = self._batches()
        sampler.skip, self.batches_had = self.batches_had, 0
        return self._loader(self._crops(), batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Return the loaders of this device's share of the validation crops, and of the pairs given to validate."""
        if self.overfit:
            return self._loader(self._crops(), batch_sampler=[self._first_batch()])
        crops = FixedCrops(self.validation_paths, self.size, self.seed)
        loaders = [self._loader(self._share(crops), batch_size=self.batch_size)]
        if self.validation_pairs:
            given = FixedPairs(self.validation_pairs, self.size)
            loaders.append(self._loader(self._share(given), batch_size=self.batch_size))
        return loaders if self.validation_pairs else loaders[0]

    def validates(self, loader: int) -> bool:
        """Return whether this device has pictures of its own in a validation loader.

        With more devices than pictures some have none. They are given another's, so that all devices take part in what
        follows a validation, and must not count it.
        """
        pictures = len(self.validation_pairs) if loader else len(self.validation_paths)
        return self.overfit or self._place()[0] < pictures

    def _share(self, dataset: Any) -> Subset[Any]:
        rank, devices = self._place()
        return Subset(dataset, range(rank, len(dataset), devices) or [rank % len(dataset)])

    def _batches(self) -> DrawnBatches:
        return DrawnBatches(
            len(self.training_paths),
            self.batch_size,
            self.seed,
            *self._place(),
            repeats=self.repeats,
            unpaired=self.unpaired,
            order=self.order(),
        )

    def _first_batch(self) -> list[Draw]:
        return next(iter(self._batches()))

    def _crops(self) -> TrainingCrops:
        paths = [*self.training_paths, *self.references] if self.references else self.training_paths
        return TrainingCrops(paths, self.size, self.zoom, self.partners, len(self.training_paths))

    def state_dict(self) -> dict[str, int]:
        """Return where in the epoch training is, for a checkpoint."""
        assert self.trainer is not None
        return {"batches_had": self.trainer.fit_loop.epoch_loop.batch_progress.current.processed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where a checkpoint was taken, without drawing the epoch's photographs again."""
        self.batches_had = state_dict["batches_had"]

    def on_after_batch_transfer(self, batch: Crop, dataloader_idx: int) -> Batch:
        """Make pairs of a batch of crops, on its device."""
        training = self.trainer is None or self.trainer.training
        truth = batch.truth.float() / 255
        seeds = torch.as_tensor(batch.seed).tolist()
        grey, unreadable = torch.as_tensor(batch.grey).sum(), torch.as_tensor(batch.unreadable).sum()
        unpaired = int(torch.as_tensor(batch.unpaired).sum())
        make = self.pairs if training or self.overfit else VALIDATION_PAIRS
        groups = []
        if unpaired:
            own, other = truth[:unpaired], batch.partner[:unpaired].float() / 255
            groups.append(Pairs(color.grey(own) * 2 - 1, other * 2 - 1, own * 2 - 1))
        if unpaired < len(truth):
            groups.append(make(truth[unpaired:], seeds[unpaired:]))
        pairs = Pairs(*(torch.cat(parts) for parts in zip(*groups, strict=True)))
        return Batch(pairs, unpaired, mix_seeds(*seeds), int(grey), int(unreadable))

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, dataset: Any, **options: Any) -> DataLoader[Crop]:
        return DataLoader(
            dataset,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )


class BuiltinData(PseudoPairData):
    """The colour photographs that come with scikit-image: six to train on, a stereo pair to validate."""

    def photographs(self) -> tuple[Sequence[Path], Sequence[Path]]:
        """Return scikit-image's photographs."""
        folder = Path(skimage.__file__).parent / "data"
        return [folder / name for name in BUILTIN], [folder / name for name in BUILTIN_VALIDATION]


class FolderData(PseudoPairData):
    """Any tree of photographs.

    Args:
        root: the folder.
        validation_root: a folder of photographs to validate with; without it ``validation_count`` of ``root``, drawn by
            the seed, are kept from training (at most a fifth).
        **options: see :class:`PseudoPairData`.
    """

    def __init__(self, root: str, validation_root: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.root, self.validation_root = Path(root), Path(validation_root) if validation_root else None

    def photographs(self) -> tuple[Sequence[Path], Sequence[Path]]:
        """Return the photographs of the folder, split."""
        return photographs_of(self.root, self.validation_root, self.validation_count, self.seed)


def photographs_of(
    root: Path, validation_root: Path | None, validation_count: int, seed: int
) -> tuple[Sequence[Path], Sequence[Path]]:
    """Return the photographs to train on and to validate with: of a folder each, or of one, split.

    People that :mod:`pdnla.data.held_out` names are left out of training's.

    Raises:
        UserError: a folder is missing or holds no image, or the only one holds a single image.
    """
    paths = without_held_out(list_images(root, natural=False), root)
    if validation_root is not None:
        return paths, list_images(validation_root, natural=False)
    return split(paths, validation_count, seed, root)


class PairsData(PseudoPairData):
    """Photographs and references that a file of pairs names (see ``pdnla-pairs``); targets also make pseudo-pairs.

    Args:
        pairs_file: ``target,reference`` lines.
        root: what the lines' paths are relative to; None for the file's own folder.
        **options: see :class:`PseudoPairData`; ``pairing`` does not matter.
    """

    def __init__(self, pairs_file: str, root: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        pairs = read_pairs(Path(pairs_file), Path(root) if root else None)
        self.given = [pair for pair in pairs if not any(map(is_held_out, pair))]
        if not self.given:
            raise UserError(f"{pairs_file}: all of its pairs show people whom no training may use; name other pairs")
        self.pairs_file = pairs_file

    def photographs(self) -> tuple[Sequence[Path], Sequence[Path]]:
        """Return the targets, split."""
        targets = list(dict.fromkeys(target for target, _ in self.given))
        return split(targets, self.validation_count, self.seed, self.pairs_file)

    def choose_partners(self) -> tuple[Partners, list[Path]]:
        """Return what knows each target's references, and the photographs that are references alone."""
        targets = cast(Sequence[Path], self.training_paths)
        numbers = {path: number for number, path in enumerate(targets)}
        references: dict[Path, list[int]] = {path: [] for path in targets}
        for target, reference in self.given:
            if target not in references:
                continue
            references[target].append(numbers.setdefault(reference, len(numbers)))
        return GivenPartners([references[path] for path in targets]), list(numbers)[len(targets) :]


def split(
    paths: Sequence[Path], validation_count: int, seed: int, source: object
) -> tuple[Sequence[Path], Sequence[Path]]:
    """Return photographs to train on, and ``validation_count`` (at most a fifth), drawn by the seed, to validate with.

    Raises:
        UserError: there is only one.
    """
    training, validation = split_numbers(len(paths), validation_count, seed, source)
    return [paths[i] for i in training], [paths[i] for i in validation]


def split_numbers(
    count: int, validation_count: int, seed: int, source: object
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the numbers under ``count`` as :func:`split` splits photographs; both parts are in order.

    Raises:
        UserError: there is only one.
    """
    if count < 2:
        raise UserError(f"{source}: holds a single photograph; training needs another one to validate with")
    order = np.random.default_rng(seed).permutation(count)
    held_out = max(1, min(validation_count, count // 5))
    return np.sort(order[held_out:]), np.sort(order[:held_out])


class ImageNetData(FolderData):
    """ImageNet in ILSVRC's layout: ``train/<wnid>/*.JPEG`` under the root, and ``val/`` if it is there."""

    def photographs(self) -> tuple[Sequence[Path], Sequence[Path]]:
        """Return the photographs of ``train/``, and of ``val/`` or a seeded split."""
        if not (self.root / "train").is_dir():
            raise UserError(
                f"{self.root}: has no folder train/; data.root must be ILSVRC's folder that holds train/<wnid>/"
            )
        given = self.root / "val" if (self.root / "val").is_dir() else None
        return photographs_of(self.root / "train", self.validation_root or given, self.validation_count, self.seed)


class ShardData(PseudoPairData):
    """Photographs in the shards that ``pdnla-prepare`` writes.

    Args:
        root: the folder of shards.
        validation_root: a folder of shards to validate with; without it ``validation_count`` photographs of ``root``,
            drawn by the seed, are kept from training (at most a fifth).
        shuffle_shards: shards that are mixed at a time, for disks that are slow at random reads; 0 for all.
        **options: see :class:`PseudoPairData`; ``pairing`` by ``class`` or ``random``.
    """

    def __init__(self, root: str, validation_root: str | None = None, shuffle_shards: int = 0, **options: Any) -> None:
        super().__init__(**options)
        if self.unpaired_fraction and self.pairing == "nearest":
            raise UserError("data.pairing=nearest: needs a folder of photographs; with shards use class or random")
        self.root, self.validation_root = Path(root), Path(validation_root) if validation_root else None
        self.shuffle_shards = shuffle_shards

    def photographs(self) -> tuple[Shards, Shards]:
        """Return the photographs of the shards, split."""
        shards = Shards(self.root)
        if self.validation_root is not None:
            return shards, Shards(self.validation_root)
        training, validation = split_numbers(len(shards), self.validation_count, self.seed, self.root)
        return shards.take(training), shards.take(validation)

    def order(self) -> Callable[[np.random.Generator], NDArray[np.int64]] | None:
        """Return what draws the order of an epoch."""
        if not self.shuffle_shards:
            return None
        return partial(window_order, cast(Shards, self.training_paths).shard, self.shuffle_shards)
