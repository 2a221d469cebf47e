"""The sum of the supervision's terms."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pdnla.errors import UserError
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import CriticTerm, LossTerm, Need


class HybridLoss(nn.Module):
    """A weighted sum of named terms; a term of weight 0 is not computed, and its critic not made.

    A term without a pair to judge in a batch is left out of its sum.

    Args:
        terms: the terms by name, each with its weight.
        weights: weights by the same names, which replace the terms' own; a term need not be named.

    Raises:
        UserError: a weight names no term.
        TypeError: a term is no :class:`~pdnla.losses.term.LossTerm`.
    """

    def __init__(self, terms: Mapping[str, LossTerm], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        weights = weights or {}
        if unknown := sorted(set(weights) - set(terms)):
            raise UserError(f"loss.weights: no term is called {', '.join(unknown)}; the terms are {', '.join(terms)}")
        for name, term in terms.items():
            if not isinstance(term, LossTerm):
                raise TypeError(f"loss.terms.{name}: {type(term).__name__} is no subclass of LossTerm")
        names = [*weights, *(name for name in terms if name not in weights)]
        self.weights = {name: float(weights.get(name, terms[name].weight)) for name in names}
        self.terms = nn.ModuleDict({name: terms[name] for name, weight in self.weights.items() if weight})

    @property
    def computed(self) -> dict[str, LossTerm]:
        """The terms whose weight is not 0, by name."""
        return {name: term for name, term in self.terms.items() if isinstance(term, LossTerm)}

    @property
    def critics(self) -> dict[str, CriticTerm]:
        """The terms that learn, by name."""
        return {name: term for name, term in self.terms.items() if isinstance(term, CriticTerm)}

    @property
    def judges_unpaired(self) -> bool:
        """Whether a term judges pairs of different pictures."""
        return any(term.rows != "paired" for term in self.computed.values())

    def needs(self, what: Need) -> bool:
        """Return whether a term asks for ``backbone`` or ``codes``."""
        return any(what in term.needs for term in self.computed.values())

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
        for name, term in self.computed.items():
            judged = term.judged(batch)
            if len(judged):
                values[name] = term(judged) * (len(judged) / counts[term.rows])
        total = torch.zeros((), device=batch.out.device)
        for name, value in values.items():
            total = total + self.weights[name] * value
        return total, {name: value.detach() for name, value in values.items()}
