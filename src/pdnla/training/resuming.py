"""Resuming an earlier run, or starting from its weights: the choice of checkpoint, and its checks."""

import itertools
import logging
from pathlib import Path
from typing import NamedTuple

from torch import nn

from pdnla.checkpoints import load_pickle
from pdnla.errors import UserError
from pdnla.models import describe
from pdnla.network import InformedPDNLA
from pdnla.network.layers import with_more_inputs
from pdnla.network.prior import EXPECTED
from pdnla.weights import Weights, build_network, check_model, read_weights

log = logging.getLogger(__name__)
_STEM = "target_encoder.stem.weight"


def start_from(path: str | None, network: nn.Module) -> None:
    """Load the weights of a file, if one is given, into ``network``.

    A network with expected colours as inputs can start from weights of one without them; it has the same results.

    Raises:
        UserError: the weights are of another model or width.
    """
    if path is None:
        return
    start = _with_expected_colours(read_weights(path), network)
    check_model(f"weights={path}", start, network)
    network.load_state_dict(build_network(start, path).state_dict())


def check_prior(network: nn.Module) -> None:
    """Check that a network which expects colours has a prior that tells some.

    Raises:
        UserError: the prior is untrained.
    """
    if isinstance(network, InformedPDNLA) and network.expects and network.prior and not network.prior.trained:
        raise UserError(
            "model.expects=true: the network's prior is untrained and expects grey; start from weights that have one,"
            " such as weights=default"
        )


def _with_expected_colours(start: Weights, network: nn.Module) -> Weights:
    """Return weights of an informed network for ``network``, which may have more inputs: their weights are zero."""
    if not isinstance(network, InformedPDNLA) or not network.expects:
        return start
    arguments = start.description.arguments
    if start.description.model != describe(network).model or arguments.get("expects") or not arguments.get("prior"):
        return start
    stem = start.state.get(_STEM)
    if stem is None or stem.ndim != 4:
        return start
    description = start.description._replace(arguments={**arguments, "expects": True})
    state = {**start.state, _STEM: with_more_inputs(stem, EXPECTED)}
    return start._replace(state=state, description=description)


def resume_from(path: str | None, network: nn.Module, limit: float | None = None, steps: int = -1) -> str | None:
    """Return the checkpoint to resume from, after checking that it fits the model.

    For a folder, it is the newest intact checkpoint; a truncated one is skipped with a warning.

    Args:
        path: a checkpoint, a folder of checkpoints, or None for a new run.
        network: the model.
        limit: time limit of the whole run in seconds, earlier parts included; None for no limit.
        steps: number of steps of the whole run, -1 for no limit; a warning is logged if none remains.

    Raises:
        UserError: there is no checkpoint, it is not of a run of this model, or the run has used up its time.
    """
    if path is None:
        return None
    checkpoint, elapsed = _newest(Path(path), network) if Path(path).is_dir() else (path, _check(path, network))
    if limit is not None and elapsed.seconds >= limit:
        raise UserError(
            f"trainer.max_time: the run of {checkpoint} has used {elapsed.seconds:.0f} of its {limit:.0f} seconds,"
            " which count from its beginning; give it more, or set trainer.max_time=null"
        )
    if 0 < steps <= elapsed.steps:
        log.warning(
            "%s: the run has done the %d steps of trainer.max_steps, and none is left; to go on, give it more",
            *(checkpoint, steps),
        )
    return checkpoint


class _Elapsed(NamedTuple):
    """The seconds and steps of a run up to a checkpoint; seconds are counted only with ``trainer.max_time``."""

    seconds: float
    steps: int


def _newest(folder: Path, network: nn.Module) -> tuple[str, _Elapsed]:
    newest_first = sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in newest_first:
        try:
            elapsed = _check(str(file), network)
        except UserError as error:
            log.warning("skipped: %s", error)
        else:
            log.info("resuming from %s", file)
            return str(file), elapsed
    raise UserError(f"ckpt_path={folder}: holds no checkpoint that can be resumed; name another run's folder")


def _check(path: str, network: nn.Module) -> _Elapsed:
    """Check that a file is a checkpoint of this model; return the seconds and steps of its run."""
    weights = read_weights(path)
    content = {} if Path(path).suffix == ".safetensors" else load_pickle(Path(path))
    if "optimizer_states" not in content:
        raise UserError(f"ckpt_path={path}: holds only weights; use weights={path} to start a new training from them")
    check_model(f"ckpt_path={path}", weights, network, resuming=True)
    timer = content.get("callbacks", {}).get("Timer", {})
    return _Elapsed(float(timer.get("time_elapsed", {}).get("train", 0.0)), int(content.get("global_step", 0)))


def keep_metrics(folder: Path) -> None:
    """Rename the ``metrics.csv`` of an earlier part of a run, because Lightning's logger would delete it."""
    metrics = folder / "metrics.csv"
    if metrics.is_file():
        part = next(n for n in itertools.count(1) if not (folder / f"metrics_{n}.csv").exists())
        metrics.rename(folder / f"metrics_{part}.csv")
