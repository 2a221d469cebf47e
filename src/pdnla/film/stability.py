"""Temporal stability: the colours of each frame combine its own with those of neighbouring frames, along motion.

A shot is coloured in steps of a few frames. At each step, a *key frame* is coloured by itself. The colours of the
previous key frame are transferred to it along motion, and both are averaged with their confidences as weights: a
running mean along the paths of motion, as in Lai et al. ("Learning Blind Video Temporal Consistency", ECCV 2018) but
without a network. The frames between two key frames get the colours of both, in proportion to their distance, where
motion is trusted. Elsewhere nothing is transferred: new objects get their own colours at once, so nothing smears. Old
colours lose weight with every key frame, so wrong ones fade.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pdnla.film.motion import Finder, Map, fill_gaps

STEP = 4
"""Largest number of frames from one key frame to the next."""
MEMORY = 4.0
"""Largest weight of transferred colours, in certain key frames: with confidences of a half, a mean over about eight."""
CERTAIN = 1e3
"""Confidence of given colours, which are not averaged with others."""
_OWN = 0.25  # smallest weight of a key frame's own colours
_TRUSTED = 0.3  # trust below which a pixel has no transferred colours
_GAPS = 0.08  # share of pixels without transferred colours above which a frame becomes a key frame
_LEAST = 1e-3


class Own(NamedTuple):
    """A frame's own colours.

    Attributes:
        chroma: a* and b*, ``(H, W, 2)``.
        confidence: ``(H, W)`` in [0, 1].
    """

    chroma: Map
    confidence: Map


@dataclass
class Memory:
    """The state after the last key frame.

    Attributes:
        grey: its L* · 2.55, ``(H, W)``.
        chroma: its a* and b*, ``(H, W, 2)``.
        weight: their accumulated confidence, in key frames, ``(H, W)``.
    """

    grey: NDArray[np.uint8]
    chroma: Map
    weight: Map


class Stabiliser:
    """Colours the frames of a shot.

    Args:
        own: returns the colours of a frame, by its index among the given frames.
        step: largest distance between key frames; 1 makes every frame a key frame.
        memory: largest weight of transferred colours; 0 for none.
    """

    def __init__(self, own: Callable[[int], Own], step: int = STEP, memory: float = MEMORY) -> None:
        self.own, self.step, self.limit = own, step, memory
        self.memory: Memory | None = None
        self._finder = Finder()

    def colour(self, greys: Sequence[NDArray[np.uint8]]) -> list[Map]:
        """Colour the frames after the last key frame, of which the last becomes the next key frame.

        Args:
            greys: L* · 2.55 of each, ``(H, W)``.

        Returns:
            a* and b* of each, ``(H, W, 2)``.
        """
        return self._between(list(greys), 0)

    def cut(self) -> None:
        """Clear the state, at the beginning of a shot."""
        self.memory = None

    def _between(self, greys: list[NDArray[np.uint8]], first: int) -> list[Map]:
        """Colour frames, the first with the index ``first``; split them if motion is not trusted."""
        before = self.memory
        key, last = greys[-1], first + len(greys) - 1
        if before is None:
            if len(greys) > 1:
                return self._between(greys[:1], first) + self._between(greys[1:], first + 1)
            self.memory = _first_memory(key, self.own(last))
            return [self.memory.chroma]
        motion = self._finder.between(key, before.grey)
        middle = len(greys) // 2
        if len(greys) > 1 and float((motion.trust < _TRUSTED).mean()) > _GAPS * 2:
            return self._between(greys[:middle], first) + self._between(greys[middle:], first + middle)
        own = self.own(last)
        weight = np.minimum(motion.warp(before.weight), self.limit) * np.where(motion.trust < _TRUSTED, 0, motion.trust)
        self.memory = after = _average(key, own, motion.warp(before.chroma), weight)
        results = []
        for place, grey in enumerate(greys[:-1], 1):
            forwards, backwards = self._finder.between(grey, before.grey), self._finder.between(grey, key)
            nearer = place / len(greys)
            parts = [(forwards, before.chroma, 1 - nearer), (backwards, after.chroma, nearer)]
            total = np.full(grey.shape, _LEAST, np.float32)
            chroma = np.zeros((*grey.shape, 2), np.float32)
            for way, values, share in parts:
                weight = share * np.where(way.trust < _TRUSTED, 0, way.trust)
                total += weight
                chroma += weight[..., None] * way.warp(values)
            results.append(fill_gaps(chroma, total))
        return [*results, after.chroma]


def _first_memory(grey: NDArray[np.uint8], own: Own) -> Memory:
    return Memory(grey, own.chroma, np.maximum(own.confidence, _OWN))


def _average(grey: NDArray[np.uint8], own: Own, transferred: Map, weight: Map) -> Memory:
    """Average transferred colours with a key frame's own."""
    confidence = np.maximum(own.confidence, _OWN)
    total = weight + confidence
    chroma = (weight[..., None] * transferred + confidence[..., None] * own.chroma) / total[..., None]
    return Memory(grey, chroma.astype(np.float32), total.astype(np.float32))
