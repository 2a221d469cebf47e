"""Pairs whose correspondence was computed once and is kept in files, so that a training step computes only the network.

Each pair has a file, which is written atomically, so that pairs can be added to a folder while a training reads it.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pdnla.data.hard_pairs import FOLLOWED, SIDE, HardPair
from pdnla.data.modules import Batch, own_part, rank_and_devices
from pdnla.data.photographs import Draw, mix_seeds
from pdnla.data.pseudo_pairs import Pairs
from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.images import color
from pdnla.network import STRIDE
from pdnla.network.correspondence import Carried, Opinion
from pdnla.network.guide import Expected, Guide, hints_of
from pdnla.network.prior import ColorPrior
from pdnla.weights import load_network

log = logging.getLogger(__name__)

REFERENCE = 128
"""Side of the kept references, squares: only E_c sees them."""
LEVELS = 127 / 6
"""Steps of a feature in a byte, for one unit."""
_ENDLESS = 1 << 40  # batches
_FORMER = {"beside": "side_by_side"}  # earlier names of kinds


class KeptCrop(NamedTuple):
    """A square of a kept pair, for a batch.

    Attributes:
        truth: sRGB in [0, 1], ``(3, S, S)``.
        reference: sRGB in [0, 1], ``(3, REFERENCE, REFERENCE)``.
        chroma: the transferred a* and b*, ``(2, S, S)``.
        confidence: in [0, 1], ``(1, S, S)``.
        opinion: a*, b*, cosine, agreement and difference, ``(5, S, S)``.
        seen: the backbone's feature maps of the target at strides 4, 8 and 16.
        follows: the reference has all of the truth's colours.
        seed: seed of all randomness.
        number: the pair's number in its folder.
    """

    truth: Tensor
    reference: Tensor
    chroma: Tensor
    confidence: Tensor
    opinion: Tensor
    seen: tuple[Tensor, ...]
    follows: bool
    seed: int
    number: int = 0


def pair_file(folder: Path, index: int) -> Path:
    """Return where a pair is kept."""
    return folder / f"{index:06d}.safetensors"


def count_pairs(folder: Path, known: int = 0) -> int:
    """Return the number of pairs of a folder before the first missing number, of which ``known`` need no check."""
    while pair_file(folder, known).exists():
        known += 1
    return known


def keep(path: Path, pair: HardPair, carried: Carried, opinion: Opinion, seen: Sequence[Tensor], side: int) -> None:
    """Write a pair and what was computed from it, atomically; all tensors are those of a batch of one.

    Args:
        path: the file.
        pair: the pair.
        carried: chroma and confidence at the truth's size.
        opinion: the second opinion, at its own size.
        seen: the backbone's maps of the target, of unit mean square at each place.
        side: both were matched at about ``side``² pixels.
    """
    reference = F.interpolate(pair.reference[None], (REFERENCE, REFERENCE), mode="bilinear", antialias=True)[0]
    state = {
        "truth": _bytes(pair.truth),
        "reference": _bytes(reference),
        "chroma": carried.chroma[0].half(),
        "confidence": _bytes(carried.confidence[0]),
        "opinion": torch.cat(opinion, dim=1)[0].half(),
    }
    for i, level in enumerate(seen):
        state[f"seen{i}"] = (level[0] * LEVELS).round().clamp(-127, 127).to(torch.int8)
    about = {"kind": pair.kind, "side": str(side), "size": json.dumps(list(pair.truth.shape[-2:]))}
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.torch.save({k: v.contiguous() for k, v in state.items()}, about))


def _bytes(x: Tensor) -> Tensor:
    return (x * 255).round().clamp(0, 255).to(torch.uint8)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, str, tuple[int, int]]]:
    """Open a kept pair; yield the open file, the kind, and height and width.

    Raises:
        UserError: the file is no kept pair.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata()
            height, width = json.loads(about["size"])
            kind = str(about["kind"])
            yield file, _FORMER.get(kind, kind), (int(height), int(width))
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is no kept pair ({error}); make it again") from error


def kind_and_size(path: Path) -> tuple[str, tuple[int, int]]:
    """Return the kind of a kept pair, one of :data:`~pdnla.data.hard_pairs.KINDS`, and its height and width.

    Raises:
        UserError: the file is no kept pair.
    """
    with _opened(path) as (_, kind, size):
        return kind, size


def read_crop(path: Path, size: int, rng: np.random.Generator | None, seed: int = 0) -> KeptCrop:
    """Read a square of ``size`` pixels of a kept pair: a random one, mirrored half of the time, or the centred one.

    Args:
        path: the file.
        size: side in pixels; a narrower picture is extended by its reflection.
        rng: the random generator; None for the centred square, not mirrored.
        seed: the crop's.

    Raises:
        UserError: the file is no kept pair.
    """
    with _opened(path) as (file, kind, (height, width)):
        top, left = (max(0, side - size) for side in (height, width))
        if rng is None:
            top, left = top // 2, left // 2
        else:
            top, left = int(rng.integers(top + 1)), int(rng.integers(left + 1))
        rows, columns = slice(top, top + size), slice(left, left + size)
        parts = [file.get_slice(name)[:, rows, columns] for name in ("truth", "chroma", "confidence")]
        reference, opinion = file.get_tensor("reference"), file.get_tensor("opinion")
        seen = [file.get_tensor(f"seen{i}") for i in range(3)]
    truth, chroma, confidence = (_extended(part.float(), size) for part in parts)
    if len(opinion) == 4:  # pairs of former versions; no place then counts as the same in the same light
        opinion = torch.cat([opinion, torch.ones_like(opinion[:1])])

    def window(level: Tensor, stride: int) -> Tensor:
        """Sample a whole picture's map at the places of the crop, ``stride`` pixels apart."""
        step = torch.arange(stride / 2, size, stride)
        y, x = ((start + step) / side * 2 - 1 for start, side in ((top, height), (left, width)))
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        return F.grid_sample(level[None].float(), grid[None], padding_mode="border", align_corners=False)[0]

    maps = [window(opinion, 1), *(window(level, s) / LEVELS for level, s in zip(seen, (4, 8, 16), strict=True))]
    parts = [truth / 255, chroma, confidence / 255, *maps]
    if rng is not None:
        if rng.random() < 0.5:
            parts = [part.flip(-1) for part in parts]
        if rng.random() < 0.5:
            reference = reference.flip(-1)
    truth, chroma, confidence, opinion, *levels = parts
    reference = reference.float() / 255
    return KeptCrop(truth, reference, chroma, confidence, opinion, tuple(levels), kind in FOLLOWED, seed)


def guide_of(chroma: Tensor, confidence: Tensor, opinion: Tensor, seen: Sequence[Tensor]) -> Guide:
    """Return the guide of the parts of :class:`KeptCrop`, in a batch."""
    return Guide(chroma, hints_of(Carried(chroma, confidence), opinion), tuple(seen), difference=opinion[:, 4:])


def _extended(x: Tensor, size: int) -> Tensor:
    missing = [size - side for side in x.shape[-2:]]
    if not any(missing):
        return x
    # Unlike torch, numpy reflects more than once where a picture is narrow.
    return torch.from_numpy(np.pad(x.numpy(), [(0, 0), *((0, more) for more in missing)], mode="reflect"))


class KeptPairs(Dataset[KeptCrop]):
    """Crops of the kept pairs of a folder; item ``Draw(number, seed)``, or a number for the centre crop."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def __getitem__(self, draw: Draw | int) -> KeptCrop:
        """Return a crop."""
        if isinstance(draw, Draw):
            path = pair_file(self.folder, draw.photograph)
            crop = read_crop(path, self.size, np.random.default_rng(draw.seed), draw.seed)
            return crop._replace(number=draw.photograph)
        return read_crop(pair_file(self.folder, draw), self.size, None, draw)._replace(number=draw)


class CountedPairs:
    """The number of pairs that each batch is drawn from, in a folder that may grow.

    A resumed training draws its batches from the same numbers. Only pairs before the first missing number count.

    Args:
        folder: the pairs.
        every: number of batches after which they are counted again.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.counts: dict[int, int] = {}

    def at(self, batch: int) -> int:
        """Return the number of pairs for a batch, counting them if that has not been done."""
        start = batch // self.every * self.every
        if start not in self.counts:
            known = max((n for b, n in self.counts.items() if b < start), default=0)
            self.counts[start] = count_pairs(self.folder, known)
        return self.counts[start]

    def until(self, batch: int) -> dict[int, int]:
        """Return the counts for the batches before this one."""
        return {start: count for start, count in self.counts.items() if start < batch}


class EndlessBatches(Sampler[list[Draw]]):
    """Batches of different pairs; each depends only on the seed and its number. Devices share them.

    Args:
        counted: the number of pairs.
        batch_size: number of pairs in a batch of one device.
        seed: seed of all randomness.
        first: number of the first batch.
        rank: number of this device.
        devices: number of all devices. If a folder grows during training, they may count its pairs at different times,
            and the same pair may then be in the batches of two.
    """

    def __init__(
        self, counted: CountedPairs, batch_size: int, seed: int, first: int = 0, rank: int = 0, devices: int = 1
    ) -> None:
        self.counted, self.batch_size, self.seed, self.first = counted, batch_size, seed, first
        self.rank, self.devices = rank, devices

    def __len__(self) -> int:
        return _ENDLESS

    def __iter__(self) -> Iterator[list[Draw]]:
        batch = self.first
        while True:
            rng = np.random.default_rng([self.seed, batch])
            together = self.batch_size * self.devices
            chosen = rng.choice(self.counted.at(batch), together, replace=False)
            seeds = rng.integers(2**62, size=together)
            own = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
            yield [Draw(int(i), int(s)) for i, s in zip(chosen[own], seeds[own], strict=True)]
            batch += 1


class KeptPairData(pl.LightningDataModule):
    """Batches of kept pairs (``scripts/keep_pairs.py`` makes them).

    Args:
        root: folder of the pairs to train on, numbered from 0; pairs may be added during
            training. Those for validation are in its folder ``validation``.
        batch_size: number of pairs in a batch of one device.
        size: side of the square crops in pixels, a multiple of 16.
        seed: seed of all randomness.
        workers: number of reading processes.
        validation_count: largest number of validation pairs.
        recount: number of batches after which the pairs are counted again.
        recolour: probability that a pair whose reference has all of the truth's colours has its chroma mixed at random.
        turn: probability that its hues are rotated by any angle instead.
        mistakes: probability that a part of the transferred chroma is replaced by chroma from another place.
        backbone: the network by which the pairs were matched.
        priors: weights whose priors give the colours to expect in training, for a model with ``expects``: pair i those
            of ``priors[i % len(priors)]``, which has not seen its photographs; a prior is surer of those that it has
            seen. None: the network's own, for all.

    Raises:
        UserError: ``size`` is no multiple of 16 or too large, or ``priors`` names weights without a prior.
    """

    def __init__(
        self,
        root: str,
        batch_size: int,
        size: int,
        seed: int,
        workers: int,
        validation_count: int,
        recount: int,
        recolour: float,
        turn: float,
        mistakes: float,
        backbone: str,
        priors: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if size < STRIDE or size % STRIDE:
            raise UserError(f"data.size={size}: must be a multiple of {STRIDE}")
        if size > SIDE:
            raise UserError(f"data.size={size}: kept pairs have about {SIDE}² pixels; use at most {SIDE}")
        if backbone != "efficientnet_lite0":
            raise UserError(f"backbone={backbone}: pairs are kept with efficientnet_lite0's maps; use that")
        self.root, self.batch_size, self.size, self.seed, self.workers = Path(root), batch_size, size, seed, workers
        self.validation_count = validation_count
        self.recolour, self.turn, self.mistakes = recolour, turn, mistakes
        self.priors = [_prior(weights) for weights in priors]
        self.counted = CountedPairs(self.root, recount)
        self.batches_had = 0

    def setup(self, stage: str | None = None) -> None:
        """Check that there are pairs, and that the training fits them.

        Raises:
            UserError: there are too few for a batch of all devices, or none for validation; the training has a
                precision in which pairs cannot be prepared, or a network for which ``priors`` would have no use.
        """
        if self.trainer is not None:
            if self.trainer.precision in ("bf16-true", "64-true"):
                raise UserError(
                    f"trainer.precision={self.trainer.precision}: data=kept_pairs needs 32-true or bf16-mixed"
                )
            network = getattr(self.trainer.lightning_module, "network", None)
            if self.priors and not getattr(network, "expects", True):
                raise UserError("data.priors: the network expects no colours; set model.expects=true or data.priors=[]")
        together = self.batch_size * rank_and_devices(self.trainer)[1]
        if self.counted.at(self.batches_had) < together:
            raise UserError(
                f"data.root={self.root}: holds fewer kept pairs than a batch of {together}; make them with"
                " scripts/keep_pairs.py"
            )
        if not pair_file(self.root / "validation", 0).exists():
            raise UserError(f"data.root={self.root}: holds no pairs in its folder validation; make them first")

    def train_dataloader(self) -> DataLoader[KeptCrop]:
        """Return the endless loader of training crops."""
        batches = EndlessBatches(
            self.counted, self.batch_size, self.seed, self.batches_had, *rank_and_devices(self.trainer)
        )
        return self._loader(KeptPairs(self.root, self.size), batch_sampler=batches)

    def val_dataloader(self) -> DataLoader[KeptCrop]:
        """Return the loader of the centred squares of this device's validation pairs."""
        own = own_part(self._validation_pairs(), *rank_and_devices(self.trainer))
        return self._loader(KeptPairs(self.root / "validation", self.size), sampler=own, batch_size=self.batch_size)

    def validates(self, loader: int) -> bool:
        """Return whether this device has validation pairs of its own; else it gets one of another device."""
        return rank_and_devices(self.trainer)[0] < self._validation_pairs()

    def _validation_pairs(self) -> int:
        return min(self.validation_count, count_pairs(self.root / "validation"))

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches done, and the numbers of pairs that they were drawn from."""
        assert self.trainer is not None
        had = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        # A batch is drawn ahead of its step.
        return {"batches_had": had, "counts": self.counted.until(had + 1)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the last batch of a checkpoint."""
        self.batches_had = state_dict["batches_had"]
        self.counted.counts = dict(state_dict["counts"])

    def on_after_batch_transfer(self, batch: KeptCrop, dataloader_idx: int) -> Batch:
        """Create a batch from crops, on its device; in training, recolour pairs and add mistakes."""
        seeds = torch.as_tensor(batch.seed).tolist()
        truth, reference, chroma, confidence = batch.truth, batch.reference, batch.chroma, batch.confidence
        opinion = batch.opinion
        if self.trainer is None or self.trainer.training:
            follows = torch.as_tensor(batch.follows).tolist()
            mixing = torch.stack([self._mixing(s, f) for s, f in zip(seeds, follows, strict=True)]).to(truth)
            truth, reference = mix_chroma(truth, mixing), mix_chroma(reference, mixing)
            chroma, second = (torch.einsum("bij,bjhw->bihw", mixing, x) for x in (chroma, opinion[:, :2]))
            opinion = torch.cat([second, opinion[:, 2:]], dim=1)
            chroma, confidence = add_mistakes(chroma, confidence, seeds, self.mistakes)
        pairs = Pairs(color.grey(truth) * 2 - 1, reference * 2 - 1, truth * 2 - 1)
        guide = guide_of(chroma, confidence, opinion, batch.seen)
        if self.priors and (self.trainer is None or self.trainer.training):
            guide = guide._replace(expected=self._expected(pairs.target, guide, torch.as_tensor(batch.number)))
        return Batch(pairs, 0, mix_seeds(*seeds), 0, 0, guide)

    def _expected(self, target: Tensor, guide: Guide, numbers: Tensor) -> Expected:
        """Return the colours to expect in the targets of pairs with these numbers, by priors that do not know them."""
        found = [prior.to(target.device).expected(target, guide.seen) for prior in self.priors]
        which = (numbers.to(target.device) % len(found)).tolist()
        return Expected(
            *(torch.stack([parts[k][row] for row, k in enumerate(which)]) for parts in zip(*found, strict=True))
        )

    def _mixing(self, seed: int, follows: bool) -> Tensor:
        """Return the matrix that a pair's chroma is multiplied by, ``(2, 2)``."""
        rng = np.random.default_rng([seed, 1])
        chance = rng.random()
        if not follows or chance > self.recolour + self.turn:
            return torch.eye(2)
        if chance < self.turn:
            angle, scale = rng.uniform(-np.pi, np.pi), rng.uniform(0.6, 1.3)
            turned = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            return torch.tensor(turned, dtype=torch.float32) * scale
        return torch.eye(2) + 0.3 * torch.from_numpy(rng.standard_normal((2, 2), dtype=np.float32))

    def _loader(self, dataset: Any, **options: Any) -> DataLoader[KeptCrop]:
        return DataLoader(dataset, num_workers=self.workers, persistent_workers=self.workers > 0, **options)


def _prior(weights: str) -> ColorPrior:
    network = load_network(weights)
    prior = getattr(network, "prior", None)
    if not isinstance(prior, ColorPrior):
        raise UserError(f"data.priors: {weights} has no prior; name weights that scripts/train_prior.py wrote")
    return prior.eval()


def mix_chroma(rgb: Tensor, mixing: Tensor) -> Tensor:
    """Multiply the chroma of sRGB pictures in [0, 1], ``(B, 3, H, W)``, by ``(B, 2, 2)``, within sRGB."""
    changed = (mixing != torch.eye(2).to(mixing)).flatten(1).any(dim=1)
    if not changed.any():
        return rgb
    lab = color.rgb_to_lab(rgb[changed])
    chroma = torch.einsum("bij,bjhw->bihw", mixing[changed], lab[:, 1:])
    result = rgb.clone()
    result[changed] = color.lab_to_rgb(torch.cat([lab[:, :1], chroma], dim=1))
    return result


def add_mistakes(chroma: Tensor, confidence: Tensor, seeds: Sequence[int], probability: float) -> tuple[Tensor, Tensor]:
    """Replace a part of transferred chroma by chroma from another place, and lower its confidence there.

    In a soft ellipse, chroma comes from another place of the same crop or from another of the batch, and confidence
    falls by up to a half, as correspondence is half sure of its own mistakes.

    Args:
        chroma: ``(B, 2, S, S)``.
        confidence: ``(B, 1, S, S)``.
        seeds: a seed for each pair.
        probability: of a mistake in a pair.
    """
    chroma, confidence = chroma.clone(), confidence.clone()
    original, size = chroma.clone(), chroma.shape[-1]
    place = (torch.arange(size, device=chroma.device) + 0.5) / size
    for row, seed in enumerate(seeds):
        rng = np.random.default_rng([seed, 2])
        if rng.random() >= probability:
            continue
        y, x, tall, wide = (*rng.uniform(0, 1, 2), *rng.uniform(0.1, 0.35, 2))
        away = (((place - y) / tall) ** 2)[:, None] + (((place - x) / wide) ** 2)[None, :]
        mask = torch.sigmoid((1 - away) * 8)
        source = original[(row + 1) % len(seeds)] if rng.random() < 0.5 else original[row]
        wrong = source.roll(tuple(int(n) for n in rng.integers(size // 4, size * 3 // 4, 2)), dims=(-2, -1))
        chroma[row] = torch.lerp(chroma[row], wrong, mask)
        confidence[row] = confidence[row] * (1 - float(rng.uniform(0, 0.5)) * mask)
    return chroma, confidence
