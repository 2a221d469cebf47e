"""Attention maps: the places of the reference that give a pixel its colours."""

from typing import cast

import torch
from torch import Tensor

from pdnla.network.decoder import ReferenceCode
from pdnla.network.fusion import PyramidDualModalFusion
from pdnla.network.pdnla import PDNLA

GRID = 24
"""Side of an attention map: the least common multiple of the pyramid's sides 1, 3, 6 and 8."""


@torch.no_grad()
def attention_maps(
    network: PDNLA, target: Tensor, reference: Tensor | ReferenceCode, pixels: Tensor, level: int = 3
) -> Tensor:
    """Return the attention of given target pixels over the reference.

    It is PNLA's attention at a fusion level (the paper's Figure 3), averaged over the reference's four feature maps.
    The attention to a pooled position is spread evenly over the cell of that position.

    Args:
        network: the network.
        target: grey pictures in [-1, 1], ``(B, 3, H, W)``.
        reference: pictures in colour in [-1, 1], or their code from ``network.encode_reference``.
        pixels: ``(B, P, 2)`` as (x, y) in [0, 1].
        level: fusion level, from 0 (coarse) to 3 (fine).

    Returns:
        Maps ``(B, P, 24, 24)``, each with the sum 1, in the reference's rows and columns from the top left.

    Raises:
        ValueError: the network's pyramid has a grid whose side does not divide 24.
    """
    sides = network.decoder.pool.sides
    if any(GRID % side for side in sides):
        raise ValueError(f"attention maps need grids whose sides divide {GRID}, and the pyramid has {sides}")
    code = reference if isinstance(reference, ReferenceCode) else network.encode_reference(reference)
    fusion = cast(PyramidDualModalFusion, network.decoder.fusions[level])
    inputs: list[Tensor] = []
    hook = fusion.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        network.stages(target, code)
    finally:
        hook.remove()
    branch = fusion.to_reference
    queries = branch.query(inputs[0])
    height, width = queries.shape[2:]
    columns = (pixels[..., 0] * width).long().clamp(0, width - 1)
    rows = (pixels[..., 1] * height).long().clamp(0, height - 1)
    chosen = queries[torch.arange(len(queries))[:, None], :, rows, columns]
    attentions = []
    for pooled, key in zip(code.pooled, branch.keys, strict=True):
        # With the identity as values, the result is the attention itself.
        keys = key(pooled)
        identity = torch.eye(keys.shape[1], dtype=keys.dtype, device=keys.device).unsqueeze(0)
        attentions.append(branch.attention(chosen.to(keys.dtype), keys, identity).float())
    attention = torch.stack(attentions).mean(dim=0)
    maps = torch.zeros(*attention.shape[:2], GRID, GRID, device=attention.device)
    start = 0
    for side in sides:
        cell = GRID // side
        grid = attention[..., start : start + side**2].unflatten(-1, (side, side)) / cell**2
        maps += grid.repeat_interleave(cell, dim=-1).repeat_interleave(cell, dim=-2)
        start += side**2
    return maps
