"""The authors' published checkpoint: the map between its names and shapes and those of this package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdnla.checkpoints import check_state, memory_of, printable, tensors_of
from pdnla.errors import UserError
from pdnla.models import Description, build

KEY = "PDNLA_ema"
"""The key of the averaged weights, by which a published checkpoint is recognised."""


def from_published(content: Mapping[str, Any], path: str | Path) -> tuple[dict[str, Tensor], Description]:
    """Return the published checkpoint's weights under this package's names, and the description of the network.

    Args:
        content: the published dictionary: ``args`` with ``channel``, and the state dict ``PDNLA_ema``.
        path: its file, for errors.

    Raises:
        UserError: names are missing, unexpected or misshapen; a few of each are listed.
    """
    published = tensors_of(content[KEY], path)
    args = content.get("args")
    channel = args.get("channel") if isinstance(args, Mapping) else getattr(args, "channel", None)
    if not isinstance(channel, int):
        raise UserError(f"{path}: has no channel in args; pass the authors' checkpoint as published")
    description = Description("pdnla", {"channel": channel})
    try:
        expected = build(description, memory_of(published)).state_dict()
    except UserError as error:
        reason = printable(str(error.__cause__ or error))
        raise UserError(f"{path}: {reason}; pass the authors' checkpoint as published") from error
    names = published_names(expected)
    slope = names["refiner.slope"]
    shapes = {
        theirs: torch.empty(published_shape(ours, expected[ours]), device="meta") for ours, theirs in names.items()
    }
    copies = {name for name in published if name.endswith("body.1.weight")} - {slope}
    unused = {name for name in published if name.endswith(".kernel")}
    check_state({n: t for n, t in published.items() if n not in copies | unused}, shapes, path)
    if any(published[name].shape != (1,) or published[name] != published[slope] for name in copies):
        raise UserError(f"{path}: its PReLU slopes differ, where the published network shares one; convert another")
    state = {ours: published[theirs].float().reshape(expected[ours].shape) for ours, theirs in names.items()}
    return state, description


def published_shape(name: str, tensor: Tensor) -> torch.Size:
    """Return the published shape of a parameter: linear maps of positions are published as 1×1 convolutions."""
    linear = tensor.ndim == 2 and name.startswith("decoder.fusions.")
    return torch.Size([*tensor.shape, 1, 1]) if linear else tensor.shape


def published_names(ours: Mapping[str, Any]) -> dict[str, str]:
    """Map each parameter name of this package to that of the published checkpoint."""
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
