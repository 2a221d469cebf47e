"""What is coloured: warped pairs, whole or partial, with a known truth, given pairs, and the frames of clips.

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

from pdnla.data.pairs_file import read_column, read_pairs
from pdnla.data.photographs import centre_crop, is_grey
from pdnla.errors import UserError
from pdnla.images.io import Picture, list_images, read_image
from pdnla.inference.matching import match

TRUTH = "truth"
"""What the target in its own colours is called among the results of a case."""


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
        self.paths = list_images(self.root, natural=False)
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
        return Case(str(path.relative_to(self.root)), grey(truth), Picture(self._warped(truth, number)), truth)

    def _warped(self, picture: Image.Image, number: int) -> Image.Image:
        """Return a picture mirrored and warped as that of photograph ``number`` is."""
        return warped(ImageOps.mirror(picture), self.warp, np.random.PCG64([self.seed, number]))


class PartialPairs(WarpedPairs):
    """Warped pairs whose reference lacks a third to two thirds of what the target shows.

    A straight cut at a random angle divides the photograph; what lies on one side of it is replaced by the same part
    of the next colour photograph in the folder before both are mirrored and warped. The cases' regions are ``missing``
    and ``shown``, known to the pixel.

    Args:
        root: folder of photographs, searched to the bottom.
        size: side in pixels to which the largest centred square of each is brought.
        warp: the longest displacement of each reference, in pixels.
        seed: what all displacements and cuts follow from.
        count: so many photographs, evenly spread over the folder; None for all.

    Raises:
        UserError: the folder holds no photographs, or a single one.
    """

    def __init__(
        self, root: str | Path, size: int = 256, warp: float = 24.0, seed: int = 0, count: int | None = None
    ) -> None:
        super().__init__(root, size, warp, seed, count)
        if len(self.paths) < 2:
            raise UserError(f"{self.root}: holds one photograph, and partial references need another; add some")

    def __getitem__(self, index: int) -> Case:
        """Make the pair of a photograph.

        Raises:
            UserError: it cannot be read, is grey, or is the only one in colour.
        """
        case = super().__getitem__(index)
        assert case.truth is not None
        number = self.numbers[index]
        missing = cut(self.size, np.random.PCG64([self.seed, number, 1]))
        mixed = np.where(missing[..., None], np.asarray(self._other(number)), np.asarray(case.truth))
        reference = self._warped(Image.fromarray(mixed), number)
        regions = {"missing": missing, "shown": ~missing}
        return dataclasses.replace(case, reference=Picture(reference), regions=regions)

    def _other(self, number: int) -> Image.Image:
        """Return the square of the next photograph that is in colour."""
        for step in range(1, len(self.paths)):
            path = self.paths[(number + step) % len(self.paths)]
            try:
                picture = read_image(path)
            except UserError:
                continue
            if picture.colour.mode == "RGB" and not is_grey(picture.colour):
                return centre_crop(picture.colour, self.size)
        raise UserError(f"{self.root}: holds one photograph in colour, and partial references need another; add some")


class GivenPairs:
    """Targets with references, perhaps with their truths, and results that others published of them.

    Args:
        targets: folder of targets, or one picture; with ``references``.
        references: folder of references, matched by name as ``pdnla-colorize`` does, or one picture for all.
        pairs_file: instead of both: lines of ``target,reference``; columns headed ``truth`` and ``published`` name the
            target in its own colours and a result.
        truths: folder of the targets in their own colours, matched by name.
        published: folder of results, matched by name; or several, by the name each is called by.
        size: pictures whose longer side has more pixels are reduced to as many; None leaves them.
        count: so many pairs, evenly spread; None for all.

    Raises:
        UserError: a folder or file is missing, or they do not fit together.
    """

    def __init__(
        self,
        targets: str | Path | None = None,
        references: str | Path | None = None,
        pairs_file: str | Path | None = None,
        truths: str | Path | None = None,
        published: str | Path | Mapping[str, str | Path] | None = None,
        size: int | None = None,
        count: int | None = None,
    ) -> None:
        if pairs_file is not None and (targets is not None or references is not None):
            raise UserError("protocol.pairs_file: names targets and references itself; leave out the folders of them")
        if size is not None and size < 16:
            raise UserError(f"protocol.size={size}: is too small; use at least 16, or null for the pictures' own")
        results: list[dict[str, Path]]
        if pairs_file is not None:
            file = Path(pairs_file)
            pairs, root = read_pairs(file), file.parent
            results = [{} if path is None else {"published": path} for path in read_column(file, "published")]
            own = read_column(file, TRUTH)
        elif targets is not None and references is not None:
            root = Path(targets)
            pairs = _matched(root, Path(references))
            results = [{} for _ in pairs]
            own = [None] * len(pairs)
        else:
            choices = "protocol.targets=... and protocol.references=..., or protocol.pairs_file=..."
            raise UserError(f"protocol=pairs: there is nothing to colour; give {choices}")
        if truths is not None:
            own = _named_alike(pairs, root, Path(truths), "truths")
        folders = {"published": published} if isinstance(published, str | Path) else published or {}
        for name, folder in folders.items():
            for given, path in zip(results, _named_alike(pairs, root, Path(folder), "published"), strict=True):
                if path is not None:
                    given[name] = path
        chosen = spread(len(pairs), count)
        self.size = size
        self.pairs = [pairs[i] for i in chosen]
        self.results = [results[i] for i in chosen]
        self.truths = [own[i] for i in chosen]
        self._names = _names([target for target, _ in self.pairs])
        self._reference: tuple[Path, Picture] | None = None

    def __len__(self) -> int:
        """Return how many pairs there are."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Case:
        """Read a pair, its truth and what was published of it.

        Raises:
            UserError: a picture cannot be read, or the truth has no colours.
        """
        path, guide = self.pairs[index]
        target = reduced(read_image(path), self.size)
        if self._reference is None or self._reference[0] != guide:
            self._reference = guide, reduced(read_image(guide), self.size)
        given = {name: read_image(result).resized(target.size).rgb() for name, result in self.results[index].items()}
        own = self.truths[index]
        truth = None
        if own is not None:
            picture = read_image(own)
            if picture.colour.mode != "RGB":  # one that is nearly grey in RGB may be a truth
                raise UserError(f"{own}: is grey and should be the truth; leave the pair out")
            truth = picture.resized(target.size).rgb()
        return Case(self._names[index], target, self._reference[1], truth, given)


class Joined:
    """Several protocols one after the other, whose cases are called by their protocols' names too.

    Args:
        protocols: by name.
    """

    def __init__(self, protocols: Mapping[str, Protocol]) -> None:
        self.protocols = protocols
        self._places = [(name, index) for name, protocol in protocols.items() for index in range(len(protocol))]

    def __len__(self) -> int:
        """Return how many cases there are in all."""
        return len(self._places)

    def __getitem__(self, index: int) -> Case:
        """Make a case.

        Raises:
            UserError: a picture of it cannot be used.
        """
        name, own = self._places[index]
        case = self.protocols[name][own]
        return dataclasses.replace(case, name=f"{name}/{case.name}")


class Sample:
    """Some of a protocol's cases, spread evenly.

    Args:
        protocol: all of them.
        count: so many; None for all.
    """

    def __init__(self, protocol: Protocol, count: int | None) -> None:
        self.protocol = protocol
        self.numbers = spread(len(protocol), count)

    def __len__(self) -> int:
        """Return how many cases there are."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> Case:
        """Make a case.

        Raises:
            UserError: a picture of it cannot be used.
        """
        return self.protocol[self.numbers[index]]


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


def cut(side: int, chance: np.random.BitGenerator) -> NDArray[np.bool_]:
    """Return what lies on one side of a random straight line through a square, ``(side, side)``.

    Its angle is uniform, and its share of the square uniform in [1/3, 2/3].
    """
    angle, share = np.random.Generator(chance).uniform((0, 1 / 3), (2 * np.pi, 2 / 3))
    rows, columns = np.indices((side, side))
    distance = rows * np.sin(angle) + columns * np.cos(angle)
    return distance <= np.quantile(distance, share)


def reduced(picture: Picture, size: int | None) -> Picture:
    """Return a picture whose longer side has at most ``size`` pixels."""
    longer = max(picture.size)
    if size is None or longer <= size:
        return picture
    width, height = (max(1, round(side * size / longer)) for side in picture.size)
    return picture.resized((width, height))


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
    for path, guide in zip(shown, match(targets, shown, references, list_images(references)).references, strict=True):
        if isinstance(guide, str):
            raise UserError(f"{path}: {guide}")
        pairs.append((path, guide))
    return pairs


def _named_alike(pairs: Sequence[tuple[Path, Path]], root: Path, folder: Path, option: str) -> list[Path | None]:
    """Return the picture in a folder that is named like each target, None for those without one.

    Raises:
        UserError: the folder holds none for any.
    """
    targets = [target for target, _ in pairs]
    try:
        matched = match(root, targets, folder, list_images(folder)).references
    except UserError as error:
        raise UserError(f"protocol.{option}={folder}: {error}") from error
    paths = [path if isinstance(path, Path) else None for path in matched]
    if not any(paths):
        raise UserError(f"protocol.{option}={folder}: holds no picture named like a target; name them alike")
    return paths


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
