"""References of a film: the choice for each shot, and references that are frames of the film."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pdnla.film.shots import Shot
from pdnla.images.greys import read_reference
from pdnla.images.io import Picture, read_image
from pdnla.inference.colorizer import Colorizer, Encoded
from pdnla.inference.fitting import Fit
from pdnla.inference.preprocessing import network_input

MOST = 3
"""Largest number of references that are chosen for a shot by content."""
_WITHIN = 0.04  # of the best score, for further references
_THUMBNAIL = (64, 36)
_ALIKE = 0.9  # correlation of luminance above which a reference is the frame whose number is its name
_KEPT = 16  # encoded references in memory
PREVIEW = 256
"""Longer side, in pixels, of the pictures whose content is compared."""


class ScoredShot(NamedTuple):
    """A shot with the score of each reference, a mean cosine; None if it was not measured."""

    shot: Shot
    scores: tuple[float | None, ...]


def thumbnail(picture: Picture) -> NDArray[np.float32]:
    """Return the luminance of a reduced frame, for recognising it."""
    grey = picture.visible().colour.convert("F" if picture.colour.mode == "F" else "L").resize(_THUMBNAIL)
    return np.asarray(grey, np.float32)


def numbered_references(references: Sequence[Path]) -> dict[int, Path]:
    """Return the references whose names are numbers, which may be frames of the film."""
    return {int(path.stem): path for path in references if path.stem.isascii() and path.stem.isdecimal()}


def show_same_frame(reference: NDArray[np.float32], frame: NDArray[np.float32]) -> bool:
    """Return whether two thumbnails show the same frame."""
    if min(float(reference.std()), float(frame.std())) < 1e-6:
        return False
    return float(np.corrcoef(reference.ravel(), frame.ravel())[0, 1]) > _ALIKE


class References:
    """The references of a film; each is encoded when a shot first needs it.

    Args:
        paths: the pictures.
        colorizer: the colorizer.

    Raises:
        UserError: one cannot be read or is grey.
    """

    def __init__(self, paths: Sequence[Path], colorizer: Colorizer) -> None:
        self.paths = list(paths)
        self._colorizer = colorizer
        self._encoded: OrderedDict[Path, Encoded] = OrderedDict()
        self._fit: Fit | None = None

    def choose(
        self,
        shots: Sequence[Shot],
        middle_frame: Callable[[int], Picture],
        frames: dict[int, Path],
    ) -> list[ScoredShot]:
        """Return the references of each shot: those of the user's file, or the ones with the most similar content.

        Args:
            shots: the shots; those with references keep them.
            middle_frame: returns the frame in the middle of the shot with a number.
            frames: references that are frames, by number; a shot uses those of its frames first.
        """
        choices = []
        for number, shot in enumerate(shots):
            own = [path for frame, path in sorted(frames.items()) if shot.start <= frame < shot.end]
            if shot.references:
                choices.append(ScoredShot(shot, (None,) * len(shot.references)))
            elif len(self.paths) == 1:
                choices.append(ScoredShot(shot._replace(references=tuple(self.paths)), (None,)))
            else:
                choices.append(self._choose_by_content(shot, middle_frame(number), own))
        return choices

    @torch.inference_mode()
    def _choose_by_content(self, shot: Shot, frame: Picture, own: Sequence[Path]) -> ScoredShot:
        if self._fit is None:
            pictures = [network_input(read_image(path, PREVIEW), PREVIEW, grey=False) for path in self.paths]
            self._fit = Fit(pictures, self._colorizer.device)
        scores = self._fit.scores(network_input(frame, PREVIEW, grey=True))
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        fitting = [self.paths[place] for place in order if scores[place] >= scores[order[0]] - _WITHIN]
        chosen = list(dict.fromkeys([*own, *fitting]))[: max(MOST, len(own))]
        by_path = dict(zip(self.paths, scores, strict=True))
        return ScoredShot(shot._replace(references=tuple(chosen)), tuple(by_path.get(path) for path in chosen))

    def use(self, references: Sequence[Path]) -> None:
        """Set these references in the colorizer."""
        self._colorizer.use([self._encode(path) for path in references])

    def _encode(self, path: Path) -> Encoded:
        if path not in self._encoded:
            self._encoded[path] = self._colorizer.encode(read_reference(path))
        self._encoded.move_to_end(path)
        while len(self._encoded) > _KEPT:
            self._encoded.popitem(last=False)
        return self._encoded[path]
