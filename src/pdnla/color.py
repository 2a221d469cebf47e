"""Colour spaces: what luminance and chroma mean everywhere in the project.

Luminance is CIELAB's L* (D65, 2° observer) of sRGB, chroma its a* and b*. A *grey* picture is three equal sRGB
channels with the same L* as the picture it came from. Tensors are ``(..., 3, H, W)``; conversions run in float32
even under autocast, because the cube roots lose dark colours in half precision.
"""

import kornia.color
import torch
from torch import Tensor


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB in [0, 1], ``(..., 3, H, W)``, to CIELAB: L* in [0, 100], a* and b* in about [-110, 110].

    Values outside [0, 1] are followed smoothly, so that gradients pull a network's output back into range.
    """
    with torch.autocast(rgb.device.type, enabled=False):
        lab: Tensor = kornia.color.rgb_to_lab(rgb.float() if rgb.dtype != torch.float64 else rgb)
    return lab


def lab_to_rgb(lab: Tensor, clip: bool = True) -> Tensor:
    """Convert CIELAB, ``(..., 3, H, W)``, to sRGB; ``clip`` limits the result to [0, 1], channel by channel."""
    with torch.autocast(lab.device.type, enabled=False):
        rgb: Tensor = kornia.color.lab_to_rgb(lab.float() if lab.dtype != torch.float64 else lab, clip=clip)
    return rgb


def grey(rgb: Tensor) -> Tensor:
    """Return the grey picture with the luminance L* of ``rgb``: sRGB in [0, 1], ``(..., 3, H, W)`` in and out.

    A picture that is grey already comes back as it was, to rounding.
    """
    linear = kornia.color.rgb_to_linear_rgb(rgb.float())
    red, green, blue = linear.unbind(-3)
    luminance = 0.212671 * red + 0.715160 * green + 0.072169 * blue
    encoded: Tensor = kornia.color.linear_rgb_to_rgb(luminance.clamp(0, 1).unsqueeze(-3))
    return encoded.expand_as(rgb).contiguous()


def replace_luminance(target: Tensor, out: Tensor) -> Tensor:
    """Give ``out`` the luminance of ``target``, the published network's last step.

    Args:
        target: the grey target, sRGB in [-1, 1], ``(B, 3, H, W)``.
        out: the network's output, sRGB in about [-1, 1], ``(B, 3, H, W)``.

    Returns:
        a* and b* of ``out`` under L* of ``target``, sRGB clipped to [-1, 1], ``(B, 3, H, W)``.
    """
    lightness = rgb_to_lab((target + 1) / 2)[..., :1, :, :]
    chroma = rgb_to_lab((out + 1) / 2)[..., 1:, :, :]
    return lab_to_rgb(torch.cat([lightness, chroma], dim=-3)) * 2 - 1


def lab_to_rgb_in_gamut(lab: Tensor, steps: int = 12) -> Tensor:
    """Convert CIELAB, ``(..., 3, H, W)``, to sRGB in [0, 1], keeping lightness and hue where the gamut ends.

    A colour outside sRGB moves along its own hue towards the grey of its own L* until it fits, found by bisection in
    ``steps`` halvings (the remaining chroma error is under 2^-steps of the chroma). Clipping channels instead
    would change lightness and hue.
    """
    margin = 0.5 / 255
    rgb = lab_to_rgb(lab, clip=False)
    inside = _in_gamut(lab, rgb, margin)
    if bool(inside.all()):
        return rgb.clamp(0, 1)
    outside = ~inside
    channels_last = lab.movedim(-3, -1)
    colours = channels_last[outside].T.unsqueeze(-1)  # 3×N×1: an image of the colours that do not fit
    low = torch.zeros_like(colours[:1])
    high = torch.ones_like(low)
    for _ in range(steps):
        middle = (low + high) / 2
        scaled = torch.cat([colours[:1], colours[1:] * middle])
        fits = _in_gamut(scaled, lab_to_rgb(scaled, clip=False), margin).unsqueeze(0)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    fitted = lab_to_rgb(torch.cat([colours[:1], colours[1:] * low]))
    result = rgb.movedim(-3, -1).clone()
    result[outside] = fitted.squeeze(-1).T
    return result.movedim(-1, -3).clamp(0, 1)


def _in_gamut(lab: Tensor, rgb: Tensor, margin: float) -> Tensor:
    """Return where ``rgb`` is inside [0, 1] up to ``margin`` and Z stayed positive, ``(..., H, W)``."""
    z_root = (lab[..., 0, :, :] + 16) / 116 - lab[..., 2, :, :] / 200
    return ((rgb >= -margin) & (rgb <= 1 + margin)).all(dim=-3) & (z_root >= 0)
