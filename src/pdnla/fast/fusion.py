"""The fast parts of stage 2.

The formulas are evaluated in an exact but cheaper order. Pooling uses small matrix products. The linear maps V, M and F
are multiplied together first, so that one product with the attention replaces three. Positions are processed in parts.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.fast.layers import Bypasses, FastConv2d, Folding, in_pieces, is_matrix, tanh_
from pdnla.network.fusion import (
    BidirectionalNonLocalFusion,
    ModalBranch,
    PyramidAveragePooling,
    PyramidDualModalFusion,
    PyramidNonLocalAttention,
    as_map,
    positions,
)

CPU_POSITIONS, GPU_POSITIONS = 1 << 13, 1 << 18


class FastPyramidAveragePooling(PyramidAveragePooling):
    """PAP that accounts for the padding without writing it.

    Averaging is separable, so two small matrix products read the map once for all grids.
    """

    def forward(self, x: Tensor, ring: int = 0) -> Tensor:
        """Map ``(B, C, H, W)``, padded with a ring of zeros, to the pooled positions, ``(B, S, C)``."""
        batch, channels, height, width = x.shape
        rows, row_counts = self._summing_matrix(height, ring, x)
        columns, column_counts = self._summing_matrix(width, ring, x)
        x = x.permute(0, 2, 3, 1)
        grid = columns @ (rows @ x.reshape(batch, height, width * channels)).view(batch, -1, width, channels)
        grid = grid / (row_counts[:, None] * column_counts).unsqueeze(-1)
        levels, start = [], 0
        for side in self.sides:
            levels.append(grid[:, start : start + side, start : start + side].flatten(1, 2))
            start += side
        return torch.cat(levels, dim=1)

    def _summing_matrix(self, length: int, ring: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the 0/1 matrix ``(bins, length)`` that sums adaptive pooling's bins along an axis, and their sizes.

        The bins of the pyramid's grids are concatenated. Of n bins along a padded axis of length L, bin i is from
        ``floor(i L / n)`` up to ``ceil((i + 1) L / n)``. Sizes are ``(bins,)``.
        """
        whole = length + 2 * ring
        side = torch.tensor([side for side in self.sides for _ in range(side)], device=like.device)
        index = torch.tensor([index for side in self.sides for index in range(side)], device=like.device)
        start, end = index * whole // side, -(-(index + 1) * whole // side)
        place = torch.arange(length, device=like.device) + ring
        matrix = (place >= start.unsqueeze(1)) & (place < end.unsqueeze(1))
        return matrix.to(like.dtype), (end - start).to(like.dtype)


class FastPyramidNonLocalAttention(PyramidNonLocalAttention):
    """PNLA over all four maps at once, with values that M and F have been applied to."""

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, maps: int, base: Tensor) -> Tensor:
        """Return ``tanh(base + sum over maps of softmax(clip(Q·Kᵀ))·V)``, ``(B, N, C)``.

        Args:
            queries: ``(B, N, C')``.
            keys: ``(B, maps · S, C')``, the pooled positions of all maps, concatenated.
            values: ``(B, maps · S, C)``.
            maps: number of maps.
            base: ``(B, N, C)``.
        """
        logits = project(queries, keys)
        if not self._within_limit(queries, keys):
            logits = F.hardtanh(logits, -self.limit, self.limit)
        attention = logits.unflatten(-1, (maps, -1)).softmax(dim=-1).flatten(-2)
        attended = project(attention, values.transpose(1, 2))
        return (base + attended).tanh() if torch.is_grad_enabled() else tanh_(attended.add_(base))

    def _within_limit(self, queries: Tensor, keys: Tensor) -> bool:
        """Return whether clipping cannot change a logit, because the longest query times the longest key is in bounds.

        That saves passes over the largest tensor. On an accelerator, the check would take longer than clipping.
        """
        if not queries.is_cpu or torch.compiler.is_compiling():
            return False
        longest = [float(torch.linalg.vector_norm(x.detach(), dim=-1, dtype=_wide(x)).amax()) for x in (queries, keys)]
        return longest[0] * longest[1] < self.limit


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def parts(x: Tensor, batch: int) -> list[slice]:
    """Return the parts in which to process the positions of ``x``, ``(B, N, C)``.

    The attention has 440 elements for every position and is by far the largest tensor. Without gradients it need not be
    kept, so it is computed for a part of the positions at a time, which fits into a CPU's cache.
    """
    length = x.shape[1]
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return [slice(0, length)]
    step = max(1, (CPU_POSITIONS if x.is_cpu else GPU_POSITIONS) // batch)
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def project(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x @ weight.T`` of positions ``(B or 1, N, K)`` and a matrix ``(O, K)``, or one each, ``(B or 1, O, K)``.

    On a CPU it is computed as a 1×1 convolution by oneDNN, which in float32 is twice as fast as the matrix product of
    MKL on processors that are not Intel's. With a single thread, torch does not use oneDNN.
    """
    if weight.ndim == 3 and not torch.compiler.is_compiling() and len(weight) == 1:
        weight = weight[0]
    if weight.ndim == 2:
        if x.is_cpu and not torch.compiler.is_compiling() and torch.get_num_threads() > 1:
            return positions(F.conv2d(as_map(x, x.shape[1], 1), weight[..., None, None]))
        return F.linear(x, weight)
    if in_pieces(x):
        return torch.cat([project(x[row : row + 1] if len(x) > 1 else x, own) for row, own in enumerate(weight)])
    return x @ weight.transpose(1, 2)


class FastBidirectionalNonLocalFusion(BidirectionalNonLocalFusion):
    """BNLF in two halves: sums over parts of u, and the expansion in t, one part at a time."""

    bypasses: ClassVar[Bypasses] = {"theta": nn.Conv2d, "phi": nn.Conv2d, "psi": nn.Conv2d, "norm": nn.GroupNorm}

    @staticmethod
    def fits(module: BidirectionalNonLocalFusion) -> bool:
        """Return whether theta, phi and psi are matrices, and the norm has BNLF's groups, weights and biases."""
        norm, inner = module.norm, (module.theta, module.phi, module.psi)
        matrices = all(is_matrix(c) and c.bias is None for c in inner)
        return matrices and norm.num_groups == module.groups and norm.affine and module.orders > 1

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        """Fuse ``t`` and ``u``, ``(B, C, H, W)``, to the shape of t; ``u`` may have another height and width."""
        expanded = self.expand(positions(t), self.kernel_sums(positions(u)))
        return as_map(self.normalised(expanded, positions(t)), *t.shape[2:])

    def kernel_sums(self, u: Tensor) -> Tensor:
        """Return ``alpha_o^2 * sum(phi(u)^o * psi(u))`` for each order, ``(orders, B, 8)``, of positions ``(B, N, C)``.

        The sums run in at least float32, because half precision cannot add up hundreds of thousands of elements.
        """
        projections = torch.cat([self.phi.weight, self.psi.weight]).flatten(1)
        phi, psi = project(u, projections).chunk(2, dim=-1)
        with torch.autocast(u.device.type, enabled=False):
            phi, psi = phi.to(_wide(phi)), psi.to(_wide(phi))
            sums = []
            for order in range(self.orders):
                total = psi.sum(dim=1).unflatten(1, (self.groups, -1)).sum(dim=-1)
                sums.append(total * self.alpha_squared(order))
                psi = psi * phi
            return torch.stack(sums)

    def expand(self, t: Tensor, sums: Tensor) -> Tensor:
        """Return ``conv(sum_o sums_o * theta(t)^o)``, before the norm, of positions ``(B, N, C)``; the same shape."""
        theta = project(t, self.theta.weight.flatten(1))
        group = theta.shape[2] // self.groups
        *lower, highest = sums.to(theta.dtype).repeat_interleave(group, dim=-1).unsqueeze(2)
        x = highest
        for weight in reversed(lower):  # Horner's rule
            x = torch.addcmul(weight, x, theta)
        return positions(self.output(as_map(x, x.shape[1], 1)))

    def normalised(self, x: Tensor, *others: Tensor) -> Tensor:
        """Return the group norm of positions ``(B, N, C)`` plus ``others``, in place if no gradient needs ``x``."""
        if not in_pieces(x):
            x = positions(self.norm(as_map(x, x.shape[1], 1)))
            for other in others:
                x = x.add_(other)
            return x
        variance, mean = group_moments(x, self.groups)
        scale = (variance + self.norm.eps).rsqrt() * self.norm.weight
        shift = (self.norm.bias - mean * scale).unsqueeze(1).to(x.dtype)
        scale = scale.unsqueeze(1).to(x.dtype)
        for part in parts(x, x.shape[0]):
            piece = x[:, part].mul_(scale).add_(shift)
            for other in others:
                piece.add_(other[:, part])
        return x


def group_moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return variance and mean of each group of positions ``(B, N, C)``, repeated for its channels, ``(B, C)``.

    The moments of parts of the positions, which fit into a CPU's cache, are combined as in Chan et al. (1983), in at
    least float32.
    """
    pieces = parts(x, x.shape[0])
    share = torch.tensor([piece.stop - piece.start for piece in pieces], dtype=_wide(x)).view(-1, 1, 1, 1) / x.shape[1]
    means, variances = [], []
    for piece in pieces:
        values = x[:, piece].to(_wide(x))
        means.append(values.mean(dim=1))
        variances.append((values - means[-1].unsqueeze(1)).square_().mean(dim=1))
    of_parts, within = (torch.stack(moments).unflatten(-1, (groups, -1)) for moments in (means, variances))
    mean = (share * of_parts).sum(dim=0).mean(dim=-1, keepdim=True)
    variance = (share * (within + (of_parts - mean).square())).sum(dim=0).mean(dim=-1, keepdim=True)
    return tuple(moment.expand_as(of_parts[0]).flatten(1) for moment in (variance, mean))


class ReferenceAttention(NamedTuple):
    """The encoded reference for one level of PDMF: all that depends only on the reference.

    ``feature`` is r, ``(B, C, h, w)``. ``keys``, ``(B, 4 S, C')``, and ``values``, ``(B, 4 S, C)``, come from the
    pooled f_c1..f_c4. ``queries``, ``(B, h·w, C')``, is Q2.
    """

    feature: Tensor
    keys: Tensor
    values: Tensor
    queries: Tensor


class FastModalBranch(Folding, ModalBranch):
    """A branch of PDMF in which F·M and F·M·V are one matrix each."""

    bypasses: ClassVar[Bypasses] = {
        "query": FastConv2d,
        "keys": nn.Linear,
        "values": nn.Linear,
        "attention": FastPyramidNonLocalAttention,
        "mix": nn.Linear,
        "fuse": nn.Linear,
    }

    @staticmethod
    def fits(module: ModalBranch) -> bool:
        """Return whether no linear map has a bias."""
        return all(m.bias is None for m in (module.query, *module.keys, *module.values, module.mix, module.fuse))

    def forward(self, g: Tensor, pooled: Sequence[Tensor]) -> Tensor:
        """Map ``(B, C, H, W)`` and the other modality's pooled maps to ``(B, C, H, W)``."""
        keys, values = self.attend_to(pooled)
        whole = slice(0, g.shape[2] * g.shape[3])
        return as_map(self.attended(positions(g), positions(self.query(g)), keys, values, whole), *g.shape[2:])

    def attend_to(self, pooled: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the keys, ``(B, 4 S, C')``, and the values after M and F, ``(B, 4 S, C)``."""
        _, on_values = self.folded_constants()
        keys, values = [], []
        for x, key, value, on_value in zip(pooled, self.keys, self.values, on_values, strict=True):
            keys.append(key(x))
            values.append(F.linear(value(x), on_value))
        return torch.cat(keys, dim=1), torch.cat(values, dim=1)

    def attended(self, x: Tensor, queries: Tensor, keys: Tensor, values: Tensor, part: slice) -> Tensor:
        """Return ``tanh(F·[x_1..x_4]) + g`` for a part of the positions ``x`` of g, ``(B, part, C)``."""
        piece = x[:, part]
        base = project(piece, self.folded_constants()[0])
        attention = self.attention
        assert isinstance(attention, FastPyramidNonLocalAttention)
        return attention.attend(queries[:, part], keys, values, len(self.keys), base) + piece

    def constants(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the matrices of F·M for the querying feature, ``(C, C)``, and for each map's values, ``(C, C')``."""
        channels = self.fuse.weight.shape[0]
        by_map = self.fuse.weight.split(channels, dim=1)
        on_feature, on_attention = self.mix.weight.split([channels, self.mix.weight.shape[1] - channels], dim=1)
        return sum(by_map[1:], by_map[0]) @ on_feature, tuple(fuse @ on_attention for fuse in by_map)

    def fold(self, dtype: torch.dtype) -> None:
        """Keep the constants and drop M and F."""
        super().fold(dtype)
        del self.mix, self.fuse


class FastPyramidDualModalFusion(PyramidDualModalFusion):
    """PDMF in parts of the positions; u is never complete in memory, because BNLF needs only sums over it."""

    bypasses: ClassVar[Bypasses] = {
        "to_reference": FastModalBranch,
        "to_target": FastModalBranch,
        "fusion": FastBidirectionalNonLocalFusion,
    }
    to_reference: FastModalBranch
    to_target: FastModalBranch
    fusion: FastBidirectionalNonLocalFusion

    def encode_reference(self, r: Tensor, pooled: Sequence[Tensor]) -> ReferenceAttention:
        """Compute all that depends only on the reference, from r and the pooled f_c1..f_c4, ``(B, S, C_j)``."""
        keys, values = self.to_reference.attend_to(pooled)
        return ReferenceAttention(r, keys, values, positions(self.to_target.query(r)))

    def forward(
        self,
        g: Tensor,
        pooled_target: Sequence[Tensor],
        r: Tensor | ReferenceAttention,
        pooled_reference: Sequence[Tensor] = (),
    ) -> Tensor:
        """Return ``BNLF(t, u) + g``, with the shape of g; ``r`` may be an encoded reference."""
        reference = r if isinstance(r, ReferenceAttention) else self.encode_reference(r, pooled_reference)
        sums = self._sums(pooled_target, reference)
        x, queries = positions(g), positions(self.to_reference.query(g))
        pieces = parts(x, x.shape[0])
        whole: tuple[Tensor, ...] = ()
        for part in pieces:
            t = self.to_reference.attended(x, queries, reference.keys, reference.values, part)
            results = (self.fusion.expand(t, sums), t)
            if len(pieces) == 1:
                whole = results
            else:
                whole = whole or tuple(r.new_empty(r.shape[0], x.shape[1], r.shape[2]) for r in results)
                for all_of_it, result in zip(whole, results, strict=True):
                    all_of_it[:, part] = result
        expanded, t = whole
        del queries, whole
        return as_map(self.fusion.normalised(expanded, t, x), *g.shape[2:])

    def _sums(self, pooled_target: Sequence[Tensor], reference: ReferenceAttention) -> Tensor:
        """Return BNLF's sums over u."""
        keys, values = self.to_target.attend_to(pooled_target)
        x = positions(reference.feature)
        sums = torch.zeros((), device=x.device)
        for part in parts(x, keys.shape[0]):
            sums = sums + self.fusion.kernel_sums(self.to_target.attended(x, reference.queries, keys, values, part))
        return sums
