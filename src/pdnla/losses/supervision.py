"""What every term of the loss may look at."""

from typing import NamedTuple

from torch import Tensor


class Supervision(NamedTuple):
    """A batch of pairs and what the network made of them, all sRGB in [-1, 1], ``(B, 3, H, W)``.

    ``target`` is grey, ``reference`` in colour, ``truth`` the target's true colours, ``mid`` and ``out`` the network's
    two results, which may leave the range.
    """

    target: Tensor
    reference: Tensor
    truth: Tensor
    mid: Tensor
    out: Tensor
