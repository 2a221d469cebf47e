"""Lightning data modules: where photographs come from, and the pseudo-pairs made of them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import skimage
import torch
from torch.utils.data import DataLoader, Subset

from pdnla.data.images import list_images
from pdnla.data.photographs import Crop, DrawnBatches, FixedCrops, TrainingCrops, colourful
from pdnla.data.pseudo_pairs import Pairs, PseudoPairs
from pdnla.errors import UserError
from pdnla.network import STRIDE

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

# Validation measures photographs as they are, and the same whatever training does to its own.
VALIDATION_PAIRS = PseudoPairs(noise=0.0, recolour=0.0)


class Batch(NamedTuple):
    """A batch for a step: the pairs, and how many grey and unreadable photographs were left out while drawing it."""

    pairs: Pairs
    grey: int
    unreadable: int


class PseudoPairData(pl.LightningDataModule):
    """Pseudo-pairs of photographs, for training and validation.

    Workers decode, crop and mirror; pairs are made on the batch, on its device. The same seed gives the same batches,
    whatever the number of workers.

    Args:
        batch_size: photographs in one device's batch.
        size: side of the square crops in pixels, a multiple of 16.
        pairs: how a photograph becomes a pair.
        seed: where all randomness comes from.
        zoom: the shorter side of a photograph is between 1 and ``zoom`` crops long.
        workers: processes that read photographs for each device.
        validation_count: photographs that validate.
        repeats: draws of each photograph in an epoch.
    """

    def __init__(
        self,
        batch_size: int,
        size: int,
        pairs: PseudoPairs,
        seed: int,
        zoom: float = 1.5,
        workers: int = 2,
        validation_count: int = 64,
        repeats: int = 1,
    ) -> None:
        super().__init__()
        if size < STRIDE or size % STRIDE:
            raise UserError(
                f"data.size={size}: must be a multiple of {STRIDE}, such as {max(1, size // STRIDE) * STRIDE}"
            )
        for name, value in (
            ("batch_size", batch_size),
            ("validation_count", validation_count),
            ("repeats", repeats),
        ):
            if value < 1:
                raise UserError(f"data.{name}={value}: must be at least 1")
        if zoom < 1:
            raise UserError(f"data.zoom={zoom}: must be at least 1")
        self.batch_size, self.size, self.pairs, self.seed, self.zoom = batch_size, size, pairs, seed, zoom
        self.workers, self.validation_count, self.repeats = workers, validation_count, repeats
        self.training_paths: list[Path] = []
        self.validation_paths: list[Path] = []
        self.batches_had = 0

    def photographs(self) -> tuple[Sequence[Path], Sequence[Path]]:
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
        self.training_paths = list(training)
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
        log.info(
            "training on %d photographs, validating on %d; grey ones are left out as they are drawn",
            len(self.training_paths),
            len(self.validation_paths),
        )

    def train_dataloader(self) -> DataLoader[Crop]:
        """Return the loader of this device's training crops."""
        sampler = DrawnBatches(
            len(self.training_paths), self.batch_size, self.seed, *self._place(), repeats=self.repeats
        )
        sampler.skip, self.batches_had = self.batches_had, 0
        return self._loader(TrainingCrops(self.training_paths, self.size, self.zoom), batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader[Crop]:
        """Return the loader of this device's share of the validation crops."""
        crops = FixedCrops(self.validation_paths, self.size, self.seed)
        rank, devices = self._place()
        share = Subset(crops, range(rank, len(crops), devices))
        return self._loader(share, batch_size=self.batch_size)

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
        photographs = batch.truth.float() / 255
        seeds = torch.as_tensor(batch.seed).tolist()
        grey, unreadable = torch.as_tensor(batch.grey).sum(), torch.as_tensor(batch.unreadable).sum()
        pairs = self.pairs if training else VALIDATION_PAIRS
        return Batch(pairs(photographs, seeds), int(grey), int(unreadable))

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
        paths = list_images(self.root)
        if self.validation_root is not None:
            return paths, list_images(self.validation_root)
        if len(paths) < 2:
            raise UserError(f"{self.root}: holds a single photograph; training needs another one to validate with")
        order = np.random.default_rng(self.seed).permutation(len(paths))
        held_out = max(1, min(self.validation_count, len(paths) // 5))
        training, validation = np.sort(order[held_out:]), np.sort(order[:held_out])
        return [paths[i] for i in training], [paths[i] for i in validation]


class ImageNetData(FolderData):
    """ImageNet in ILSVRC's layout: ``train/<wnid>/*.JPEG`` under the root, and ``val/`` if it is there."""

    def photographs(self) -> tuple[Sequence[Path], Sequence[Path]]:
        """Return the photographs of ``train/``, and of ``val/`` or a seeded split."""
        root = self.root
        if not (root / "train").is_dir():
            raise UserError(f"{root}: has no folder train/; data.root must be ILSVRC's folder that holds train/<wnid>/")
        if self.validation_root is None and (root / "val").is_dir():
            self.validation_root = root / "val"
        self.root = root / "train"
        try:
            return super().photographs()
        finally:
            self.root = root
