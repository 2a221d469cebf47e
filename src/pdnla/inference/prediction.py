"""Colouring by Lightning's Trainer: each device of each node takes its share of the pictures and writes the results.

The share of a device follows from the list of all pictures, not from what is left of it, so that devices that begin at
different moments never take the same one; what has a result is then passed over.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, cast

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import BasePredictionWriter

from pdnla.images.io import read_image
from pdnla.inference.album import Job, Loaded, ResultWriter, batches, colour_batch, shared_reference
from pdnla.inference.colorizer import Colorizer


class Share(NamedTuple):
    """What one device is to colour, and how many of its pictures have results already."""

    jobs: list[Job]
    skipped: int


def share(jobs: Sequence[Job], rank: int, devices: int, overwrite: bool) -> Share:
    """Return the jobs of one of several devices: every so many-th, without those that are done."""
    own = jobs[rank::devices]
    waiting = [job for job in own if overwrite or not job.result.exists()]
    return Share(waiting, len(own) - len(waiting))


class Prediction(pl.LightningModule):
    """Colours the pictures that it is given.

    Args:
        jobs: all pictures, of all devices.
        batch_size: pictures of like shape coloured at a time.
        overwrite: colour again what has a result.
        **options: :class:`~pdnla.inference.colorizer.Colorizer`'s, without the device.
    """

    def __init__(self, jobs: Sequence[Job], batch_size: int, overwrite: bool, **options: Any) -> None:
        super().__init__()
        self.jobs, self.batch_size, self.overwrite, self.options = jobs, batch_size, overwrite, options
        self.reference = shared_reference(jobs)
        self.share = Share([], 0)
        self.failures: list[str] = []
        self.on_failure: Callable[[str], None] = lambda sentence: None

    def setup(self, stage: str) -> None:
        """Take this device's share and load the network."""
        self.share = share(self.jobs, self.trainer.global_rank, self.trainer.world_size, self.overwrite)
        if self.share.jobs:
            self.colorizer = Colorizer(device=self.trainer.strategy.root_device, **self.options)
            if self.reference is not None:
                self.colorizer.set_reference(read_image(self.reference))

    def predict_dataloader(self) -> "_Batches":
        """Return this device's pictures in batches, read ahead."""
        return _Batches(self)

    def transfer_batch_to_device(self, batch: list[Loaded], device: torch.device, dataloader_idx: int) -> list[Loaded]:
        """Leave pictures where they are: the colorizer brings them to the device at the size it needs."""
        return batch

    def predict_step(self, batch: list[Loaded], batch_idx: int) -> list[tuple[Job, Image.Image]]:
        """Return a result for each picture that can be coloured."""
        return list(colour_batch(self.colorizer, batch, self.failed))

    def failed(self, sentence: str) -> None:
        """Remember why a picture has no result."""
        self.failures.append(sentence)
        self.on_failure(sentence)


class _Batches:
    """A device's pictures; how many batches they make is known at the end."""

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction

    def __iter__(self) -> Iterator[list[Loaded]]:
        it = self.prediction
        return batches(it.share.jobs, it.batch_size, it.reference is not None, it.failed)


class Totals(NamedTuple):
    """What came of it on all devices; ``failures`` is a sentence each."""

    coloured: int
    skipped: int
    failures: list[str]
    seconds: float


class ResultsWriter(BasePredictionWriter):
    """Writes each result when it is there, whole, in threads beside the network.

    Attributes:
        totals: set at the end, the same on all devices.

    Args:
        tell: is told of each result that is written, and of each failure, on every device.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__(write_interval="batch")
        self.tell = tell
        self.coloured = 0
        self.totals: Totals | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to write."""
        self._writer, self._began = ResultWriter(), time.perf_counter()

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Begin to write the results of a batch."""
        for job, result in prediction:
            self._written(self._writer.write(job, result))

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the last results, and add up what came of it on all devices."""
        with self._writer:
            self._written(self._writer.rest())
        module = cast(Prediction, pl_module)
        own = (self.coloured, module.share.skipped, module.failures, time.perf_counter() - self._began)
        found: list[Any] = [own]
        if trainer.world_size > 1:
            found = [None] * trainer.world_size
            torch.distributed.all_gather_object(found, own)
        coloured, skipped, failures, seconds = zip(*found, strict=True)
        self.totals = Totals(sum(coloured), sum(skipped), list(chain(*failures)), max(seconds))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let go what has not begun to be written; what has is finished."""
        self._writer.__exit__(type(exception), exception, None)

    def _written(self, jobs: Sequence[Job]) -> None:
        for _ in jobs:
            self.coloured += 1
            self.tell()
