"""The hybrid loss: a weighted sum of terms."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pdnla.errors import UserError
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import CriticTerm, LossTerm, Need


class HybridLoss(nn.Module):
    """A weighted sum of named terms; a term with the weight 0 is neither computed nor kept.

    A term that applies to no pair of a batch is left out of that batch's sum.

    Args:
        terms: the terms by name, each with its weight.
        weights: weights by the terms' names, which replace the terms' own.

    Raises:
        UserError: a weight has a name that no term has.
        TypeError: a term is not a :class:`~pdnla.losses.term.LossTerm`.
    """

    def __init__(self, terms: Mapping[str, LossTerm], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        weights = weights or {}
        if unknown := sorted(set(weights) - set(terms)):
            raise UserError(f"loss.weights: no term is called {', '.join(unknown)}; the terms are {', '.join(terms)}")
        for name, term in terms.items():
            if not isinstance(term, LossTerm):
                raise TypeError(f"loss.terms.{name}: {type(term).__name__} is not a subclass of LossTerm")
        names = [*weights, *(name for name in terms if name not in weights)]
        self.weights = {name: float(weights.get(name, terms[name].weight)) for name in names}
        self.terms = nn.ModuleDict({name: terms[name] for name, weight in self.weights.items() if weight})

    @property
    def active_terms(self) -> dict[str, LossTerm]:
        """The terms whose weight is not 0, by name."""
        return {name: term for name, term in self.terms.items() if isinstance(term, LossTerm)}

    @property
    def critics(self) -> dict[str, CriticTerm]:
        """The terms with a critic, by name."""
        return {name: term for name, term in self.terms.items() if isinstance(term, CriticTerm)}

    @property
    def applies_to_unpaired(self) -> bool:
        """Whether a term applies to unpaired pairs."""
        return any(term.rows != "paired" for term in self.active_terms.values())

    def needs(self, what: Need) -> bool:
        """Return whether a term needs ``backbone`` or ``codes``."""
        return any(what in term.needs for term in self.active_terms.values())

    def forward(self, batch: Supervision, whole: tuple[int, int] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and each term by its name, without its weight and detached.

        Args:
            batch: the input of the terms.
            whole: if ``batch`` is a part of a larger batch, the larger batch's numbers of pairs and of unpaired pairs.
                Each term is then the part's share of the mean, so that the shares add up to the mean.
        """
        pairs, unpaired = whole or (len(batch), len(batch.unpaired))
        counts = {"all": pairs, "unpaired": unpaired, "paired": pairs - unpaired}
        values = {}
        for name, term in self.active_terms.items():
            selected = term.select(batch)
            if len(selected):
                values[name] = term(selected) * (len(selected) / counts[term.rows])
        total = torch.zeros((), device=batch.out.device)
        for name, value in values.items():
            total = total + self.weights[name] * value
        return total, {name: value.detach() for name, value in values.items()}
