"""Reading and writing weights: safetensors files, training checkpoints and the authors' published checkpoint.

A weights file is a safetensors file with the network's state dict and these metadata: ``format`` ("pdnla"),
``format_version`` ("2"), ``source``, and the network's :class:`~pdnla.models.Description`: ``model``, ``arguments`` (as
JSON) and ``module``. A training checkpoint holds the description under ``model``. Reading never executes code in a
file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pdnla.checkpoints import SOURCE, check_state, load_pickle, memory_of, printable, shapes_of, tensors_of
from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.models import Description, build, describe, differences, read_description
from pdnla.pretrained import MODEL, find_weights, is_exported
from pdnla.published import KEY as PUBLISHED
from pdnla.published import from_published

FORMAT = "pdnla"
FORMAT_VERSION = "2"
CONFIG = "config.json"
"""Name of the model's description in a folder of :mod:`pdnla.hub`."""


class Weights(NamedTuple):
    """The contents of a weights file.

    Attributes:
        state: the tensors by this package's names.
        description: the model and arguments of the network.
        source: where the weights came from.
    """

    state: dict[str, Tensor]
    description: Description
    source: str


def load_network(path: str | Path = "default") -> nn.Module:
    """Return the network of a weights file of any of the three kinds, in eval mode; its content decides the kind.

    Args:
        path: the name of weights in the package (:data:`pdnla.pretrained.BUNDLED`; an existing file with that name
            takes precedence); a safetensors file written by :func:`save_weights` or ``pdnla-convert``; a checkpoint of
            ``pdnla-train`` (its averaged weights, or the current ones if it holds no average); the authors' published
            checkpoint; or a folder of :func:`pdnla.hub.save_pretrained`.

    Raises:
        UserError: the file is missing, truncated or of none of these kinds, its model is not registered (see
            :mod:`pdnla.models`), or its tensors do not fit the network.
    """
    return build_network(read_weights(path), path)


def build_network(weights: Weights, path: str | Path) -> nn.Module:
    """Return the network of weights, with these weights, in eval mode.

    Raises:
        UserError: its model is not registered, or a tensor is missing, unexpected or misshapen.
    """
    try:
        network = build(weights.description, memory_of(weights.state))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    check_state(weights.state, network.state_dict(), path)
    network.load_state_dict(weights.state)
    return network.eval()


def save_weights(network: nn.Module, path: str | Path, source: str, half: bool = False) -> None:
    """Write ``network`` to a safetensors file, atomically.

    Args:
        network: the network.
        path: the file.
        source: where the weights came from.
        half: round the weights to half precision, which halves the size.

    Raises:
        UserError: the network's class is not registered, its tensors are not those of its class, or the file
            cannot be written.
    """
    description = describe(network)
    with torch.random.fork_rng(devices=[]):
        expected = build(description).state_dict()
    if shapes_of(network.state_dict()) != shapes_of(expected):
        raise UserError(
            f"{path}: the network's tensors are not those of {description}: it was changed after construction, or is a"
            " copy for inference; save the original network, or register a class for the changed one"
        )
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": description.model,
        "arguments": json.dumps(description.arguments),
        "module": description.module,
        "source": source,
    }
    state = {}
    for name, tensor in network.state_dict().items():
        kept = tensor.half() if half and tensor.is_floating_point() else tensor
        # A copy of each, because safetensors refuses tensors that share memory.
        state[name] = kept.detach().cpu().clone(memory_format=torch.contiguous_format)
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(state, metadata))


def check_model(option: str, weights: Weights, network: nn.Module, resuming: bool = False) -> None:
    """Raise :class:`UserError` with the differences if training cannot begin with weights.

    Args:
        option: the option that named the weights, for the error.
        weights: the weights.
        network: the network to train.
        resuming: require all arguments to be equal, not only those that determine the tensors' shapes.
    """
    if not weights.state:
        raise UserError(
            f"{option}: holds {weights.description.model}, which has no trained weights; name other weights"
        )
    own = describe(network)
    different = differences(weights.description, own)
    if different:
        fits = shapes_of(weights.state) == shapes_of(network.state_dict())
        if resuming or not fits or weights.description.model != own.model:
            raise UserError(f"{option}: {different}")
    check_state(weights.state, network.state_dict(), option)


def read_weights(path: str | Path) -> Weights:
    """Return the contents of a weights file; see :func:`load_network`.

    Raises:
        UserError: the file is missing, truncated or of none of the three kinds.
    """
    if Path(path).is_dir():
        return _read_folder(Path(path))
    path = find_weights(path)
    if is_exported(path):
        raise UserError(
            f"{path}: is an exported network, which can only colour; name the weights that it was exported from"
        )
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such weights file; check the path") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    # A safetensors file starts with its header's length (8 bytes) and the header, which is JSON.
    if start[8:9] == b"{":
        return _read_safetensors(path)
    return _read_checkpoint(path)


def _read_folder(folder: Path) -> Weights:
    """Return the weights of a folder of :mod:`pdnla.hub`."""
    if not (folder / MODEL).is_file():
        raise UserError(f"{folder}: is a folder without {MODEL}; name the weights file in it")
    weights = read_weights(folder / MODEL)
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        description = read_description(content)
    except FileNotFoundError:
        return weights
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: does not describe a network of pdnla; save the network again") from error
    if description._replace(module="") != weights.description._replace(module=""):
        raise UserError(
            f"{path}: describes {description} and {MODEL} holds {weights.description}; save the network again"
        )
    return weights


def _read_safetensors(path: Path) -> Weights:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except Exception as error:  # a damaged file can raise more than the library's own errors
        reason = printable(str(error), SOURCE)
        raise UserError(f"{path}: is truncated or not a safetensors file ({reason}); copy it again") from error
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path}: is a safetensors file without PDNLA weights; pass one written by pdnla-train or pdnla-convert"
        )
    version = metadata.get("format_version", "none")
    if version not in ("1", FORMAT_VERSION):
        raise UserError(
            f"{path}: has weights format {printable(version)}, and this pdnla reads {FORMAT_VERSION}; upgrade pdnla"
        )
    try:
        if version == FORMAT_VERSION:
            description = read_description({**metadata, "arguments": json.loads(metadata["arguments"])})
        else:  # format 1 holds only the width, 0 for a model without one
            channel = int(metadata["channel"])
            description = Description(metadata.get("model", "pdnla"), {"channel": channel} if channel else {})
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: does not name the network of its weights; copy it again") from error
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return Weights(tensors_of(state, path), description, printable(metadata.get("source", "unknown"), SOURCE))


def _read_checkpoint(path: Path) -> Weights:
    content = load_pickle(path)
    if PUBLISHED in content:
        return Weights(*from_published(content, path), f"published checkpoint {path.name}")
    if "state_dict" in content:
        return _from_training(content, path)
    raise UserError(
        f"{path}: is a checkpoint of another program; pass weights of pdnla-train or pdnla-convert, or the"
        " authors' published checkpoint"
    )


def _from_training(content: Mapping[str, Any], path: Path) -> Weights:
    tensors = content["state_dict"] if isinstance(content["state_dict"], Mapping) else {}
    for part, kind in (("ema", "averaged"), ("network", "plain")):
        prefix = f"{part}."
        chosen = {n.removeprefix(prefix): t for n, t in tensors.items() if isinstance(n, str) and n.startswith(prefix)}
        if chosen:
            state, model = tensors_of(chosen, path), content.get("model")
            try:
                description = _of_version_0_1(state) if model is None else read_description(model)
            except (KeyError, ValueError, IndexError):
                break
            step = content.get("global_step")
            step = step if isinstance(step, int) else "unknown"
            return Weights(state, description, f"training checkpoint {path.name}, step {step}, {kind} weights")
    raise UserError(f"{path}: is a training checkpoint of another model; pass one of pdnla-train")


def _of_version_0_1(state: Mapping[str, Tensor]) -> Description:
    """Return the description of a training checkpoint of version 0.1 from the shapes of its tensors."""
    extra = state["target_encoder.stem.weight"].shape[1] - 4
    channel = state["refiner.stem.weight"].shape[0]
    model = "pdnla_informed" if "refiner.gate.weight" in state else "pdnla_semantic" if extra else "pdnla"
    return Description(model, {"channel": channel})
