"""Adversarial loss: the result should look like a photograph."""

import torch
from torch import Tensor

from pdnla.losses.critics import ImageCritic
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import CriticTerm, frozen, logistic, non_saturating


class AdversarialLoss(CriticTerm):
    """StyleGAN2's non-saturating logistic loss with lazy R1 (Karras et al., CVPR 2020).

    The network's loss is ``mean softplus(-D(out))``; the critic's ``mean softplus(D(out)) + mean softplus(-D(truth))``.

    Args:
        critic: D.
        penalty: weight of the R1 penalty on photographs.
        penalty_every: interval of the penalties in steps.
        weight: weight of the term.
    """

    def __init__(
        self, critic: ImageCritic, penalty: float = 10.0, penalty_every: int = 16, *, weight: float = 1.0
    ) -> None:
        super().__init__(critic, penalty, penalty_every, weight)

    def forward(self, batch: Supervision) -> Tensor:
        """Return the network's loss, a scalar of at least 0."""
        with frozen(self.critic):
            return non_saturating(self.critic(batch.out))

    def critic_loss(self, batch: Supervision, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the critic's loss and its mean scores."""
        real, fake = self.critic(batch.truth), self.critic(batch.out.detach())
        loss = logistic(real, fake)
        if self.penalised(step):
            loss = loss + self.gradient_penalty(self.critic, batch.truth)
        with torch.no_grad():
            return loss, {"real": real.float().mean(), "fake": fake.float().mean()}
