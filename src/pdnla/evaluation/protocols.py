"""What is coloured: warped pairs with a known truth, given pairs without one, and the frames of clips.

A protocol is a sequence of cases that are made when asked for, so that one of any length needs the memory of one case.
It can be sent to another process.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.ndimage import map_coordinates

from pdnla.data.pairing import read_pairs, read_results
from pdnla.data.photographs import centre_crop, is_grey
from pdnla.errors import UserError
from pdnla.images.io import Picture, list_images, read_image
from pdnla.inference.matching import pair


@dataclass(frozen=True, eq=False)
class Case:
    """One target to colour.

    Attributes:
        name: what it is called in tables.
        target: what is coloured; a colour picture counts as its luminance.
        reference: what the colours are taken from; the same object for successive cases that share it.
        truth: the target in its own colours, mode RGB, or None where that is not known.
        given: results that others published, mode RGB of the target's size, by the name of their method.
        follows: the case before this one is the frame before it.
        regions: parts of the target that measures are taken of, by name: bool, ``(H, W)``.
    """

    name: str
    target: Picture
    reference: Picture
    truth: Image.Image | None = None
    given: Mapping[str, Image.Image] = field(default_factory=dict)
    follows: bool = False
    regions: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


class Protocol(Interface):
    """A sequence of cases."""

    def __len__(self) -> int:
        """Return how many cases there are."""
        ...

    def __getitem__(self, index: int) -> Case:
        """Make a case.

        Raises:
            UserError: a picture of it cannot be used; the case is left out.
        """
        ...


class WarpedPairs:
    """Photographs as their own truth: the reference is the photograph, mirrored and smoothly warped.

    The warp of photograph ``i`` (of all in the folder, sorted by path) follows from ``seed`` and ``i`` alone, by
    numpy's PCG64, in float64 without linear algebra libraries: the same pairs on every machine.

    Args:
        root: folder of photographs, searched to the bottom.
        size: side in pixels to which the largest centred square of each is brought.
        warp: the longest displacement of each reference, in pixels.
        seed: what all displacements follow from.
        count: so many photographs, evenly spread over the folder; None for all.

    Raises:
        UserError: the folder holds no photographs.
    """

    def __init__(
        self, root: str | Path, size: int = 256, warp: float = 24.0, seed: int = 0, count: int | None = None
    ) -> None:
        if size < 16:
            raise UserError(f"protocol.size={size}: is too small; use at least 16")
        if warp < 0:
            raise UserError(f"protocol.warp={warp}: must not be negative")
        self.root, self.size, self.warp, self.seed = Path(root), size, warp, seed
        self.paths = list_images(self.root)
        self.numbers = spread(len(self.paths), count)

    def __len__(self) -> int:
        """Return how many photographs there are."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> Case:
        """Make the pair of a photograph.

        Raises:
            UserError: it cannot be read, or is grey and so no truth.
        """
        number = self.numbers[index]
        path = self.paths[number]
        picture = read_image(path)
        if picture.colour.mode != "RGB" or is_grey(picture.colour):
            raise UserError(f"{path}: is grey, its colours are not known")
        truth = centre_crop(picture.colour, self.size)
        reference = warped(ImageOps.mirror(truth), self.warp, np.random.PCG64([self.seed, number]))
        return Case(str(path.relative_to(self.root)), grey(truth), Picture(reference), truth)


class GivenPairs:
    """Targets with references, the truth unknown, and results that others published of them.

    Args:
        targets: folder of targets, or one picture; with ``references``.
        references: folder of references, matched by name as ``pdnla-colorize`` does, or one picture for all.
        pairs_file: instead of both: lines of ``target,reference``; a column headed ``published`` names a result.
        published: folder of results, matched by name; or several, by the name each is called by.
        count: so many pairs, evenly spread; None for all.

    Raises:
        UserError: a folder or file is missing, or they do not fit together.
    """

    def __init__(
        self,
        targets: str | Path | None = None,
        references: str | Path | None = None,
        pairs_file: str | Path | None = None,
        published: str | Path | Mapping[str, str | Path] | None = None,
        count: int | None = None,
    ) -> None:
        if pairs_file is not None and (targets is not None or references is not None):
            raise UserError("protocol.pairs_file: names targets and references itself; leave out the folders of them")
        results: list[dict[str, Path]]
        if pairs_file is not None:
            pairs = read_pairs(Path(pairs_file))
            results = [{} if path is None else {"published": path} for path in read_results(Path(pairs_file))]
            root = Path(pairs_file).parent
        elif targets is not None and references is not None:
            root = Path(targets)
            pairs = _matched(root, Path(references))
            results = [{} for _ in pairs]
        else:
            choices = "protocol.targets=... and protocol.references=..., or protocol.pairs_file=..."
            raise UserError(f"protocol=pairs: there is nothing to colour; give {choices}")
        folders = {"published": published} if isinstance(published, str | Path) else published or {}
        for name, folder in folders.items():
            for found, path in zip(results, _published(pairs, root, Path(folder)), strict=True):
                if path is not None:
                    found[name] = path
        chosen = spread(len(pairs), count)
        self.pairs = [pairs[i] for i in chosen]
        self.results = [results[i] for i in chosen]
        self._names = _names([target for target, _ in self.pairs])
        self._reference: tuple[Path, Picture] | None = None

    def __len__(self) -> int:
        """Return how many pairs there are."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Case:
        """Read a pair and what was published of it.

        Raises:
            UserError: a picture cannot be read.
        """
        path, guide = self.pairs[index]
        target = read_image(path)
        if self._reference is None or self._reference[0] != guide:
            self._reference = guide, read_image(guide)
        given = {name: read_image(result).resized(target.size).rgb() for name, result in self.results[index].items()}
        return Case(self._names[index], target, self._reference[1], given=given)


class Clips:
    """The frames of clips, each in the colours of one picture: the clip's first frame, or another.

    Frames in colour are their own truth. A first frame that is the reference is not coloured.

    Args:
        frames: folder of a clip's frames, which follow each other as their sorted names do; or several.
        reference: picture to take the colours from; None for each clip's first frame, which is in colour then.
        count: so many frames of each clip, its first ones; None for all.

    Raises:
        UserError: a folder holds too few frames, or the reference has no colours.
    """

    def __init__(
        self, frames: str | Path | Sequence[str | Path], reference: str | Path | None = None, count: int | None = None
    ) -> None:
        folders = [Path(frames)] if isinstance(frames, str | Path) else [Path(folder) for folder in frames]
        self.frames: list[tuple[Path, str, Path, bool]] = []
        for folder, clip in zip(folders, _names(folders), strict=True):
            paths = list_images(folder)[:count]
            guide = paths[0] if reference is None else Path(reference)
            colours = read_image(guide)
            if colours.colour.mode != "RGB" or is_grey(colours.colour):
                raise UserError(f"{guide}: is grey and should give the colours; name a picture with protocol.reference")
            shown = paths[1:] if reference is None else paths
            if len(shown) < 2:
                raise UserError(f"{folder}: holds {len(paths)} frame(s), too few for a clip; choose another folder")
            for number, path in enumerate(shown):
                name = str(path.relative_to(folder))
                self.frames.append((path, name if len(folders) == 1 else f"{clip}/{name}", guide, number > 0))
        self._reference: tuple[Path, Picture] | None = None

    def __len__(self) -> int:
        """Return how many frames there are to colour."""
        return len(self.frames)

    def __getitem__(self, index: int) -> Case:
        """Read a frame.

        Raises:
            UserError: it cannot be read.
        """
        path, name, guide, follows = self.frames[index]
        picture = read_image(path)
        if self._reference is None or self._reference[0] != guide:
            self._reference = guide, read_image(guide)
        case = Case(name, Picture(picture.colour), self._reference[1], follows=follows)
        if picture.colour.mode != "RGB" or is_grey(picture.colour):
            return case
        return dataclasses.replace(case, target=grey(picture.colour), truth=picture.colour)


def grey(rgb: Image.Image) -> Picture:
    """Return the grey picture with the L* of an RGB one, rounded to 8 bits as files are."""
    import torch

    from pdnla.images import color

    values = torch.from_numpy(np.asarray(rgb, dtype=np.float32) / 255).movedim(-1, 0)
    luminance = color.grey(values)[0].mul(255).round().to(torch.uint8)
    return Picture(Image.fromarray(luminance.numpy()))


NODES = 6
"""Of the grid of random displacements along a side: about three bends over the picture."""


def warped(image: Image.Image, longest: float, chance: np.random.BitGenerator) -> Image.Image:
    """Warp an RGB picture smoothly; what lies outside it is its reflection.

    Displacements are drawn on a grid of 6×6 nodes, uniformly in [-1, 1]², interpolated by uniform cubic B-splines and
    scaled so that the longest of them has ``longest`` pixels.
    """
    nodes = np.random.Generator(chance).uniform(-1, 1, (2, NODES, NODES))
    rows, columns = (_splines(side) for side in (image.height, image.width))
    displacement = np.zeros((2, image.height, image.width))
    for i in range(NODES):  # in plain sums: a linear algebra library's order of summation is its own
        for j in range(NODES):
            displacement += nodes[:, i, j, None, None] * rows[i][:, None] * columns[j]
    displacement *= longest / np.sqrt((displacement**2).sum(axis=0).max())
    positions = np.indices((image.height, image.width)) + displacement
    channels = [
        map_coordinates(channel, positions, order=1, mode="reflect")
        for channel in np.moveaxis(np.asarray(image, dtype=np.float64), -1, 0)
    ]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def _splines(side: int) -> NDArray[np.float64]:
    """Return the weight of each node at each pixel of a side, ``(NODES, side)``: cubic B-splines that sum to 1."""
    position = (np.arange(side) + 0.5) / side * (NODES - 3) + 1  # the outer nodes lie outside the picture
    distance = np.abs(position - np.arange(NODES)[:, None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far)


def spread(length: int, count: int | None) -> list[int]:
    """Return ``count`` numbers spread evenly over ``range(length)``, all of them if it is None or more."""
    if count is None or count >= length:
        return list(range(length))
    if count < 1:
        raise UserError(f"protocol.count={count}: must be at least 1, or null for all")
    return [i * length // count for i in range(count)]


def _matched(targets: Path, references: Path) -> list[tuple[Path, Path]]:
    """Pair the pictures of two folders by name; either may be one picture.

    Raises:
        UserError: one is missing, or a target has no reference.
    """
    for path, option in ((targets, "targets"), (references, "references")):
        if not path.exists():
            raise UserError(f"protocol.{option}={path}: there is no such file or folder; check the path")
    shown = list_images(targets) if targets.is_dir() else [targets]
    if not references.is_dir():
        return [(path, references) for path in shown]
    pairs = []
    for path, guide in zip(shown, pair(targets, shown, references, list_images(references)).references, strict=True):
        if isinstance(guide, str):
            raise UserError(f"{path}: {guide}")
        pairs.append((path, guide))
    return pairs


def _published(pairs: Sequence[tuple[Path, Path]], root: Path, folder: Path) -> list[Path | None]:
    """Return the published result of each target, None for those without one.

    Raises:
        UserError: the folder holds no result of any.
    """
    targets = [target for target, _ in pairs]
    try:
        found = pair(root, targets, folder, list_images(folder)).references
    except UserError as error:
        raise UserError(f"protocol.published={folder}: {error}") from error
    results = [path if isinstance(path, Path) else None for path in found]
    if not any(results):
        raise UserError(f"protocol.published={folder}: holds no result named like a target; name them alike")
    return results


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each path: as few of its last parts as tell them all apart; the same path is numbered."""
    unique = set(paths)
    depth = 1
    while len({path.parts[-depth:] for path in unique}) < len(unique):
        depth += 1
    times, seen, names = Counter(paths), Counter[Path](), []
    for path in paths:
        seen[path] += 1
        names.append("/".join(path.parts[-depth:]) + (f" #{seen[path]}" if times[path] > 1 else ""))
    return names
