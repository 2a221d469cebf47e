"""Going on with an earlier run, or starting from its weights: which checkpoint, of this model, with time left."""

import itertools
import logging
from pathlib import Path
from typing import NamedTuple

from torch import nn

from pdnla.checkpoints import load_pickle
from pdnla.errors import UserError
from pdnla.weights import build_network, check_model, read_weights

log = logging.getLogger(__name__)


def start_from(path: str | None, network: nn.Module) -> None:
    """Give ``network`` the weights of a file, if there is one.

    Raises:
        UserError: they are of another model or width.
    """
    if path is None:
        return
    start = read_weights(path)
    check_model(f"weights={path}", start, network)
    network.load_state_dict(build_network(start, path).state_dict())


def resume_from(path: str | None, network: nn.Module, limit: float | None = None, steps: int = -1) -> str | None:
    """Return the checkpoint to resume from, after checking that it is one of this model.

    A folder means the newest whole checkpoint in it: one that a crash left truncated is skipped with a warning.

    Args:
        path: a checkpoint, a folder of them, or None to start anew.
        network: the model.
        limit: seconds of training that the whole run may take, its earlier parts included; None for any.
        steps: steps of the whole run; a warning says if it has had them. -1 for any.

    Raises:
        UserError: there is none, it is of no run of this model, or its run has had its time.
    """
    if path is None:
        return None
    checkpoint, had = _newest(Path(path), network) if Path(path).is_dir() else (path, _check(path, network))
    if limit is not None and had.seconds >= limit:
        raise UserError(
            f"trainer.max_time: the run of {checkpoint} has had {had.seconds:.0f} of its {limit:.0f} seconds, which"
            " count from its beginning; give it more, or set trainer.max_time=null"
        )
    if 0 < steps <= had.steps:
        log.warning(
            "%s: the run has had the %d steps of trainer.max_steps, and none is left; to go on, give it more",
            *(checkpoint, steps),
        )
    return checkpoint


class _Had(NamedTuple):
    """What a run has had until a checkpoint; the seconds as far as ``trainer.max_time`` had them counted."""

    seconds: float
    steps: int


def _newest(folder: Path, network: nn.Module) -> tuple[str, _Had]:
    newest_first = sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in newest_first:
        try:
            had = _check(str(file), network)
        except UserError as error:
            log.warning("skipped: %s", error)
        else:
            log.info("resuming from %s", file)
            return str(file), had
    raise UserError(f"ckpt_path={folder}: holds no checkpoint that can be resumed; name another run's folder")


def _check(path: str, network: nn.Module) -> _Had:
    """Check that a file is a checkpoint of this model; return what its run has had."""
    weights = read_weights(path)
    content = {} if Path(path).suffix == ".safetensors" else load_pickle(Path(path))
    if "optimizer_states" not in content:
        raise UserError(f"ckpt_path={path}: holds weights alone; use weights={path} to start a new training from them")
    check_model(f"ckpt_path={path}", weights, network, resuming=True)
    timer = content.get("callbacks", {}).get("Timer", {})
    return _Had(float(timer.get("time_elapsed", {}).get("train", 0.0)), int(content.get("global_step", 0)))


def keep_metrics(folder: Path) -> None:
    """Move the ``metrics.csv`` of an earlier part of a run aside: Lightning's logger begins by deleting it."""
    metrics = folder / "metrics.csv"
    if metrics.is_file():
        part = next(n for n in itertools.count(1) if not (folder / f"metrics_{n}.csv").exists())
        metrics.rename(folder / f"metrics_{part}.csv")
