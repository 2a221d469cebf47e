"""Retrieval of pictures with similar content, by a frozen network's features."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from pdnla.backbones import Backbone, load_backbone
from pdnla.errors import UserError
from pdnla.files import cache_folder, lock, replacing
from pdnla.images import color
from pdnla.images.io import read_image

log = logging.getLogger(__name__)

SIDE = 224
_BATCH = 16
_FORMAT = "4"  # changes when descriptors do


class _Squares(Dataset[tuple[str, Tensor]]):
    """Pictures resized to squares, sRGB uint8, ``(3, SIDE, SIDE)``; zeros and a sentence for unreadable ones."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        try:
            rgb = read_image(self.paths[index], SIDE).rgb()
        except UserError as error:
            return str(error), torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
        square = np.array(rgb.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        return "", torch.from_numpy(square).permute(2, 0, 1).contiguous()


def descriptors(pictures: Tensor, backbone: Backbone) -> Tensor:
    """Return one unit vector per picture, ``(B, D)``, from sRGB in [0, 1], ``(B, 3, H, W)``.

    A vector holds the means of the upper and the lower half of the coarsest feature map of the picture's luminance. It
    ignores colours, because the target has none, and left and right, because the reference may be mirrored.
    (``scripts/retrieval_accuracy.py`` measures it. Finer maps and finer pooling were not better; quarters were better
    only if all pictures of a class face the same way.)
    """
    coarsest = backbone(color.grey(pictures) * 2 - 1)[-1].float()
    return functional.normalize(functional.adaptive_avg_pool2d(coarsest, (2, 1)).flatten(1), dim=1)


class Index:
    """The descriptors of a list of pictures.

    Args:
        paths: the pictures.
        vectors: their unit vectors, ``(N, D)``; zeros for unreadable pictures.
    """

    def __init__(self, paths: Sequence[Path], vectors: Tensor) -> None:
        self.paths, self.vectors = list(paths), vectors

    @property
    def readable(self) -> Tensor:
        """Mask of the readable pictures, ``(N,)``."""
        return self.vectors.any(dim=1)

    def nearest(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the nearest other pictures of each, best first: indices and cosines, both ``(N, count)``."""
        count = min(count, len(self.paths) - 1)
        indices, scores = [], []
        for start, rows in enumerate(self.vectors.split(1024)):
            cosines = rows @ self.vectors.T
            own = torch.arange(len(rows))
            cosines[own, start * 1024 + own] = -2.0
            cosines[:, ~self.readable] = -2.0
            best = cosines.topk(count, dim=1)
            indices.append(best.indices)
            scores.append(best.values)
        return torch.cat(indices), torch.cat(scores)


def build_index(
    paths: Sequence[Path],
    backbone: str = "efficientnet_lite0",
    device: str | torch.device = "cpu",
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    left_out: Callable[[str], None] | None = None,
    cache: Path | None = None,
) -> Index:
    """Compute the descriptors of pictures, with a cache for pictures that have not changed.

    If several processes need the same index, one computes it and the others wait. Unreadable pictures are left out and
    tried again the next time.

    Args:
        paths: the pictures.
        backbone: name of the network.
        device: the device.
        workers: number of reading processes.
        progress: called with the number of finished pictures and the number of all.
        left_out: called with a sentence for each unreadable picture; None for a warning in the log.
        cache: the folder of the cache; None for the user's.

    Raises:
        UserError: the backbone is not available, or the index cannot be written.
    """
    keys = [_key(path) for path in paths]
    name = hashlib.sha256(os.fsencode(os.path.commonpath([p.absolute().parent for p in paths])))
    file = (cache or cache_folder()) / f"index_{backbone}_{name.hexdigest()[:16]}.safetensors"
    with lock(file.with_suffix(".lock")):
        cached = _read_cache(file)
        missing = [i for i, key in enumerate(keys) if key not in cached]
        if missing:
            log.info("describing %d pictures, %d are in the cache", len(missing), len(paths) - len(missing))
            described = _describe(
                [paths[i] for i in missing],
                load_backbone(backbone),
                device,
                workers,
                progress or (lambda done, total: None),
                left_out or (lambda sentence: log.warning("left out: %s", sentence)),
            )
            before = len(cached)
            try:
                vectors = zip(missing, described, strict=True)
                cached.update((keys[i], vector) for i, vector in vectors if vector is not None)
            finally:  # after an interruption, the next run continues here
                if len(cached) > before:
                    _write_cache(file, cached)
    zeros = torch.zeros_like(next(iter(cached.values()), torch.zeros(1)))
    return Index(paths, torch.stack([cached.get(key, zeros) for key in keys]))


def _describe(
    paths: Sequence[Path],
    backbone: Backbone,
    device: str | torch.device,
    workers: int,
    progress: Callable[[int, int], None],
    left_out: Callable[[str], None],
) -> Iterator[Tensor | None]:
    """Yield the descriptor of each picture; None for an unreadable one."""
    workers = min(workers, len(paths) // _BATCH)
    loader = DataLoader(_Squares(paths), batch_size=_BATCH, num_workers=workers)
    backbone.to(device)
    done = 0
    for errors, squares in loader:
        with torch.inference_mode():
            vectors = descriptors(squares.to(device).float() / 255, backbone).cpu()
        for error, vector in zip(errors, vectors, strict=True):
            if error:
                left_out(error)
            yield None if error else vector
        done += len(squares)
        progress(done, len(paths))


def _write_cache(file: Path, cached: dict[str, Tensor]) -> None:
    state = {"vectors": torch.stack(list(cached.values()))}
    with replacing(file) as temporary:
        temporary.write_bytes(safetensors.torch.save(state, {"keys": "\n".join(cached), "format": _FORMAT}))


def _key(path: Path) -> str:
    """Return the key of a picture in the cache, which changes with its path, size and time."""
    # One line of valid UTF-8, which the file's metadata require.
    name = os.fsencode(path.absolute()).decode("utf-8", "backslashreplace").replace("\n", "\\n")
    try:
        status = path.stat()
    except OSError:  # such as a broken link; the reason is reported when it is read
        return f"{name}||"
    return f"{name}|{status.st_size}|{status.st_mtime_ns}"


def _read_cache(file: Path) -> dict[str, Tensor]:
    """Return the vectors of a cache file; none if it is missing or damaged."""
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            if metadata.get("format") != _FORMAT:
                return {}
            return dict(zip(metadata["keys"].split("\n"), content.get_tensor("vectors"), strict=True))
    except FileNotFoundError:
        return {}
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        log.warning("%s: is a damaged index (%s); it is computed again", file, error)
        return {}
