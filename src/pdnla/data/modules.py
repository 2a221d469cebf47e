"""Lightning data modules: the sources of photographs, and batches of pairs."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

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

# Validation uses photographs without noise and recolouring, whatever the settings of training.
VALIDATION_PAIRS = PseudoPairs(noise=0.0, recolour=0.0)


class Batch(NamedTuple):
    """The batch of a step.

    The references of the first ``unpaired`` of the ``pairs`` are other photographs. ``seed`` is the seed of the step's
    random draws. ``grey`` and ``unreadable`` count the photographs that were left out while the batch was drawn.
    ``guide`` is that of pairs with correspondence computed in advance.
    """

    pairs: Pairs
    unpaired: int
    seed: int
    grey: int
    unreadable: int
    guide: Guide | None = None


def rank_and_devices(trainer: pl.Trainer | None) -> tuple[int, int]:
    """Return the number of this device, and how many there are."""
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


def own_part(count: int, rank: int, devices: int) -> Sequence[int]:
    """Return which of ``count`` pictures to validate with are a device's; one of another device's if it has none."""
    return range(rank, count, devices) or [rank % count]


class PseudoPairData(pl.LightningDataModule):
    """Pseudo-pairs of photographs, for training and validation.

    Workers decode, crop and mirror; pairs are made from the whole batch on its device. The same seed gives the same
    batches for any number of workers.

    Args:
        batch_size: number of photographs in one device's batch.
        size: side of the square crops in pixels, a multiple of 16.
        pairs: creates pairs from photographs.
        seed: seed of all randomness.
        workers: number of reading processes for each device.
        validation_count: number of validation photographs.
        repeats: draws of each photograph in an epoch.
        unpaired_fraction: fraction of a batch whose references are other photographs.
        pairing: the choice of the other photograph: ``class`` (from the same folder), ``nearest`` (by a frozen
            network's features) or ``random``.
        zoom: the shorter side of a photograph is between 1 and ``zoom`` crops long.
        unpaired_ramp: number of batches over which that fraction rises from 0, so that the network first learns from
            pseudo-pairs.
        backbone: the network whose features define ``nearest``.
        validation_pairs: a pairs file (lines of ``target,reference``) whose results every validation measures.
        overfit: train and validate on a single batch: a network that cannot memorise it cannot learn.
    """

    _SOURCE: ClassVar[str] = "data.root"  # the option that names the photographs

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
        self.references: list[Path] = []  # photographs that are only references
        self.partners: Partners | None = None
        self.validation_paths: Sequence[Photograph] = ()
        self.batches_done = 0

    def photographs(self) -> tuple[Sequence[Photograph], Sequence[Photograph]]:
        """Return the photographs for training and those for validation."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """List the photographs and read some of them before training begins.

        Raises:
            UserError: there are no photographs, too few for a batch, or none in colour.
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
                f"none of the {len(self.training_paths)} training photographs is a readable colour photograph; choose"
                f" another {self._SOURCE}"
            )
        self.validation_paths = colourful(validation, self.validation_count, self.seed)
        if not self.validation_paths:
            raise UserError("none of the validation photographs is a readable colour photograph; choose others")
        if self.unpaired_fraction:
            self.partners, self.references = self.choose_partners()
        log.info(
            "training on %d photographs, validating on %d; grey ones are left out as they are drawn",
            len(self.training_paths),
            len(self.validation_paths),
        )

    def choose_partners(self) -> tuple[Partners, list[Path]]:
        """Return the chooser of references for unpaired pairs, and the photographs that are only references."""
        return partners_by(self.pairing, cast(Sequence[Path], self.training_paths), self.backbone), []

    def order(self) -> Callable[[np.random.Generator], NDArray[np.int64]] | None:
        """Return a function that draws the order of an epoch; None for a uniformly random order."""
        return None

    def unpaired(self, batches: int) -> int:
        """Return the number of unpaired pairs in a device's batch after a number of batches."""
        ramp = min(1.0, batches / self.unpaired_ramp) if self.unpaired_ramp else 1.0
        return round(self.unpaired_fraction * ramp * self.batch_size)

    def train_dataloader(self) -> DataLoader[Crop]:
        """Return the loader of this device's training crops."""
        if self.overfit:
            return self._loader(self._crops(), batch_sampler=[self._first_batch()] * _OVERFIT_EPOCH)
        sampler = self._batches()
        sampler.skip, self.batches_done = self.batches_done, 0
        return self._loader(self._crops(), batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Return the loaders of this device's share of the validation crops, and of the given validation pairs."""
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

        With more devices than pictures, some devices have none. They get a picture of another device, so that all
        devices take part in the collective operations after a validation, and must not count it.
        """
        pictures = len(self.validation_pairs) if loader else len(self.validation_paths)
        return self.overfit or rank_and_devices(self.trainer)[0] < pictures

    def _share(self, dataset: Any) -> Subset[Any]:
        return Subset(dataset, own_part(len(dataset), *rank_and_devices(self.trainer)))

    def _batches(self) -> DrawnBatches:
        return DrawnBatches(
            len(self.training_paths),
            self.batch_size,
            self.seed,
            *rank_and_devices(self.trainer),
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
        """Return the position in the epoch, for a checkpoint."""
        assert self.trainer is not None
        return {"batches_had": self.trainer.fit_loop.epoch_loop.batch_progress.current.processed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the position in the epoch; photographs that were already drawn are skipped without being read."""
        self.batches_done = state_dict["batches_had"]

    def on_after_batch_transfer(self, batch: Crop, dataloader_idx: int) -> Batch:
        """Create pairs from a batch of crops, on its device."""
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

    def _loader(self, dataset: Any, **options: Any) -> DataLoader[Crop]:
        return DataLoader(
            dataset,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )


class BuiltinData(PseudoPairData):
    """The colour photographs that come with scikit-image: six for training, a stereo pair for validation.

    Args:
        names: files of scikit-image's folder ``data`` to train on instead of the six.
        **options: see :class:`PseudoPairData`.
    """

    def __init__(self, names: Sequence[str] = BUILTIN, **options: Any) -> None:
        super().__init__(**options)
        self.names = tuple(names)

    def photographs(self) -> tuple[Sequence[Path], Sequence[Path]]:
        """Return scikit-image's photographs.

        Raises:
            UserError: scikit-image has no file of such a name.
        """
        folder = Path(skimage.__file__).parent / "data"
        for name in self.names:
            if not (folder / name).is_file():
                raise UserError(f"data.names: scikit-image has no {name}; use such as {', '.join(BUILTIN)}")
        return [folder / name for name in self.names], [folder / name for name in BUILTIN_VALIDATION]


class FolderData(PseudoPairData):
    """Any tree of photographs.

    Args:
        root: the folder.
        validation_root: a folder of validation photographs; without it ``validation_count`` photographs of ``root``,
            drawn with the seed, are held out (at most a fifth).
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
    """Return the photographs for training and validation, from a folder each or from one folder that is split.

    People that :mod:`pdnla.data.held_out` names are left out of training's.

    Raises:
        UserError: a folder is missing or holds no image, or the only folder holds a single image.
    """
    paths = without_held_out(list_images(root, natural=False), root)
    if validation_root is not None:
        return paths, list_images(validation_root, natural=False)
    return split(paths, validation_count, seed, root)


class PairsData(PseudoPairData):
    """Targets and references from a pairs file (see ``pdnla-pairs``); targets also make pseudo-pairs.

    Args:
        pairs_file: ``target,reference`` lines.
        root: folder of the relative paths; None for the file's own folder.
        **options: see :class:`PseudoPairData`; ``pairing`` has no effect.
    """

    _SOURCE = "data.pairs_file"

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
        """Return the chooser of each target's references, and the photographs that are only references."""
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
    """Return training photographs, and ``validation_count`` (at most a fifth), drawn with the seed, for validation.

    Raises:
        UserError: there is only one.
    """
    training, validation = split_numbers(len(paths), validation_count, seed, source)
    return [paths[i] for i in training], [paths[i] for i in validation]


def split_numbers(
    count: int, validation_count: int, seed: int, source: object
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split ``range(count)`` as :func:`split` splits photographs; both parts are sorted.

    Raises:
        UserError: there is only one.
    """
    if count < 2:
        raise UserError(f"{source}: holds a single photograph; training needs another one for validation")
    order = np.random.default_rng(seed).permutation(count)
    held_out = max(1, min(validation_count, count // 5))
    return np.sort(order[held_out:]), np.sort(order[:held_out])


class ImageNetData(FolderData):
    """ImageNet in ILSVRC's layout: ``train/<wnid>/*.JPEG`` below the root, and ``val/`` if it exists."""

    def photographs(self) -> tuple[Sequence[Path], Sequence[Path]]:
        """Return the photographs of ``train/``, and of ``val/`` or a seeded split.

        Raises:
            UserError: there is no folder ``train/``, or a folder holds no image.
        """
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
        validation_root: a folder of validation shards; without it ``validation_count`` photographs of ``root``, drawn
            with the seed, are held out (at most a fifth).
        shuffle_shards: number of shards that are mixed at a time, for disks with slow random reads; 0 for all.
        **options: see :class:`PseudoPairData`; ``pairing`` is ``class`` or ``random``.
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
        """Return a function that draws the order of an epoch; None for a uniformly random order."""
        if not self.shuffle_shards:
            return None
        return partial(window_order, cast(Shards, self.training_paths).shard, self.shuffle_shards)
