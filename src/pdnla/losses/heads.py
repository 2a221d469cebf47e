"""Loss on the encoders' training heads: the reference's style, and orthogonal codes of the two encoders."""

from torch import Tensor
from torch.nn import functional

from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm
from pdnla.network.layers import at_least_float32


class HeadsLoss(LossTerm):
    """Gram distance between result and reference, and the cosine of the two encoders' codes of one picture.

    ``‖G_c(out) - G_c(reference)‖^2 / ‖G_c(reference)‖^2``, the style loss of Gatys et al. (CVPR 2016) on the colour
    encoder's head; plus ``orthogonality * cos(E_g(target), E_c(out))^2``, with both codes centred: one encoder should
    hold content, the other colours. The published code defines both heads, but not their weights.

    Args:
        orthogonality: weight of the second part.
        weight: weight of the term.
    """

    needs = ("codes",)

    def __init__(self, orthogonality: float = 1.0, *, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.orthogonality = orthogonality

    def forward(self, batch: Supervision) -> Tensor:
        """Return the loss, a scalar of at least 0."""
        assert batch.codes is not None
        target, reference, result = batch.codes
        reference_gram = at_least_float32(reference.gram).detach()
        gram = (at_least_float32(result.gram) - reference_gram).square().sum(dim=1) / (
            reference_gram.square().sum(dim=1) + 1e-8
        )
        codes = (at_least_float32(code) for code in (target.code, result.code))
        grey, colour = (code - code.mean(dim=1, keepdim=True) for code in codes)
        cosine = functional.cosine_similarity(grey, colour, dim=1)
        return gram.mean() + self.orthogonality * cosine.square().mean()
