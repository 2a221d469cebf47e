"""Finding pictures that show the same kind of thing, by a frozen network's features."""

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
    """Pictures as squares, sRGB uint8, ``(3, SIDE, SIDE)``; a sentence and zeros for those that cannot be read."""

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
    """Return one unit vector a picture, ``(B, D)``, of sRGB in [0, 1], ``(B, 3, H, W)``.

    The means of the upper and the lower half of the coarsest feature map of the picture's luminance. Colours play no
    part, because the target has none, and left and right none either: the reference may well be the other way round.
    (Measured by ``scripts/retrieval_accuracy.py``; finer maps and pooling made it no better, and quarters better only
    where every picture of a class faces the same way.)
    """
    coarsest = backbone(color.grey(pictures) * 2 - 1)[-1].float()
    return functional.normalize(functional.adaptive_avg_pool2d(coarsest, (2, 1)).flatten(1), dim=1)


class Index:
    """The descriptors of a list of pictures.

    Args:
        paths: the pictures.
        vectors: their unit vectors, ``(N, D)``; zeros for those that could not be read.
    """

    def __init__(self, paths: Sequence[Path], vectors: Tensor) -> None:
        self.paths, self.vectors = list(paths), vectors

    @property
    def readable(self) -> Tensor:
        """Which pictures could be read, ``(N,)``."""
        return self.vectors.any(dim=1)

    def nearest(self, count: int) -> tuple[Tensor, Tensor]:
        """Return each picture's nearest other ones, best first: indices and cosines, both ``(N, count)``."""
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
) -> Index:
    """Describe pictures, or take what was computed before of those that have not changed since.

    Of several processes that want the same index one computes it and the others wait for it. Pictures that cannot be
    read are left out, and tried again the next time.

    Args:
        paths: the pictures.
        backbone: what describes them.
        device: where.
        workers: processes that read pictures.
        progress: is told how many pictures are done, and of how many.
        left_out: is told, in a sentence, of each picture that cannot be read; None: a warning in the log.

    Raises:
        UserError: the backbone cannot be had, or the index cannot be kept.
    """
    keys = [_key(path) for path in paths]
    name = hashlib.sha256(os.fsencode(os.path.commonpath([p.absolute().parent for p in paths])))
    file = cache_folder() / f"index_{backbone}_{name.hexdigest()[:16]}.safetensors"
    with lock(file.with_suffix(".lock")):
        known = _known(file)
        missing = [i for i, key in enumerate(keys) if key not in known]
        if missing:
            log.info("describing %d pictures, %d are known already", len(missing), len(paths) - len(missing))
            described = _describe(
                [paths[i] for i in missing],
                load_backbone(backbone),
                device,
                workers,
                progress or (lambda done, total: None),
                left_out or (lambda sentence: log.warning("left out: %s", sentence)),
            )
            before = len(known)
            try:
                vectors = zip(missing, described, strict=True)
                known.update((keys[i], vector) for i, vector in vectors if vector is not None)
            finally:  # interrupted, it goes on from here the next time
                if len(known) > before:
                    _keep(file, known)
    nothing = torch.zeros_like(next(iter(known.values()), torch.zeros(1)))
    return Index(paths, torch.stack([known.get(key, nothing) for key in keys]))


def _describe(
    paths: Sequence[Path],
    backbone: Backbone,
    device: str | torch.device,
    workers: int,
    progress: Callable[[int, int], None],
    left_out: Callable[[str], None],
) -> Iterator[Tensor | None]:
    """Yield the descriptor of each picture, or None for one that cannot be read."""
    workers = min(workers, len(paths) // _BATCH)
    loader = DataLoader(_Squares(paths), batch_size=_BATCH, num_workers=workers)
    backbone.to(device)
    done = 0
    for complaints, squares in loader:
        with torch.inference_mode():
            vectors = descriptors(squares.to(device).float() / 255, backbone).cpu()
        for complaint, vector in zip(complaints, vectors, strict=True):
            if complaint:
                left_out(complaint)
            yield None if complaint else vector
        done += len(squares)
        progress(done, len(paths))


def _keep(file: Path, known: dict[str, Tensor]) -> None:
    state = {"vectors": torch.stack(list(known.values()))}
    with replacing(file) as temporary:
        temporary.write_bytes(safetensors.torch.save(state, {"keys": "\n".join(known), "format": _FORMAT}))


def _key(path: Path) -> str:
    """Return what a picture is known by: changed or moved, it is another."""
    # One line of UTF-8, as the file's metadata must be.
    name = os.fsencode(path.absolute()).decode("utf-8", "backslashreplace").replace("\n", "\\n")
    try:
        status = path.stat()
    except OSError:  # such as a link to nowhere; reading it says why it is left out
        return f"{name}||"
    return f"{name}|{status.st_size}|{status.st_mtime_ns}"


def _known(file: Path) -> dict[str, Tensor]:
    """Return the vectors of a cache file, none if there is no whole one."""
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            if metadata.get("format") != _FORMAT:
                return {}
            return dict(zip(metadata["keys"].split("\n"), content.get_tensor("vectors"), strict=True))
    except FileNotFoundError:
        return {}
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        log.warning("%s: is not a whole index (%s); it is made anew", file, error)
        return {}
