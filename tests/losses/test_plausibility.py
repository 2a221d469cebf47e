"""Plausibility: no distance from the truth itself, more from other colours, and gradients to the result alone."""

import torch

from pdnla.backbones import load_backbone
from pdnla.images import color
from pdnla.losses import PlausibilityLoss, Supervision


def test_it_is_0_at_the_truth_and_grows_with_wrong_colours() -> None:
    generator = torch.Generator().manual_seed(0)
    rough = torch.rand(1, 3, 4, 4, generator=generator)
    truth = torch.nn.functional.interpolate(rough, (64, 64), mode="bicubic").clamp(0, 1)
    target = color.grey(truth) * 2 - 1
    lab = color.rgb_to_lab(truth)

    def distance(factor: float) -> torch.Tensor:
        result = color.lab_to_rgb(torch.cat([lab[:, :1], factor * lab[:, 1:]], dim=1)) * 2 - 1
        result.requires_grad_()
        batch = Supervision(target, target, truth * 2 - 1, target, result, backbone=load_backbone())
        loss: torch.Tensor = PlausibilityLoss()(batch)
        if factor != 1.0:
            loss.backward()  # type: ignore[no-untyped-call]
            assert result.grad is not None
            assert result.grad.abs().sum() > 0
        return loss

    assert distance(1.0) < 1e-5
    assert distance(0.8) < distance(0.4) < distance(-1.0) < 4
