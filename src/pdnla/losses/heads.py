"""Loss on the encoders' training heads: the reference's style, and codes of the two that are orthogonal."""

from torch import Tensor
from torch.nn import functional

from pdnla.images.color import at_least_float32
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import LossTerm


class HeadsLoss(LossTerm):
    """Gram distance between result and reference, and the cosine of the two encoders' codes of one picture.

    ``‖G_c(out) - G_c(reference)‖^2 / ‖G_c(reference)‖^2``, the style loss of Gatys et al. (CVPR 2016) on the colour
    encoder's head; plus ``orthogonality * cos(E_g(target), E_c(out))^2``, both codes centred: one encoder says what is
    where, the other in which colours. The published helpers hold both heads; how they are weighed is not published.

    Args:
        orthogonality: weight of the second part.
        weight: of the term in the sum of all.
    """

    needs = ("codes",)

    def __init__(self, orthogonality: float = 1.0, *, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.orthogonality = orthogonality

    def forward(self, batch: Supervision) -> Tensor:
        """Return the loss, a scalar of at least 0."""
        assert batch.codes is not None
        target, reference, result = batch.codes
        wanted = at_least_float32(reference.gram).detach()
        gram = (at_least_float32(result.gram) - wanted).square().sum(dim=1) / (wanted.square().sum(dim=1) + 1e-8)
        codes = (at_least_float32(code) for code in (target.code, result.code))
        grey, colour = (code - code.mean(dim=1, keepdim=True) for code in codes)
        cosine = functional.cosine_similarity(grey, colour, dim=1)
        return gram.mean() + self.orthogonality * cosine.square().mean()
