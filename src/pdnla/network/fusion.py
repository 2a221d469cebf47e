"""The parts of stage 2, the boxes in the paper's Figure 3: PAP, PNLA, BNLF, and PDMF, which combines them."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.network.layers import at_least_float32


class PyramidAveragePooling(nn.Module):
    """PAP: adaptive average pooling of a map to 1×1, 3×3, 6×6 and 8×8 positions, concatenated."""

    sides: tuple[int, ...] = (1, 3, 6, 8)

    def forward(self, x: Tensor, ring: int = 0) -> Tensor:
        """Map ``(B, C, H, W)``, padded with a ring of zeros, to the S = 110 pooled positions, ``(B, S, C)``."""
        ringed = F.pad(x, (ring,) * 4)
        pooled = torch.cat([F.adaptive_avg_pool2d(ringed, side).flatten(2) for side in self.sides], dim=2)
        return pooled.transpose(1, 2)


class PyramidNonLocalAttention(nn.Module):
    """PNLA: every position of a map attends to the pooled positions of another map."""

    limit = 64.0
    """Logits are clipped to [-64, 64]."""

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return ``softmax(clip(Q·Kᵀ))·V``, ``(B, N, C')``, without a factor of 1/sqrt(C'), as published.

        Args:
            queries: ``(B, N, C')``.
            keys: ``(B, S, C')``.
            values: ``(B, S, C')``.
        """
        logits = (queries @ keys.transpose(1, 2)).clamp(-self.limit, self.limit)
        return logits.softmax(dim=-1) @ values


class BidirectionalNonLocalFusion(nn.Module):
    """BNLF: non-local fusion of t and u with a Gaussian kernel, as a Taylor expansion.

    In each of 8 groups, channels and positions form one long vector. With
    ``alpha_o^2 = (2 gamma)^o / o! * exp(-2 gamma)``,
    ``BNLF(t, u) = GroupNorm(conv(sum_o alpha_o^2 * sum(phi(u)^o * psi(u)) * theta(t)^o)) + t``.

    Args:
        channels: channels C of t and u.
        inner: channels C' of theta, phi and psi.
    """

    groups = 8
    orders = 3
    gamma = 1e-4

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, inner, 1, bias=False)
        self.phi = nn.Conv2d(channels, inner, 1, bias=False)
        self.psi = nn.Conv2d(channels, inner, 1, bias=False)
        self.output = nn.Conv2d(inner, channels, 1, groups=self.groups, bias=False)
        self.norm = nn.GroupNorm(self.groups, channels)

    def alpha_squared(self, order: int) -> float:
        """Return the weight of an order of the expansion."""
        return (2 * self.gamma) ** order / math.factorial(order) * math.exp(-2 * self.gamma)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        """Fuse ``t`` and ``u``, ``(B, C, H, W)``, to the shape of t; ``u`` may have another height and width.

        The sums run in float32, because half precision cannot add up hundreds of thousands of elements.
        """
        theta, phi, psi = (x.unflatten(1, (self.groups, -1)) for x in (self.theta(t), self.phi(u), self.psi(u)))
        phi, psi = at_least_float32(phi), at_least_float32(psi)
        fused = torch.zeros_like(theta)
        for order in range(self.orders):
            total = (phi**order * psi).sum(dim=(2, 3, 4), keepdim=True)
            fused = fused + (self.alpha_squared(order) * total).to(theta.dtype) * theta**order
        return self.norm(self.output(fused.flatten(1, 2))) + t


class ModalBranch(nn.Module):
    """One of the two branches of PDMF: a map of one modality attends to the four pooled maps of the other.

    Args:
        channels: channels C of the map.
        inner: channels C' of queries, keys and values.
        sources: channels of the four pooled maps.
    """

    def __init__(self, channels: int, inner: int, sources: Sequence[int]) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, inner, 3, padding=1, bias=False)
        self.keys = nn.ModuleList(nn.Linear(source, inner, bias=False) for source in sources)
        self.values = nn.ModuleList(nn.Linear(source, inner, bias=False) for source in sources)
        self.attention = PyramidNonLocalAttention()
        self.mix = nn.Linear(channels + inner, channels, bias=False)
        self.fuse = nn.Linear(len(sources) * channels, channels, bias=False)

    def forward(self, g: Tensor, pooled: Sequence[Tensor]) -> Tensor:
        """Return ``t = tanh(F·[x_1..x_4]) + g`` with ``x_j = M·[g, a_j]`` and ``a_j = PNLA(Q(g); K_j, V_j)``.

        Args:
            g: ``(B, C, H, W)``.
            pooled: the other modality's maps, each ``(B, S, C_j)``.

        Returns:
            ``(B, C, H, W)``.
        """
        queries, own = positions(self.query(g)), positions(g)
        mixed = []
        for other, key, value in zip(pooled, self.keys, self.values, strict=True):
            a = self.attention(queries, key(other), value(other))
            mixed.append(self.mix(torch.cat([own.expand(len(a), -1, -1), a], dim=-1)))
        t = torch.tanh(self.fuse(torch.cat(mixed, dim=-1))) + own
        return as_map(t, *g.shape[2:])


class PyramidDualModalFusion(nn.Module):
    """PDMF: the fusion of the current target feature g with the reference feature r at one level.

    Args:
        channels: channels C of g and r at this level.
        inner: channels C' of queries, keys and values.
        sources: channels of the four feature maps f1..f4.
    """

    def __init__(self, channels: int, inner: int, sources: Sequence[int]) -> None:
        super().__init__()
        self.to_reference = ModalBranch(channels, inner, sources)
        self.to_target = ModalBranch(channels, inner, sources)
        self.fusion = BidirectionalNonLocalFusion(channels, inner)

    def forward(
        self, g: Tensor, pooled_target: Sequence[Tensor], r: Tensor, pooled_reference: Sequence[Tensor]
    ) -> Tensor:
        """Return ``BNLF(t, u) + g``, with the shape of g.

        Args:
            g: ``(B, C, H, W)``.
            pooled_target: PAP of f_g1..f_g4, each ``(B, S, C_j)``.
            r: ``(B, C, H', W')``; one reference serves a batch of targets.
            pooled_reference: PAP of f_c1..f_c4.
        """
        t = self.to_reference(g, pooled_reference)
        u = self.to_target(r, pooled_target)
        return self.fusion(t, u) + g


def positions(x: Tensor) -> Tensor:
    """View a map ``(B, C, H, W)`` as its positions, ``(B, H·W, C)``."""
    return x.flatten(2).transpose(1, 2)


def as_map(x: Tensor, height: int, width: int) -> Tensor:
    """View positions ``(B, H·W, C)`` as a map ``(B, C, H, W)``."""
    return x.unflatten(1, (height, width)).permute(0, 3, 1, 2)
