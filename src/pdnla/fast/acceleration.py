"""Replacement of plain modules by fast ones."""

import copy
import logging
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import torch
from torch import nn

from pdnla.fast.correspondence import FastCorrespondence
from pdnla.fast.decoder import FastDecoder
from pdnla.fast.encoder import FastEdges, FastEncoder, FastInformedEncoder
from pdnla.fast.fusion import (
    FastBidirectionalNonLocalFusion,
    FastModalBranch,
    FastPyramidAveragePooling,
    FastPyramidDualModalFusion,
    FastPyramidNonLocalAttention,
)
from pdnla.fast.layers import FastConv2d, FastEqualConv2d, FastResidualDown, FastUpsample, Folding
from pdnla.fast.pdnla import FastInformedPDNLA, FastPDNLA, FastSemanticPDNLA
from pdnla.fast.refiner import (
    FastChannelAttentionBlock,
    FastColourisationBaseBlock,
    FastGatedRefiner,
    FastMerge,
    FastRefiner,
)
from pdnla.network.correspondence import Correspondence
from pdnla.network.decoder import Decoder
from pdnla.network.encoder import Edges, Encoder
from pdnla.network.fusion import (
    BidirectionalNonLocalFusion,
    ModalBranch,
    PyramidAveragePooling,
    PyramidDualModalFusion,
    PyramidNonLocalAttention,
)
from pdnla.network.informed import GatedRefiner, InformedEncoder, InformedPDNLA
from pdnla.network.layers import EqualConv2d, ResidualDown, Upsample
from pdnla.network.pdnla import PDNLA
from pdnla.network.refiner import ChannelAttentionBlock, ColourisationBaseBlock, Merge, Refiner
from pdnla.network.semantic import SemanticPDNLA

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)

TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: FastConv2d,
    EqualConv2d: FastEqualConv2d,
    ResidualDown: FastResidualDown,
    Upsample: FastUpsample,
    Edges: FastEdges,
    Encoder: FastEncoder,
    InformedEncoder: FastInformedEncoder,
    PyramidAveragePooling: FastPyramidAveragePooling,
    PyramidNonLocalAttention: FastPyramidNonLocalAttention,
    BidirectionalNonLocalFusion: FastBidirectionalNonLocalFusion,
    ModalBranch: FastModalBranch,
    PyramidDualModalFusion: FastPyramidDualModalFusion,
    Decoder: FastDecoder,
    ChannelAttentionBlock: FastChannelAttentionBlock,
    ColourisationBaseBlock: FastColourisationBaseBlock,
    Merge: FastMerge,
    Refiner: FastRefiner,
    GatedRefiner: FastGatedRefiner,
    Correspondence: FastCorrespondence,
    PDNLA: FastPDNLA,
    SemanticPDNLA: FastSemanticPDNLA,
    InformedPDNLA: FastInformedPDNLA,
}
"""The fast class of each plain class."""


def accelerate(network: Network) -> Network:
    """Replace a network's plain modules by fast ones that compute the same, in place, and return the network.

    Only the class of a module changes: the objects, their parameters, hooks and names stay, and they can be trained. A
    module changes if its type is exactly a plain class of :mod:`pdnla.network`, and if the children whose ``forward``
    the fast class bypasses are of the expected types and have no hooks. So a subclass stays plain, together with the
    modules around it that would bypass it; a warning names them. A hook that is registered later is not called where
    its module is bypassed. Maps and weights become channels-last.

    Args:
        network: a network, a critic, or any module that contains modules of :mod:`pdnla.network`.
    """
    plain: dict[str, list[str]] = {}
    for name, module in _inside_out(network):
        fast = TWINS.get(type(module))
        if fast is not None and _fits(module, fast):
            module.__class__ = fast
        elif fast is not FastConv2d and (fast is not None or _is_subclass(module)):
            plain.setdefault(type(module).__name__, []).append(name or "the whole network")
    if plain:
        others = {kind: f" and {len(names) - 1} more" if names[1:] else "" for kind, names in plain.items()}
        named = ", ".join(f"{kind} ({names[0]}{others[kind]})" for kind, names in plain.items())
        log.warning("no fast version, computed by the plain code: %s", named)
    return network.to(memory_format=torch.channels_last)


def for_inference(network: Network, dtype: torch.dtype = torch.float32, copied: bool = True) -> Network:
    """Return an accelerated copy for inference only, with precomputed constants.

    Args:
        network: the network.
        dtype: the dtype of the convolutions' weights, in which they are computed.
        copied: work on a copy; otherwise ``network`` itself is changed and returned.

    Returns:
        A network that can be called and moved. Where it has constants, it has no parameters to train or save.
    """
    network = accelerate(copy.deepcopy(network) if copied else network).eval().requires_grad_(False)
    for module in list(network.modules()):  # parents first: they take constants from their children and drop them
        if isinstance(module, Folding):
            module.fold(dtype)
        if type(module) in TWINS.values():
            for child in _children(module):
                if type(child) in (FastConv2d, nn.Conv2d, nn.Linear):
                    child.to(dtype)
    return network


def _inside_out(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield all modules with their names, children before parents."""
    for child_name, child in module.named_children():
        yield from _inside_out(child, f"{name}.{child_name}" if name else child_name)
    yield name, module


def _children(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a module's children; of a list of modules, its elements."""
    for child in module.children():
        if type(child) is nn.ModuleList:
            yield from child
        else:
            yield child


def _fits(module: nn.Module, fast: type[nn.Module]) -> bool:
    """Return whether a fast class may bypass the ``forward`` of a module's children."""
    bypasses: dict[str, type[nn.Module]] = getattr(fast, "bypasses", {})
    for name, expected in bypasses.items():
        child = getattr(module, name)
        for one in child if type(child) is nn.ModuleList else [child]:
            if type(one) is not expected or _has_hooks(one):
                return False
    fits: Any = getattr(fast, "fits", None)
    return fits is None or cast(bool, fits(module))


def _has_hooks(module: nn.Module) -> bool:
    """Return whether calling a module does more than its ``forward``."""
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return any(hooks)


def _is_subclass(module: nn.Module) -> bool:
    """Return whether a module's class is derived from a plain class with a fast twin, and is not a fast class."""
    return type(module) not in TWINS.values() and any(isinstance(module, c) for c in TWINS if c is not nn.Conv2d)
