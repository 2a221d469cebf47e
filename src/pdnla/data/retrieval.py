"""Finding pictures that show the same kind of thing, by a frozen network's features."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from pdnla import color
from pdnla.backbones import Backbone, load_backbone
from pdnla.errors import UserError
from pdnla.files import replacing

log = logging.getLogger(__name__)

SIDE = 224
_BATCH = 16
_FORMAT = "2"  # changes when descriptors do


def cache_folder() -> Path:
    """Return where computed indices are kept: ``$PDNLA_CACHE``, or ``pdnla`` in the user's cache folder."""
    if chosen := os.environ.get("PDNLA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pdnla"


class _Squares(Dataset[tuple[int, Tensor]]):
    """Pictures as squares, or zeros for those that cannot be read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[bool, Tensor]:
        try:
            with Image.open(self.paths[index]) as image:
                image.draft("RGB", (SIDE, SIDE))
                rgb = ImageOps.exif_transpose(image).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            log.warning("%s: left out of the index, it cannot be read (%s)", self.paths[index], error)
            return False, torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
        return True, torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def descriptors(pictures: Tensor, backbone: Backbone) -> Tensor:
    """Return one unit vector a picture, ``(B, D)``, of sRGB in [0, 1], ``(B, 3, H, W)``.

    The spatial means of the two coarsest feature maps of the picture's luminance, each of unit length: colours play no
    part, because the target has none.
    """
    features = backbone(color.grey(pictures) * 2 - 1)[-2:]
    parts = [functional.normalize(f.float().mean(dim=(2, 3)), dim=1) for f in features]
    return torch.cat(parts, dim=1) / len(parts) ** 0.5


class Index:
    """The descriptors of a list of pictures.

    Args:
        paths: the pictures.
        vectors: their unit vectors, ``(N, D)``; zeros for those that could not be read.
    """

    def __init__(self, paths: Sequence[Path], vectors: Tensor) -> None:
        self.paths, self.vectors = list(paths), vectors

    def nearest(self, count: int) -> tuple[Tensor, Tensor]:
        """Return each picture's nearest other ones, best first: indices and cosines, both ``(N, count)``."""
        count = min(count, len(self.paths) - 1)
        indices, scores = [], []
        for start, rows in enumerate(self.vectors.split(1024)):
            cosines = rows @ self.vectors.T
            own = torch.arange(len(rows))
            cosines[own, start * 1024 + own] = -2.0
            cosines[:, self.vectors.norm(dim=1) == 0] = -2.0
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
) -> Index:
    """Describe pictures, or take what was computed before of those that have not changed since.

    Args:
        paths: the pictures.
        backbone: what describes them.
        device: where.
        workers: processes that read pictures.
        progress: is told how many pictures are done, and of how many.

    Raises:
        UserError: the backbone cannot be had, or no picture can be read.
    """
    keys = [_key(path) for path in paths]
    name = hashlib.sha256(str(Path(os.path.commonpath([str(p.absolute().parent) for p in paths]))).encode())
    file = cache_folder() / f"index_{backbone}_{name.hexdigest()[:16]}.safetensors"
    known = _known(file)
    missing = [i for i, key in enumerate(keys) if key not in known]
    if missing:
        network = load_backbone(backbone).to(device)
        log.info("describing %d pictures for pairing, %d are known already", len(missing), len(paths) - len(missing))
        loader = DataLoader(_Squares([paths[i] for i in missing]), batch_size=_BATCH, num_workers=workers)
        done = 0
        with torch.inference_mode():
            for readable, squares in loader:
                found = descriptors(squares.to(device).float() / 255, network).cpu() * readable.unsqueeze(1)
                for offset, vector in enumerate(found):
                    known[keys[missing[done + offset]]] = vector
                done += len(squares)
                if progress:
                    progress(done, len(missing))
        file.parent.mkdir(parents=True, exist_ok=True)
        state = {"vectors": torch.stack(list(known.values()))}
        with replacing(file) as temporary:
            temporary.write_bytes(safetensors.torch.save(state, {"keys": "\n".join(known), "format": _FORMAT}))
    index = Index(paths, torch.stack([known[key] for key in keys]))
    if not index.vectors.any():
        raise UserError(f"{paths[0].parent}: none of its {len(paths)} pictures can be read; choose another folder")
    return index


def _key(path: Path) -> str:
    """Return what a picture is known by: changed or moved, it is another."""
    status = path.stat()
    return f"{path.absolute()}|{status.st_size}|{status.st_mtime_ns}"


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
