"""Network weights in and out: safetensors files, training checkpoints and the authors' published checkpoint.

A weights file is safetensors: the network's state dict, and in its metadata ``format`` ("pdnla"), ``format_version``,
``model``, ``channel`` and ``source``. Reading never executes anything that a file contains.
"""

import argparse
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pdnla.backbones import load_backbone
from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.network import PDNLA, InformedPDNLA, SemanticPDNLA, SemanticWarp
from pdnla.pretrained import find_weights, is_exported

FORMAT = "pdnla"
FORMAT_VERSION = "1"
_LISTED = 4  # names listed in an error before "and N more"


Network = PDNLA | SemanticWarp
"""What colours: PDNLA, SemanticPDNLA and InformedPDNLA, which are such, or SemanticWarp."""


class Weights(NamedTuple):
    """What a weights file holds: the tensors by our names, which model's, its width and where they came from.

    ``channel`` is 0 where the model has no width.
    """

    state: dict[str, Tensor]
    model: str
    channel: int
    source: str


def load_network(path: str | Path = "default") -> Network:
    """Read a network from a file of any of the three kinds, told apart by content, in eval mode.

    Args:
        path: a name of weights that come with the package (:data:`pdnla.pretrained.BUNDLED`; a file of that name comes
            first); a safetensors file written by :func:`save_weights` or ``pdnla-convert``; a checkpoint of
            ``pdnla-train`` (its averaged weights, or the plain ones if it holds no average); or the authors' published
            checkpoint.

    Raises:
        UserError: the file is missing, truncated, of none of these kinds, or its tensors do not fit the network.
    """
    weights = read_weights(path)
    network = build_network(weights, path)
    network.load_state_dict(weights.state)
    return network.eval()


def build_network(weights: Weights, path: str | Path) -> Network:
    """Return a network of the model and the width that weights are of, having checked that they fit.

    Raises:
        UserError: there is no such model, or a tensor is missing, unexpected or misshapen.
    """
    network: Network
    if weights.model == PDNLA.model:
        network = PDNLA(weights.channel)
    elif weights.model == SemanticPDNLA.model:
        network = SemanticPDNLA(load_backbone(), weights.channel)
    elif weights.model == InformedPDNLA.model:
        network = InformedPDNLA(load_backbone(), weights.channel)
    elif weights.model == SemanticWarp.model:
        network = SemanticWarp(load_backbone())
    else:
        raise UserError(f"{path}: holds weights of the model {weights.model}, which this pdnla has not; upgrade pdnla")
    check_state(weights.state, network.state_dict(), path)
    return network


def save_weights(network: Network, path: str | Path, source: str, half: bool = False) -> None:
    """Write ``network`` to a safetensors file, whole or not at all.

    Args:
        network: what to write.
        path: where.
        source: where the weights came from.
        half: round them to half precision: half the size.
    """
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": network.model,
        "channel": str(getattr(network, "channel", 0)),
        "source": source,
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if half:
        state = {name: tensor.half() for name, tensor in state.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(state, metadata))


def read_weights(path: str | Path) -> Weights:
    """Return what a weights file holds; see :func:`load_network`."""
    path = find_weights(path)
    if is_exported(path):
        raise UserError(f"{path}: is an exported network, which can colour and nothing else; name the weights it is of")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the weights file in it")
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


def _read_safetensors(path: Path) -> Weights:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError) as error:
        raise UserError(f"{path}: is truncated or not a safetensors file ({error}); copy it again") from error
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path}: is a safetensors file without PDNLA weights; pass one written by pdnla-train or pdnla-convert"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: has weights format {metadata.get('format_version')}, and this pdnla reads {FORMAT_VERSION};"
            " upgrade pdnla"
        )
    model = metadata.get("model", PDNLA.model)
    return Weights(state, model, int(metadata["channel"]), metadata.get("source", "unknown"))


def _read_checkpoint(path: Path) -> Weights:
    content = load_pickle(path)
    if "PDNLA_ema" in content:
        state, channel = from_published(content, path)
        return Weights(state, PDNLA.model, channel, f"published checkpoint {path.name}")
    if "state_dict" in content:
        return _from_training(content, path)
    raise UserError(
        f"{path}: is a checkpoint of another program; pass weights of pdnla-train or pdnla-convert, or the"
        " authors' published checkpoint"
    )


def load_pickle(path: Path) -> Mapping[str, Any]:
    """Read a ``torch.save`` file without executing anything: tensors, plain containers and ``Namespace`` only.

    Raises:
        UserError: the file is truncated, is none of ``torch.save``, or holds any other object.
    """
    try:
        # Opened here, because torch would go by the name's ending.
        with path.open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            raise UserError(
                f"{path}: holds objects other than tensors, which could run code; nothing was loaded."
                " Pass a checkpoint that holds tensors alone"
            ) from error
        raise UserError(f"{path}: is truncated or not a weights file; copy it again") from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        AttributeError,
        IndexError,
        TypeError,
    ) as error:
        raise UserError(f"{path}: is truncated or not a weights file; copy it again") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not weights; pass a weights file")
    return content


def _from_training(content: Mapping[str, Any], path: Path) -> Weights:
    tensors: Mapping[str, Tensor] = content["state_dict"]
    for part in ("ema", "network"):
        state = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
        stem, seen = (state.get(f"{box}.stem.weight") for box in ("refiner", "target_encoder"))
        if stem is not None and seen is not None:
            step = content.get("global_step", "unknown")
            kind = "averaged" if part == "ema" else "plain"
            model = PDNLA.model if seen.shape[1] == 4 else SemanticPDNLA.model
            if "refiner.gate.weight" in state:
                model = InformedPDNLA.model
            return Weights(state, model, stem.shape[0], f"training checkpoint {path.name}, step {step}, {kind} weights")
    raise UserError(f"{path}: is a training checkpoint of another model; pass one of pdnla-train")


def from_published(content: Mapping[str, Any], path: str | Path) -> tuple[dict[str, Tensor], int]:
    """Return the published checkpoint's weights under our names, and its channel.

    Args:
        content: the published dictionary: ``args`` with ``channel``, and the state dict ``PDNLA_ema``.
        path: where it came from, for errors.

    Raises:
        UserError: names are missing, unexpected or misshapen; a few of each are listed.
    """
    published: Mapping[str, Tensor] = content["PDNLA_ema"]
    args = content.get("args")
    channel = args.get("channel") if isinstance(args, Mapping) else getattr(args, "channel", None)
    if not isinstance(channel, int):
        raise UserError(f"{path}: does not say its channel in args; pass the authors' checkpoint as published")
    try:
        expected = PDNLA(channel).state_dict()
    except ValueError as error:
        raise UserError(f"{path}: {error}; pass the authors' checkpoint as published") from error
    names = published_names(expected)
    copies = {name for name in published if name.endswith(".kernel") or name.endswith("body.1.weight")}
    shaped = {theirs: published_shape(ours, expected[ours]) for ours, theirs in names.items()}
    _compare(
        {name: tuple(tensor.shape) for name, tensor in published.items() if name not in copies - set(shaped)},
        {name: tuple(shape) for name, shape in shaped.items()},
        path,
    )
    slopes = [published[name].float() for name in copies if name.endswith("body.1.weight")]
    if any(not torch.equal(slope, slopes[0]) for slope in slopes):
        raise UserError(f"{path}: its PReLU slopes differ, where the published network shares one; convert another")
    return {ours: published[theirs].float().reshape(expected[ours].shape) for ours, theirs in names.items()}, channel


def published_shape(name: str, tensor: Tensor) -> torch.Size:
    """Return a parameter's published shape: linear maps on positions are published as 1×1 convolutions."""
    linear = tensor.ndim == 2 and name.startswith("decoder.fusions.")
    return torch.Size([*tensor.shape, 1, 1]) if linear else tensor.shape


def published_names(ours: Mapping[str, Any]) -> dict[str, str]:
    """Map each of our parameter names to the published checkpoint's."""
    parts: dict[str, str] = {}
    for encoder, prefix in (("target_encoder", "enc1"), ("reference_encoder", "enc2")):
        parts[f"{encoder}.stem.weight"] = f"{prefix}.conv1.0.weight"
        parts[f"{encoder}.stem.bias"] = f"{prefix}.conv1.1.bias"
        parts[f"{encoder}.head"] = f"{prefix}.conv2"
        for i in range(4):
            block, published = f"{encoder}.blocks.{i}", f"{prefix}.res{i + 1}1"
            for layer in ("conv1", "conv2", "skip"):
                parts[f"{block}.{layer}.weight"] = f"{published}.{layer}.1.weight"
                parts[f"{block}.{layer}.bias"] = f"{published}.{layer}.2.bias"
    for i in range(4):
        fusion, published = f"decoder.fusions.{i}", f"gen.NLB.{i}"
        for direction, n in (("to_reference", 1), ("to_target", 2)):
            parts[f"{fusion}.{direction}.query"] = f"{published}.conv_q{n}"
            parts[f"{fusion}.{direction}.mix"] = f"{published}.conv_mask{n}"
            parts[f"{fusion}.{direction}.fuse"] = f"{published}.conv_fuse{n}1"
            for j in range(4):
                parts[f"{fusion}.{direction}.keys.{j}"] = f"{published}.conv_k{n}_list.{j}"
                parts[f"{fusion}.{direction}.values.{j}"] = f"{published}.conv_v{n}_list.{j}"
        for layer, short in (("theta", "t"), ("phi", "p"), ("psi", "g"), ("output", "z"), ("norm", "gn")):
            parts[f"{fusion}.fusion.{layer}"] = f"{published}.BNLBlock.{short}"
        parts[f"decoder.upsamples.{i}"] = f"gen.layers_up.{i}.0"
        parts[f"decoder.convs.{i}.weight"] = f"gen.layers_conv1.{i}.0.weight"
        parts[f"decoder.convs.{i}.bias"] = f"gen.layers_conv1.{i}.1.bias"
        parts[f"refiner.merges.{i}.conv"] = f"ocn.conv{i + 2}1"
    parts["decoder.to_rgb"] = "gen.to_rgb.0"
    parts["refiner.stem"] = "ocn.conv0"
    parts["refiner.to_rgb"] = "ocn.to_rgb.0"
    parts["refiner.slope"] = "ocn.conv1.body.1.weight"
    attentions = {"refiner.stem_attention": "ocn.conv1"}
    for i in range(5):
        parts[f"refiner.blocks.{i}.conv"] = f"ocn.ocb{i + 1}.body.2"
        attentions[f"refiner.blocks.{i}.attention1"] = f"ocn.ocb{i + 1}.body.0"
        attentions[f"refiner.blocks.{i}.attention2"] = f"ocn.ocb{i + 1}.body.1"
    for block, published in attentions.items():
        for layer, theirs in (
            ("conv1", "body.0"),
            ("conv2", "body.2"),
            ("squeeze", "conv_du.0"),
            ("excite", "conv_du.2"),
        ):
            parts[f"{block}.{layer}"] = f"{published}.{theirs}"
    parts["refiner.merges.0.projections.0"] = "ocn.up1"
    parts["refiner.merges.1.projections.0"] = "ocn.up2.up.1"
    for k in (2, 3):
        for j in range(k):
            parts[f"refiner.merges.{k}.projections.{j}"] = f"ocn.up{k + 1}.{j}.up.1"
    names = {}
    for name in ours:
        module, _, parameter = name.rpartition(".")
        names[name] = parts[name] if name in parts else f"{parts[module]}.{parameter}"
    return names


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise :class:`UserError` listing a few names of ``state`` that are missing, unexpected or misshapen."""
    _compare(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        {name: tuple(tensor.shape) for name, tensor in expected.items()},
        path,
    )


def _compare(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], path: str | Path) -> None:
    problems = []
    for label, names in (
        ("missing", sorted(expected.keys() - found.keys())),
        ("unexpected", sorted(found.keys() - expected.keys())),
        (
            "misshapen",
            [
                f"{name} {found[name]} instead of {expected[name]}"
                for name in sorted(found.keys() & expected.keys())
                if found[name] != expected[name]
            ],
        ),
    ):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            problems.append(f"{len(names)} {label} ({', '.join(names[:_LISTED])}{more})")
    if problems:
        raise UserError(f"{path}: its tensors do not fit the network: {'; '.join(problems)}; pass other weights")
