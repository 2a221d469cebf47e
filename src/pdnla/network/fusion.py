"""Stage 2's parts (the paper's Figure 3): PAP, PNLA, BNLF, and PDMF, which joins them.

The published formulas are computed in an exact, cheaper order: each feature map is pooled once and its keys and
values are projected from 110 positions; the linear maps M and F (and V before them) are multiplied together first,
so that one product with the attention replaces a product with each.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.network.layers import Conv3, Folding, in_pieces, tanh_

PYRAMID = (1, 3, 6, 8)
POSITIONS = sum(side**2 for side in PYRAMID)
"""Pooled positions of a feature map, S = 110."""
LOGIT_LIMIT = 64.0
GAMMA = 1e-4
ORDERS = 3
GROUPS = 8
_CPU_POSITIONS, _GPU_POSITIONS = 1 << 13, 1 << 18


def pyramid_average_pooling(x: Tensor, ring: int = 0) -> Tensor:
    """Pool a map to 1×1, 3×3, 6×6 and 8×8 (PAP): ``(B, C, H, W)`` to ``(B, 110, C)``.

    ``ring`` zeros around the map are counted in, without being written. Averaging is separable, so two small matrix
    products read the map once for all four grids.
    """
    batch, channels, height, width = x.shape
    rows, row_counts = _summing_matrix(height, ring, x)
    columns, column_counts = _summing_matrix(width, ring, x)
    x = x.permute(0, 2, 3, 1)
    grid = columns @ (rows @ x.reshape(batch, height, width * channels)).view(batch, -1, width, channels)
    grid = grid / (row_counts[:, None] * column_counts).unsqueeze(-1)
    levels, start = [], 0
    for side in PYRAMID:
        levels.append(grid[:, start : start + side, start : start + side].flatten(1, 2))
        start += side
    return torch.cat(levels, dim=1)


def _summing_matrix(length: int, ring: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 0/1 matrix ``(18, length)`` that adds up adaptive pooling's bins along an axis, and their sizes.

    The bins of each grid of the pyramid in turn; of n, bin i starts at ``floor(i L / n)`` and ends before
    ``ceil((i + 1) L / n)`` of a ringed axis of length L. Sizes are ``(18,)``.
    """
    whole = length + 2 * ring
    side = torch.tensor([side for side in PYRAMID for _ in range(side)], device=like.device)
    index = torch.tensor([index for side in PYRAMID for index in range(side)], device=like.device)
    start, end = index * whole // side, -(-(index + 1) * whole // side)
    place = torch.arange(length, device=like.device) + ring
    matrix = (place >= start.unsqueeze(1)) & (place < end.unsqueeze(1))
    return matrix.to(like.dtype), (end - start).to(like.dtype)


def pyramid_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Return PNLA's attention, ``(B, N, maps * 110)``: for each map, a softmax over its 110 positions.

    Args:
        queries: ``(B, N, C')``.
        keys: ``(B, maps * 110, C')``, the pooled positions of each map in turn.
    """
    logits = project(queries, keys)
    if not _within_limit(queries, keys):
        logits = F.hardtanh(logits, -LOGIT_LIMIT, LOGIT_LIMIT)
    return logits.unflatten(-1, (-1, POSITIONS)).softmax(dim=-1).flatten(-2)


def _within_limit(queries: Tensor, keys: Tensor) -> bool:
    """Return whether no query times a key is out of bounds, since the longest of each are not.

    It spares passes over the largest tensor. To ask an accelerator would take longer than to clip.
    """
    if not queries.is_cpu or torch.compiler.is_compiling():
        return False
    longest = [float(torch.linalg.vector_norm(x.detach(), dim=-1, dtype=_wide(x)).amax()) for x in (queries, keys)]
    return longest[0] * longest[1] < LOGIT_LIMIT


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def attend(base: Tensor, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return ``tanh(base + attention @ values)``, ``(B, N, C)``, with :func:`pyramid_attention`'s attention."""
    attended = project(pyramid_attention(queries, keys), values.transpose(1, 2))
    return (base + attended).tanh() if torch.is_grad_enabled() else tanh_(attended.add_(base))


def parts(x: Tensor, batch: int) -> list[slice]:
    """Return the parts in which to treat the positions of ``x``, ``(B, N, C)``, where each is treated on its own.

    The attention has 440 numbers for every position, by far the largest thing in the network: without gradients to
    keep it for, it is made for some positions at a time, which on a CPU stay in its cache.
    """
    length = x.shape[1]
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return [slice(0, length)]
    step = max(1, (_CPU_POSITIONS if x.is_cpu else _GPU_POSITIONS) // batch)
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def project(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x @ weight.T`` of positions ``(B or 1, N, K)`` and a matrix ``(O, K)``, or one each, ``(B or 1, O, K)``.

    On a CPU it is a 1×1 convolution: oneDNN's, which is twice as fast in float32 as the matrix product of MKL on
    processors that are not Intel's. Of a single thread, torch would not ask oneDNN.
    """
    if weight.ndim == 3 and not torch.compiler.is_compiling() and len(weight) == 1:
        weight = weight[0]
    if weight.ndim == 2:
        if x.is_cpu and not torch.compiler.is_compiling() and torch.get_num_threads() > 1:
            return positions(F.conv2d(like_map(x, x.shape[1], 1), weight[..., None, None]))
        return F.linear(x, weight)
    if in_pieces(x):
        return torch.cat([project(x[row : row + 1] if len(x) > 1 else x, own) for row, own in enumerate(weight)])
    return x @ weight.transpose(1, 2)


def positions(x: Tensor) -> Tensor:
    """View a map ``(B, C, H, W)`` as its positions, ``(B, H·W, C)``; free in channels-last memory."""
    return x.flatten(2).transpose(1, 2)


def like_map(x: Tensor, height: int, width: int) -> Tensor:
    """View positions ``(B, H·W, C)`` as a map ``(B, C, H, W)`` in channels-last memory."""
    return x.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class BidirectionalNonLocalFusion(nn.Module):
    """BNLF: non-local fusion with a Gaussian kernel, in its second-order Taylor expansion.

    Within each of 8 groups, channels and positions form one long vector; with
    ``alpha_o^2 = (2 gamma)^o / o! * exp(-2 gamma)``,
    ``BNLF(t, u) = GroupNorm(conv(sum_o alpha_o^2 * sum(phi(u)^o * psi(u)) * theta(t)^o)) + t``.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, inner, 1, bias=False)
        self.phi = nn.Conv2d(channels, inner, 1, bias=False)
        self.psi = nn.Conv2d(channels, inner, 1, bias=False)
        self.output = nn.Conv2d(inner, channels, 1, groups=GROUPS, bias=False)
        self.norm = nn.GroupNorm(GROUPS, channels)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        """Fuse ``t`` and ``u``, ``(B, C, H, W)``; ``u`` may have another height and width. Shape of ``t``."""
        fused = self.expand(positions(t), self.kernel_sums(positions(u)))
        return like_map(self.normalised(fused, positions(t)), *t.shape[2:])

    def kernel_sums(self, u: Tensor) -> Tensor:
        """Return ``alpha_o^2 * sum(phi(u)^o * psi(u))`` for each order, ``(3, B, 8)``, of positions ``(B, N, C)``.

        All that BNLF takes from u; what it is for parts of u adds up. In float32 at the least: the sums run over
        hundreds of thousands of elements, which half precision cannot add up.
        """
        projections = torch.cat([self.phi.weight, self.psi.weight]).flatten(1)
        phi, psi = project(u, projections).chunk(2, dim=-1)
        with torch.autocast(u.device.type, enabled=False):
            wide = torch.promote_types(phi.dtype, torch.float32)
            phi, psi = phi.to(wide), psi.to(wide)
            sums = []
            for order in range(ORDERS):
                weight = (2 * GAMMA) ** order / math.factorial(order) * math.exp(-2 * GAMMA)
                sums.append(psi.sum(dim=1).unflatten(1, (GROUPS, -1)).sum(dim=-1) * weight)
                psi = psi * phi
            return torch.stack(sums)

    def expand(self, t: Tensor, sums: Tensor) -> Tensor:
        """Return ``conv(sum_o sums_o * theta(t)^o)``, before the norm, of positions ``(B, N, C)``; the same shape."""
        theta = project(t, self.theta.weight.flatten(1))
        group = theta.shape[2] // GROUPS
        constant, linear, square = sums.to(theta.dtype).repeat_interleave(group, dim=-1).unsqueeze(2)
        x = torch.addcmul(constant, torch.addcmul(linear, square, theta), theta)
        return positions(self.output(like_map(x, x.shape[1], 1)))

    def normalised(self, x: Tensor, *others: Tensor) -> Tensor:
        """Return the group norm of positions ``(B, N, C)`` plus ``others``, in place where no gradient needs x."""
        if not in_pieces(x):
            x = positions(self.norm(like_map(x, x.shape[1], 1)))
            for other in others:
                x = x.add_(other)
            return x
        variance, mean = group_moments(x)
        scale = (variance + self.norm.eps).rsqrt() * self.norm.weight
        shift = (self.norm.bias - mean * scale).unsqueeze(1).to(x.dtype)
        scale = scale.unsqueeze(1).to(x.dtype)
        for part in parts(x, x.shape[0]):
            piece = x[:, part].mul_(scale).add_(shift)
            for other in others:
                piece.add_(other[:, part])
        return x


def group_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return variance and mean of each group of positions ``(B, N, C)``, repeated for its channels, ``(B, C)``.

    A part of the positions at a time, while a CPU has it in its cache; the parts' moments are joined as Chan et al.
    (1983) join them, at least in float32.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    pieces = parts(x, x.shape[0])
    share = torch.tensor([piece.stop - piece.start for piece in pieces], dtype=wide).view(-1, 1, 1, 1) / x.shape[1]
    means, variances = [], []
    for piece in pieces:
        values = x[:, piece].to(wide)
        means.append(values.mean(dim=1))
        variances.append((values - means[-1].unsqueeze(1)).square_().mean(dim=1))
    of_parts, within = (torch.stack(moments).unflatten(-1, (GROUPS, -1)) for moments in (means, variances))
    mean = (share * of_parts).sum(dim=0).mean(dim=-1, keepdim=True)
    variance = (share * (within + (of_parts - mean).square())).sum(dim=0).mean(dim=-1, keepdim=True)
    return tuple(moment.expand_as(of_parts[0]).flatten(1) for moment in (variance, mean))


class ReferenceAttention(NamedTuple):
    """What one PDMF level needs of the reference, and all that depends on the reference alone.

    ``feature`` is r, ``(B, C, h, w)``; ``keys`` ``(B, 440, C')`` and ``values`` ``(B, 440, C)`` come from the pooled
    f_c1..f_c4; ``queries`` ``(B, h·w, C')`` is Q2.
    """

    feature: Tensor
    keys: Tensor
    values: Tensor
    queries: Tensor


class _Direction(Folding):
    """One direction of PDMF: queries of one picture against the pooled maps of the other.

    Holds Q, the keys' and values' projections of the other's four maps, M (shared over the maps) and F.
    """

    def __init__(self, channels: int, inner: int, sources: Sequence[int]) -> None:
        super().__init__()
        self.query = Conv3(channels, inner)
        self.keys = nn.ModuleList(nn.Linear(source, inner, bias=False) for source in sources)
        self.values = nn.ModuleList(nn.Linear(source, inner, bias=False) for source in sources)
        self.mix = nn.Linear(channels + inner, channels, bias=False)
        self.fuse = nn.Linear(len(sources) * channels, channels, bias=False)
        self.channels = channels

    def attend_to(self, pooled: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the keys ``(B, 440, C')`` and the values carried through M and F, ``(B, 440, C)``."""
        _, on_values = self.folded_constants()
        keys, values = [], []
        for x, key, value, on_value in zip(pooled, self.keys, self.values, on_values, strict=True):
            keys.append(key(x))
            values.append(F.linear(value(x), on_value))
        return torch.cat(keys, dim=1), torch.cat(values, dim=1)

    def on_feature(self) -> Tensor:
        """Return what F·M does to the querying feature itself, a matrix ``(C, C)``."""
        matrix: Tensor = self.folded_constants()[0]
        return matrix

    def constants(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return what F·M does to the querying feature, ``(C, C)``, and to each map's values, ``(C, C')`` each."""
        by_map = self.fuse.weight.split(self.channels, dim=1)
        on_feature, on_attention = self.mix.weight.split(
            [self.channels, self.mix.weight.shape[1] - self.channels], dim=1
        )
        return sum(by_map[1:], by_map[0]) @ on_feature, tuple(fuse @ on_attention for fuse in by_map)

    def fold(self, dtype: torch.dtype) -> None:
        """Keep the constants and give up M and F."""
        super().fold(dtype)
        del self.mix, self.fuse


class PyramidDualModalFusion(nn.Module):
    """PDMF: one level's fusion of the running target feature g with the reference feature r.

    ``t = tanh(F1·[M1·[g, a_j]]) + g`` with a_j = PNLA of g's queries over the reference's map j,
    ``u = tanh(F2·[M2·[r, b_j]]) + r`` with b_j = PNLA of r's queries over the target's map j,
    and the result ``BNLF(t, u) + g``.

    Args:
        channels: channels C of g and r at this level.
        inner: channels C' of queries, keys and values.
        sources: channels of the four feature maps f1..f4.
    """

    def __init__(self, channels: int, inner: int, sources: Sequence[int]) -> None:
        super().__init__()
        self.to_reference = _Direction(channels, inner, sources)
        self.to_target = _Direction(channels, inner, sources)
        self.fusion = BidirectionalNonLocalFusion(channels, inner)

    def encode_reference(self, feature: Tensor, pooled: Sequence[Tensor]) -> ReferenceAttention:
        """Compute what depends on the reference alone, from r and the pooled f_c1..f_c4, ``(B, 110, C_j)``."""
        keys, values = self.to_reference.attend_to(pooled)
        return ReferenceAttention(feature, keys, values, positions(self.to_target.query(feature)))

    def forward(self, g: Tensor, pooled_target: Sequence[Tensor], reference: ReferenceAttention) -> Tensor:
        """Map g, ``(B, C, H, W)``, the pooled f_g1..f_g4 and the reference to ``(B, C, H, W)``."""
        sums = self._sums(pooled_target, reference)
        x, queries = positions(g), positions(self.to_reference.query(g))
        linear = self.to_reference.on_feature()
        pieces = parts(x, x.shape[0])
        whole: tuple[Tensor, ...] = ()
        for part in pieces:
            piece = x[:, part]
            t = attend(project(piece, linear), queries[:, part], reference.keys, reference.values) + piece
            results = (self.fusion.expand(t, sums), t)
            if len(pieces) == 1:
                whole = results
            else:
                whole = whole or tuple(r.new_empty(r.shape[0], x.shape[1], r.shape[2]) for r in results)
                for all_of_it, result in zip(whole, results, strict=True):
                    all_of_it[:, part] = result
        fused, t = whole
        del queries, whole
        return like_map(self.fusion.normalised(fused, t, x), *g.shape[2:])

    def _sums(self, pooled_target: Sequence[Tensor], reference: ReferenceAttention) -> Tensor:
        """Return BNLF's sums over u, which is never whole."""
        keys, values = self.to_target.attend_to(pooled_target)
        x, linear = positions(reference.feature), self.to_target.on_feature()
        sums = torch.zeros((), device=x.device)
        for part in parts(x, keys.shape[0]):
            piece = x[:, part]
            u = attend(project(piece, linear), reference.queries[:, part], keys, values) + piece
            sums = sums + self.fusion.kernel_sums(u)
        return sums
