"""Colour spaces: the definitions of luminance and chroma for the whole project.

Luminance is CIELAB's L* (D65, 2° observer) of sRGB, chroma its a* and b*. A *grey* picture is three equal
sRGB channels with the same L* as the picture it came from. Tensors are ``(..., 3, H, W)``; conversions run in
float32 even under autocast, because cube roots in half precision lose dark colours.
"""

import kornia.color
import torch
from torch import Tensor

from pdnla.network.layers import at_least_float32, grey_lightness


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB in [0, 1], ``(..., 3, H, W)``, to CIELAB: L* in [0, 100], a* and b* in about [-110, 110].

    The conversion is smooth outside [0, 1], so gradients pull a network's output back into range.
    """
    with torch.autocast(rgb.device.type, enabled=False):
        lab: Tensor = kornia.color.rgb_to_lab(at_least_float32(rgb))
    return lab


def lightness(grey: Tensor) -> Tensor:
    """Return L* in [0, 100] of a grey picture, sRGB in [0, 1], ``(..., C, H, W)``, as ``(..., 1, H, W)``.

    The same as :func:`rgb_to_lab`'s for three equal channels, in a fraction of the time.
    """
    return 100 * grey_lightness(at_least_float32(grey[..., :1, :, :]))


def lab_to_rgb(lab: Tensor, clip: bool = True) -> Tensor:
    """Convert CIELAB, ``(..., 3, H, W)``, to sRGB; ``clip`` limits each channel to [0, 1]."""
    with torch.autocast(lab.device.type, enabled=False):
        rgb: Tensor = kornia.color.lab_to_rgb(at_least_float32(lab), clip=clip)
    return rgb


def grey(rgb: Tensor) -> Tensor:
    """Return the grey picture with the L* of ``rgb``, sRGB in [0, 1], ``(..., 3, H, W)``.

    A picture that is already grey is unchanged up to rounding.
    """
    linear = kornia.color.rgb_to_linear_rgb(at_least_float32(rgb))
    red, green, blue = linear.unbind(-3)
    luminance = 0.212671 * red + 0.715160 * green + 0.072169 * blue
    encoded: Tensor = kornia.color.linear_rgb_to_rgb(luminance.clamp(0, 1).unsqueeze(-3).expand_as(rgb))
    return encoded


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


def lab_to_rgb_in_gamut(lab: Tensor, steps: int = 12, levels: int = 255) -> Tensor:
    """Convert CIELAB, ``(..., 3, H, W)``, to sRGB in [0, 1]; colours outside the gamut keep their lightness and hue.

    The chroma of such a colour is reduced until it fits, by bisection in ``steps`` halvings (the remaining error is
    below 2^-steps of the chroma). Clipping the channels instead would change lightness and hue.

    A channel counts as inside if it exceeds [0, 1] by less than half a step of ``levels`` + 1 values.
    """
    rgb = lab_to_rgb(lab, clip=False)
    margin = 0.5 / levels
    outside = ~_in_gamut(rgb, lab, margin)
    if bool(outside.any()):
        lightness, a, b = (channel[outside] for channel in lab.unbind(-3))
        scale = _largest_chroma(lightness, a, b, steps, margin)
        colours = torch.stack([lightness, a * scale, b * scale]).unsqueeze(-1)  # 3×N×1: an image of N pixels
        rgb.movedim(-3, -1)[outside] = lab_to_rgb(colours).squeeze(-1).T
    return rgb.clamp_(0, 1)


def _in_gamut(rgb: Tensor, lab: Tensor, margin: float) -> Tensor:
    """Return where ``rgb`` is inside [0, 1] up to the margin and Z is not negative, ``(..., H, W)``."""
    z_root = (lab[..., 0, :, :] + 16) / 116 - lab[..., 2, :, :] / 200
    return (rgb.amin(-3) >= -margin) & (rgb.amax(-3) <= 1 + margin) & (z_root >= 0)


def _largest_chroma(lightness: Tensor, a: Tensor, b: Tensor, steps: int, margin: float) -> Tensor:
    """Return the largest factor on ``a`` and ``b`` with which each colour fits in sRGB, ``(N,)`` in [0, 1].

    Linear RGB is a polynomial of the factor, so the bisection needs no powers.
    """
    least, most = -margin / 12.92, ((1 + margin + 0.055) / 1.055) ** 2.4
    matrix = kornia.color.xyz_to_rgb(torch.eye(3, dtype=a.dtype, device=a.device).unsqueeze(-1)).squeeze(-1)
    matrix = matrix * matrix.new_tensor([0.95047, 1.0, 1.08883])
    y_root = (lightness.to(a.dtype) + 16) / 116
    y = _cube(y_root)
    low, high = torch.zeros_like(a), torch.ones_like(a)
    for _ in range(steps):
        middle = (low + high) / 2
        z_root = y_root - b * middle / 200
        linear = matrix @ torch.stack([_cube(y_root + a * middle / 500), y, _cube(z_root)])
        fits = (linear.amin(0) >= least) & (linear.amax(0) <= most) & (z_root >= 0)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return low


def _cube(root: Tensor) -> Tensor:
    """Invert CIELAB's cube root, which is linear near black."""
    return torch.where(root > 0.2068966, root**3, (root - 4 / 29) / 7.787)
