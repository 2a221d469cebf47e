"""The frozen networks whose features others compare."""

import torch

from pdnla.backbones import load_backbone


def test_one_that_was_first_used_in_colouring_serves_training_too() -> None:
    load_backbone.cache_clear()
    with torch.inference_mode():
        backbone = load_backbone()
    picture = torch.zeros(1, 3, 32, 32, requires_grad=True)
    sum(feature.square().sum() for feature in backbone(picture)).backward()  # type: ignore[union-attr]
    assert picture.grad is not None
    assert picture.grad.abs().sum() > 0
