"""Patch co-occurrence loss: patches of the result should have the colours of the reference's patches."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pdnla.losses.critics import PatchCritic
from pdnla.losses.supervision import Supervision
from pdnla.losses.term import CriticTerm, frozen, logistic, non_saturating
from pdnla.network.layers import at_least_float32

SMALLEST, LARGEST = 1 / 8, 1 / 4  # side of a patch, relative to the shorter side


def random_patches(images: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    """Crop random squares of 1/8 to 1/4 of the shorter side and resize them to one size.

    Args:
        images: ``(B, C, H, W)``.
        count: number of patches of each image.
        size: side of the patches in pixels.
        generator: a generator on the CPU, so that a seed gives the same patches on every device.

    Returns:
        Patches ``(B, count, C, size, size)``.
    """
    batch, channels, height, width = images.shape
    chance = torch.rand(batch, count, 3, generator=generator)
    side = (SMALLEST + (LARGEST - SMALLEST) * chance[..., 0]) * min(height, width)
    boxes = torch.zeros(batch, count, 2, 3)
    for axis, extent in enumerate((width, height)):
        scale = side / extent
        boxes[..., axis, axis] = scale
        boxes[..., axis, 2] = (1 - scale) * (2 * chance[..., 1 + axis] - 1)
    boxes = boxes.flatten(0, 1).to(images)
    grid = F.affine_grid(boxes, [batch * count, channels, size, size], align_corners=False)
    # All patches of an image are sampled at once, as a column, so that the image is not repeated.
    grid = grid.view(batch, count * size, size, 2)
    sampled = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return sampled.view(batch, channels, count, size, size).transpose(1, 2)


class CooccurrenceLoss(CriticTerm):
    """Patch co-occurrence loss of the swapping autoencoder (Park et al., NeurIPS 2020), for unpaired pairs.

    The critic sees ``patches`` patches of the result or of the reference, together with ``reference_patches`` other
    patches of the reference, and learns to distinguish the two cases. The network's loss is
    ``mean softplus(-D(out's, ref's))``.

    Args:
        critic: D.
        patches: number of patches of each picture.
        reference_patches: number of patches of each reference that they are compared with.
        size: side of the patches in pixels.
        penalty: weight of the R1 penalty on the reference's patches.
        penalty_every: interval of the penalties in steps.
        weight: weight of the term.
    """

    rows = "unpaired"

    def __init__(
        self,
        critic: PatchCritic,
        patches: int = 8,
        reference_patches: int = 4,
        size: int = 32,
        penalty: float = 1.0,
        penalty_every: int = 16,
        *,
        weight: float = 1.0,
    ) -> None:
        super().__init__(critic, penalty, penalty_every, weight)
        self.patches, self.reference_patches, self.size = patches, reference_patches, size

    def input_size(self, size: int) -> int:
        """Return the side of a patch."""
        return self.size

    def forward(self, batch: Supervision) -> Tensor:
        """Return the network's loss, a scalar of at least 0."""
        generator = torch.Generator().manual_seed(batch.seed)
        result = random_patches(batch.out, self.patches, self.size, generator)
        others = random_patches(batch.reference, self.reference_patches, self.size, generator)
        with frozen(self.critic):
            return non_saturating(self.critic(result, others))

    def critic_loss(self, batch: Supervision, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the critic's loss and its mean scores."""
        generator = torch.Generator().manual_seed(batch.seed)
        result = random_patches(batch.out.detach(), self.patches, self.size, generator)
        others = random_patches(batch.reference, self.reference_patches, self.size, generator)
        same = random_patches(batch.reference, self.patches, self.size, generator)
        real, fake = self.critic(same, others), self.critic(result, others)
        loss = logistic(real, fake)
        if self.penalised(step):
            # A patch is a sample: its gradient counts, not that of the patches it is compared with.
            def score(flat: Tensor) -> Tensor:
                return self.critic(flat.unflatten(0, same.shape[:2]), at_least_float32(others))

            loss = loss + self.gradient_penalty(score, same.flatten(0, 1))
        with torch.no_grad():
            return loss, {"real": real.float().mean(), "fake": fake.float().mean()}
