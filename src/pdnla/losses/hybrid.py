"""The sum of the supervision's terms."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pdnla.errors import UserError
from pdnla.losses.supervision import Supervision


class HybridLoss(nn.Module):
    """A weighted sum of named terms; a term of weight 0 is not computed.

    Args:
        terms: each a module from :class:`Supervision` to a scalar, by name.
        weights: a weight for each term, by the same names.

    Raises:
        UserError: a weight names no term or a term has no weight.
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if unknown := sorted(set(terms) ^ set(weights)):
            raise UserError(
                f"loss: {', '.join(unknown)} must stand in both loss.terms and loss.weights; add the other one"
            )
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.terms = nn.ModuleDict({name: terms[name] for name, weight in self.weights.items() if weight})

    def forward(self, batch: Supervision) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and each computed term on its own, without its weight and detached."""
        values = {name: term(batch) for name, term in self.terms.items()}
        total = torch.zeros((), device=batch.out.device)
        for name, value in values.items():
            total = total + self.weights[name] * value
        return total, {name: value.detach() for name, value in values.items()}
