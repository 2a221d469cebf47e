"""The sum of the supervision's terms."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pdnla.errors import UserError
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import CriticTerm


class HybridLoss(nn.Module):
    """A weighted sum of named terms; a term of weight 0 is not computed, and its critic not made.

    A term is a module from :class:`Supervision` to a scalar. It says in ``rows`` which pairs it judges (``paired``,
    ``unpaired`` or ``all``) and in ``needs`` what it asks for beside the pictures (``backbone``, ``codes``). A term
    without a pair to judge in a batch is left out of its sum.

    Args:
        terms: the terms by name.
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

    @property
    def critics(self) -> dict[str, CriticTerm]:
        """The terms that learn, by name."""
        return {name: term for name, term in self.terms.items() if isinstance(term, CriticTerm)}

    @property
    def judges_unpaired(self) -> bool:
        """Whether a term judges pairs of different pictures."""
        return any(getattr(term, "rows", "all") != "paired" for term in self.terms.values())

    def needs(self, what: str) -> bool:
        """Return whether a term asks for ``backbone`` or ``codes``."""
        return any(what in getattr(term, "needs", ()) for term in self.terms.values())

    def forward(self, batch: Supervision, whole: tuple[int, int] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and each computed term on its own, without its weight and detached.

        Args:
            batch: what to judge.
            whole: if it is a part of a batch, the number of pairs in that, and of unpaired ones: terms are then the
                part's share of the batch's mean, which adds up to it.
        """
        pairs, unpaired = whole or (len(batch), len(batch.unpaired))
        counts = {"all": pairs, "unpaired": unpaired, "paired": pairs - unpaired}
        values = {}
        for name, term in self.terms.items():
            judged = judged_by(term, batch)
            if len(judged):
                share = len(judged) / counts[getattr(term, "rows", "all")]
                values[name] = term(judged) * share
        total = torch.zeros((), device=batch.out.device)
        for name, value in values.items():
            total = total + self.weights[name] * value
        return total, {name: value.detach() for name, value in values.items()}


def judged_by(term: nn.Module, batch: Supervision) -> Supervision:
    """Return the pairs of a batch that a term judges."""
    rows = getattr(term, "rows", "all")
    if rows == "paired":
        return batch.paired
    return batch.unpaired if rows == "unpaired" else batch
