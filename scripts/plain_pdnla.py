"""The published network written down plainly, formula by formula, to check and to time the package against.

Contiguous NCHW, no identity used: every key and value projection runs on its whole map, M and F one after the
other, upsampling before projection. It reads a state dict under the published names.
"""

import math
from collections.abc import Mapping

import kornia.filters
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdnla import PDNLA
from pdnla.published import published_names, published_shape

Weights = Mapping[str, Tensor]


def activation(x: Tensor, bias: Tensor | None = None) -> Tensor:
    if bias is not None:
        x = x + bias.view(1, -1, 1, 1)
    return math.sqrt(2) * F.leaky_relu(x, 0.2)


def equalised(weight: Tensor) -> Tensor:
    return weight / math.sqrt(weight[0].numel())


def blur(x: Tensor, before: int, after: int) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device)
    kernel = torch.outer(taps, taps) / 64
    channels = x.shape[1]
    x = F.pad(x, (before, after, before, after))
    return F.conv2d(x, kernel.expand(channels, 1, 4, 4), groups=channels)


def residual_block(w: Weights, name: str, x: Tensor) -> Tensor:
    y = F.pad(x, (1, 1, 1, 1), mode="reflect")
    y = activation(F.conv2d(y, equalised(w[f"{name}.conv1.1.weight"])), w[f"{name}.conv1.2.bias"])
    y = F.conv2d(blur(y, 2, 2), equalised(w[f"{name}.conv2.1.weight"]), stride=2)
    y = activation(y, w[f"{name}.conv2.2.bias"])
    skip = F.conv2d(blur(x, 1, 1), equalised(w[f"{name}.skip.1.weight"]), stride=2)
    return (y + skip) / math.sqrt(2)


def encoder(w: Weights, name: str, image: Tensor) -> list[Tensor]:
    # One image at a time: in a batch, rounding differs and can turn an edge on or off.
    edges = torch.cat([kornia.filters.canny(one, hysteresis=False)[1] for one in image.float().split(1)])
    edges = edges.to(image)
    x = F.conv2d(torch.cat([image, edges], 1), equalised(w[f"{name}.conv1.0.weight"]))
    x = activation(x, w[f"{name}.conv1.1.bias"])
    features = []
    for block in ("res11", "res21", "res31", "res41"):
        x = torch.tanh(residual_block(w, f"{name}.{block}", x))
        features.append(x)
    return features


def pyramid_average_pooling(x: Tensor) -> Tensor:
    return torch.cat([F.adaptive_avg_pool2d(x, side).flatten(2) for side in (1, 3, 6, 8)], dim=2)


def attention(query: Tensor, source: Tensor, key: Tensor, value: Tensor) -> Tensor:
    keys = pyramid_average_pooling(F.conv2d(source, key, padding=1))
    values = pyramid_average_pooling(F.conv2d(source, value, padding=1))
    logits = (keys.transpose(1, 2) @ query.flatten(2)).clamp(-64, 64)
    return (values @ logits.softmax(dim=1)).unflatten(2, query.shape[2:])


def bidirectional_fusion(w: Weights, name: str, t: Tensor, u: Tensor) -> Tensor:
    theta, phi, psi = (F.conv2d(x, w[f"{name}.{p}.weight"]) for x, p in ((t, "t"), (u, "p"), (u, "g")))
    results = []
    for group_theta, group_phi, group_psi in zip(theta.chunk(8, 1), phi.chunk(8, 1), psi.chunk(8, 1), strict=True):
        x = torch.zeros_like(group_theta)
        for order in range(3):
            alpha = math.sqrt((2e-4) ** order / math.factorial(order) * math.exp(-2e-4))
            total = alpha * (group_phi**order * group_psi).sum(dim=(1, 2, 3), keepdim=True)
            x = x + total * alpha * group_theta**order
        results.append(x)
    x = F.conv2d(torch.cat(results, 1), w[f"{name}.z.weight"], groups=8)
    return F.group_norm(x, 8, w[f"{name}.gn.weight"], w[f"{name}.gn.bias"]) + t


def dual_modal_fusion(
    w: Weights, name: str, g: Tensor, r: Tensor, targets: list[Tensor], references: list[Tensor]
) -> Tensor:
    q1 = F.conv2d(g, w[f"{name}.conv_q1.weight"], padding=1)
    q2 = F.conv2d(r, w[f"{name}.conv_q2.weight"], padding=1)
    xs, ys = [], []
    for j in range(4):
        a = attention(q1, references[j], w[f"{name}.conv_k1_list.{j}.weight"], w[f"{name}.conv_v1_list.{j}.weight"])
        b = attention(q2, targets[j], w[f"{name}.conv_k2_list.{j}.weight"], w[f"{name}.conv_v2_list.{j}.weight"])
        xs.append(F.conv2d(torch.cat([g, a], 1), w[f"{name}.conv_mask1.weight"]))
        ys.append(F.conv2d(torch.cat([r, b], 1), w[f"{name}.conv_mask2.weight"]))
    t = torch.tanh(F.conv2d(torch.cat(xs, 1), w[f"{name}.conv_fuse11.weight"])) + g
    u = torch.tanh(F.conv2d(torch.cat(ys, 1), w[f"{name}.conv_fuse21.weight"])) + r
    return bidirectional_fusion(w, f"{name}.BNLBlock", t, u) + g


def decoder(w: Weights, targets: list[Tensor], references: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    f = targets[3]
    outputs = []
    for i in range(4):
        f = dual_modal_fusion(w, f"gen.NLB.{i}", f, references[3 - i], targets, references)
        weight = w[f"gen.layers_up.{i}.0.weight"]
        f = blur(F.conv_transpose2d(f, weight / math.sqrt(weight.shape[0]), stride=2), 2, 2)
        if i < 3:
            f = torch.cat([f, targets[2 - i]], 1)
        f = F.conv2d(torch.tanh(f), equalised(w[f"gen.layers_conv1.{i}.0.weight"]), padding=1)
        f = activation(f, w.get(f"gen.layers_conv1.{i}.1.bias"))
        outputs.append(f)
    return outputs, F.conv2d(f, equalised(w["gen.to_rgb.0.weight"]), w["gen.to_rgb.0.bias"])


def channel_attention(w: Weights, name: str, x: Tensor) -> Tensor:
    b = F.conv2d(x, w[f"{name}.body.0.weight"], padding=1)
    b = F.conv2d(F.prelu(b, w["ocn.conv1.body.1.weight"]), w[f"{name}.body.2.weight"], padding=1)
    gate = F.conv2d(b.mean(dim=(2, 3), keepdim=True), w[f"{name}.conv_du.0.weight"])
    gate = torch.sigmoid(F.conv2d(F.relu(gate), w[f"{name}.conv_du.2.weight"]))
    return x + b * gate


def base_block(w: Weights, name: str, x: Tensor) -> Tensor:
    y = channel_attention(w, f"{name}.body.1", channel_attention(w, f"{name}.body.0", x))
    return x + F.conv2d(y, w[f"{name}.body.2.weight"], padding=1)


def upsample(w: Weights, names: list[str], x: Tensor) -> Tensor:
    for name in names:
        x = F.conv2d(F.interpolate(x, scale_factor=2, mode="bilinear"), w[f"ocn.{name}.up.1.weight"])
    return x


def refiner(w: Weights, target: Tensor, mid: Tensor, decoded: list[Tensor]) -> Tensor:
    ups = [
        F.conv2d(decoded[3], w["ocn.up1.weight"]),
        upsample(w, ["up2"], decoded[2]),
        upsample(w, ["up3.0", "up3.1"], decoded[1]),
        upsample(w, ["up4.0", "up4.1", "up4.2"], decoded[0]),
    ]
    x = F.conv2d(torch.cat([target, mid], 1), w["ocn.conv0.weight"], padding=1)
    x = channel_attention(w, "ocn.conv1", x)
    x = base_block(w, "ocn.ocb1", x) + x
    for i, up in enumerate(ups):
        x = F.conv2d(torch.cat([x, up], 1), w[f"ocn.conv{i + 2}1.weight"], padding=1)
        x = base_block(w, f"ocn.ocb{i + 2}", x) + x
    return target + F.conv2d(x, equalised(w["ocn.to_rgb.0.weight"]), w["ocn.to_rgb.0.bias"])


class PlainPDNLA(nn.Module):
    """The network from a published state dict; ``net(target, reference)`` returns ``(mid, out)``."""

    def __init__(self, published: Weights) -> None:
        super().__init__()
        self.names = list(published)
        self.values = nn.ParameterList([nn.Parameter(value.clone()) for value in published.values()])

    def forward(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        w = dict(zip(self.names, self.values, strict=True))
        targets, references = encoder(w, "enc1", target), encoder(w, "enc2", reference)
        decoded, mid = decoder(w, targets, references)
        return mid, refiner(w, target, mid, decoded)


def plain_of(net: PDNLA) -> PlainPDNLA:
    """Return the transcription with the weights of ``net``."""
    state = net.state_dict()
    names = published_names(state)
    return PlainPDNLA({names[name]: value.reshape(published_shape(name, value)) for name, value in state.items()})
