"""Where in the reference the network takes a pixel's colours from."""

from typing import cast

import torch
from torch import Tensor

from pdnla.network.decoder import ReferenceCode
from pdnla.network.fusion import PyramidDualModalFusion
from pdnla.network.pdnla import PDNLA

GRID = 24
"""Side of an attention map: the smallest that the pyramid's grids, of sides 1, 3, 6 and 8, all divide."""


@torch.no_grad()
def attention_maps(
    network: PDNLA, target: Tensor, reference: Tensor | ReferenceCode, pixels: Tensor, level: int = 3
) -> Tensor:
    """Return the attention of some of the target's pixels over the reference.

    PNLA's attention at a fusion level (the paper's Figure 3), averaged over the reference's four feature maps. What a
    pixel gives to a pooled position, it gives to all of that position's cell.

    Args:
        network: the network.
        target: grey pictures in [-1, 1], ``(B, 3, H, W)``.
        reference: pictures in colour in [-1, 1], or what ``network.encode_reference`` made of them.
        pixels: ``(B, P, 2)`` as (x, y) in [0, 1].
        level: of the four fusion levels, coarse (0) to fine (3).

    Returns:
        maps ``(B, P, 24, 24)``, each summing to 1; its rows and columns are the reference's, top left first.

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
        # Attention itself: the values are the positions' own names.
        keys = key(pooled)
        names = torch.eye(keys.shape[1], dtype=keys.dtype, device=keys.device).unsqueeze(0)
        attentions.append(branch.attention(chosen.to(keys.dtype), keys, names).float())
    attention = torch.stack(attentions).mean(dim=0)
    maps = torch.zeros(*attention.shape[:2], GRID, GRID, device=attention.device)
    start = 0
    for side in sides:
        cell = GRID // side
        grid = attention[..., start : start + side**2].unflatten(-1, (side, side)) / cell**2
        maps += grid.repeat_interleave(cell, dim=-1).repeat_interleave(cell, dim=-2)
        start += side**2
    return maps
