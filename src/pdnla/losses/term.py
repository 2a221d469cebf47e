"""Base classes of loss terms, with and without a critic."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla.losses.supervision import Supervision
from pdnla.network.layers import at_least_float32

Rows = Literal["all", "paired", "unpaired"]
Need = Literal["backbone", "codes"]


class LossTerm(nn.Module):
    """A loss term: a module that maps :class:`Supervision` to a scalar.

    A subclass declares the pairs that it applies to (``rows``) and its further inputs (``needs``): the features of the
    frozen ``backbone``, or the ``codes`` of the encoders' heads.

    Args:
        weight: weight of the term in the sum; a term with the weight 0 is not computed.

    Raises:
        TypeError: a subclass is defined with invalid ``rows`` or ``needs``.
    """

    rows: ClassVar[Rows] = "all"
    needs: ClassVar[tuple[Need, ...]] = ()

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = float(weight)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.rows not in get_args(Rows):
            raise TypeError(f"{cls.__name__}.rows is {cls.rows!r}; it must be one of {', '.join(get_args(Rows))}")
        if not isinstance(cls.needs, tuple) or not set(cls.needs) <= set(get_args(Need)):
            raise TypeError(f"{cls.__name__}.needs is {cls.needs!r}; it must be a tuple of {', '.join(get_args(Need))}")

    def forward(self, batch: Supervision) -> Tensor:
        """Return the term for the pairs that it applies to, a scalar."""
        raise NotImplementedError

    def select(self, batch: Supervision) -> Supervision:
        """Return the pairs of a batch that the term applies to."""
        if self.rows == "paired":
            return batch.paired
        return batch.unpaired if self.rows == "unpaired" else batch


class CriticTerm(LossTerm):
    """A term with a trained critic: the critic's loss, and the network's loss from it.

    Args:
        critic: the critic.
        penalty: weight of the R1 penalty in the critic's loss.
        penalty_every: interval of R1 in steps, by which R1 is multiplied (lazy regularisation, Karras et al., CVPR
            2020).
        weight: weight of the term.
    """

    def __init__(self, critic: nn.Module, penalty: float, penalty_every: int, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.critic, self.penalty, self.penalty_every = critic, penalty, penalty_every

    def forward(self, batch: Supervision) -> Tensor:
        """Return the network's loss, a scalar; the critic gets no gradient from it."""
        raise NotImplementedError

    def critic_loss(self, batch: Supervision, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the critic's loss at a step, and its mean scores for real and fake input, for the log.

        The network's results must have no gradients.
        """
        raise NotImplementedError

    def input_size(self, size: int) -> int:
        """Return the side of the critic's input for pictures of ``size`` × ``size`` pixels."""
        return size

    def penalised(self, step: int) -> bool:
        """Return whether R1 is due at this step."""
        return self.penalty > 0 and step % self.penalty_every == 0

    def gradient_penalty(self, score: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
        """Return the R1 penalty: ``every * penalty / 2 * E ‖d score / d real‖^2`` (Mescheder et al., ICML 2018).

        It is computed in float32, because squares of gradients exceed the range of half precision.
        """
        with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
            real = at_least_float32(real.detach()).requires_grad_()
            (gradient,) = torch.autograd.grad(score(real).sum(), real, create_graph=True)
            squared = gradient.square().flatten(1).sum(dim=1).mean()
        return self.penalty_every * self.penalty / 2 * squared


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """In the block, gradients flow through ``module`` but not to its weights."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def non_saturating(scores: Tensor) -> Tensor:
    """Return the network's non-saturating logistic loss, ``mean softplus(-score)`` (Goodfellow et al. 2014)."""
    return F.softplus(-at_least_float32(scores)).mean()


def logistic(real: Tensor, fake: Tensor) -> Tensor:
    """Return the critic's logistic loss, ``mean softplus(-real) + mean softplus(fake)``."""
    return F.softplus(-at_least_float32(real)).mean() + F.softplus(at_least_float32(fake)).mean()
