"""Protocols: warped pairs, whole or partial, with a known truth; given pairs; and the frames of clips.

A protocol is a sequence of cases. A case is created on access, so a protocol of any length needs the memory of one
case. A protocol can be pickled.
"""

import dataclasses
from bisect import bisect_right
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
from pdnla.data.photographs import centre_crop
from pdnla.errors import UserError
from pdnla.images.greys import is_grey
from pdnla.images.io import Picture, list_images, read_image
from pdnla.inference.matching import match

TRUTH = "truth"
"""Name of the truth among the results of a case."""


@dataclass(frozen=True, eq=False)
class Case:
    """One target to colour.

    Attributes:
        name: its name in tables.
        target: the picture to colour; of a colour picture, its luminance.
        reference: the picture that gives the colours; the same object for successive cases that share it.
        truth: the target in its true colours, mode RGB, or None if they are not known.
        given: published results of other methods by name, mode RGB at the target's size.
        follows: the previous case is the previous frame of the same clip.
        regions: named parts of the target that are measured: bool, ``(H, W)``.
        later: files of this frame and those after it in its clip; empty for a picture of its own.
        distance: how many frames after the reference it comes, if that is a frame of its clip.
    """

    name: str
    target: Picture
    reference: Picture
    truth: Image.Image | None = None
    given: Mapping[str, Image.Image] = field(default_factory=dict)
    follows: bool = False
    regions: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    later: Sequence[Path] = ()
    distance: int | None = None


class Protocol(Interface):
    """A sequence of cases."""

    def __len__(self) -> int:
        """Return the number of cases."""
        ...

    def __getitem__(self, index: int) -> Case:
        """Create a case.

        Raises:
            UserError: a picture of it cannot be used; the case is left out.
        """
        ...


class WarpedPairs:
    """Photographs with themselves as truth: the reference is the photograph, mirrored and smoothly warped.

    The warp of photograph ``i`` (of all in the folder, sorted by path) depends only on ``seed`` and ``i``. It uses
    numpy's PCG64 and float64 without linear algebra libraries, so the pairs are the same on every machine.

    Args:
        root: folder of photographs, with its subfolders.
        size: side in pixels to which the largest centred square of each is resized.
        warp: the longest displacement of each reference, in pixels.
        seed: seed of all displacements.
        count: number of photographs, evenly spaced over the folder; None for all.

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
        """Return the number of photographs."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> Case:
        """Create the pair of a photograph.

        Raises:
            UserError: it cannot be read, or is grey and thus has no truth.
        """
        number = self.numbers[index]
        path = self.paths[number]
        picture = read_image(path)
        if picture.colour.mode != "RGB" or is_grey(picture.colour):
            raise UserError(f"{path}: is grey, its colours are not known")
        truth = centre_crop(picture.colour, self.size)
        return Case(str(path.relative_to(self.root)), luminance_of(truth), Picture(self._warped(truth, number)), truth)

    def _warped(self, picture: Image.Image, number: int) -> Image.Image:
        """Mirror and warp a picture with the displacements of photograph ``number``."""
        return warped(ImageOps.mirror(picture), self.warp, np.random.PCG64([self.seed, number]))


class PartialPairs(WarpedPairs):
    """Warped pairs whose reference lacks a third to two thirds of what the target shows.

    A straight cut at a random angle divides the photograph. One side is replaced by the same part of the next colour
    photograph in the folder; then the picture is mirrored and warped. The regions of a case are ``missing`` and
    ``shown``, exact to the pixel.

    Args:
        root: folder of photographs, with its subfolders.
        size: side in pixels to which the largest centred square of each is resized.
        warp: the longest displacement of each reference, in pixels.
        seed: seed of all displacements and cuts.
        count: number of photographs, evenly spaced over the folder; None for all.

    Raises:
        UserError: the folder holds no photographs, or only one.
    """

    def __init__(
        self, root: str | Path, size: int = 256, warp: float = 24.0, seed: int = 0, count: int | None = None
    ) -> None:
        super().__init__(root, size, warp, seed, count)
        if len(self.paths) < 2:
            raise UserError(f"{self.root}: holds one photograph, and partial references need another; add some")

    def __getitem__(self, index: int) -> Case:
        """Create the pair of a photograph.

        Raises:
            UserError: it cannot be read, is grey, or is the only colour photograph.
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
        """Return the centred square of the next colour photograph."""
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
    """Given targets and references, with optional truths and published results of other methods.

    Args:
        targets: folder of targets, or one picture; with ``references``.
        references: folder of references, matched by name as ``pdnla-colorize`` does, or one picture for all.
        pairs_file: instead of both, a pairs file with lines ``target,reference``; optional columns ``truth`` and
            ``published`` name the target in its true colours and a published result.
        truths: folder of the targets in their true colours, matched by name.
        published: folder of results, matched by name; or several folders by the names of the methods.
        size: longest side in pixels; larger pictures are reduced to it. None for no limit.
        count: number of pairs, evenly spaced; None for all.

    Raises:
        UserError: a folder or file is missing, or they do not match.
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
        if size is not None and size < 16:
            raise UserError(f"protocol.size={size}: is too small; use at least 16, or null for the pictures' own")
        pairs, root = _pairs_of(targets, references, pairs_file)
        own: list[Path | None] = [None] * len(pairs)
        results: list[dict[str, Path]] = [{} for _ in pairs]
        if pairs_file is not None:
            own = read_column(Path(pairs_file), TRUTH)
            _add_results(results, "published", read_column(Path(pairs_file), "published"))
        if truths is not None:
            own = _named_alike(pairs, root, Path(truths), "truths")
        folders = {"published": published} if isinstance(published, str | Path) else published or {}
        for name, folder in folders.items():
            _add_results(results, name, _named_alike(pairs, root, Path(folder), "published"))
        chosen = spread(len(pairs), count)
        self.size = size
        self.pairs = [pairs[i] for i in chosen]
        self.results = [results[i] for i in chosen]
        self.truths = [own[i] for i in chosen]
        self._names = _names([target for target, _ in self.pairs])
        self._reference: tuple[Path, Picture] | None = None

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Case:
        """Read a pair, its truth and its published results.

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
    """Several protocols one after the other; the name of a case includes that of its protocol.

    Args:
        protocols: by name.
    """

    def __init__(self, protocols: Mapping[str, Protocol]) -> None:
        self.protocols = protocols
        self._places = [(name, index) for name, protocol in protocols.items() for index in range(len(protocol))]

    def __len__(self) -> int:
        """Return the total number of cases."""
        return len(self._places)

    def __getitem__(self, index: int) -> Case:
        """Create a case.

        Raises:
            UserError: a picture of it cannot be used.
        """
        name, own = self._places[index]
        case = self.protocols[name][own]
        return dataclasses.replace(case, name=f"{name}/{case.name}")


class EvenlySpaced:
    """Evenly spaced cases of a protocol.

    Args:
        protocol: the protocol.
        count: number of cases; None for all.
    """

    def __init__(self, protocol: Protocol, count: int | None) -> None:
        self.protocol = protocol
        self.numbers = spread(len(protocol), count)

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> Case:
        """Create a case.

        Raises:
            UserError: a picture of it cannot be used.
        """
        return self.protocol[self.numbers[index]]


class Clips:
    """The frames of clips, in the colours of each clip's first frame or of another picture.

    A frame in colour is its own truth. A first frame that is the reference is not coloured.

    Args:
        frames: folder of a clip's frames, in the order of their sorted names; or several folders.
        reference: picture that gives the colours; None for each clip's first frame, which must be in colour.
        count: number of first frames of each clip; None for all.

    Attributes:
        starts: numbers of the clips' first cases.

    Raises:
        UserError: a folder holds too few frames, the reference is grey, or ``count`` is below 1.
    """

    def __init__(
        self, frames: str | Path | Sequence[str | Path], reference: str | Path | None = None, count: int | None = None
    ) -> None:
        _check_count(count)
        folders = [Path(frames)] if isinstance(frames, str | Path) else [Path(folder) for folder in frames]
        self.starts: list[int] = []
        self._clips: list[tuple[str, Path, list[Path], bool]] = []
        length = 0
        for folder, clip in zip(folders, _names(folders), strict=True):
            paths = list_images(folder)[:count]
            guide = paths[0] if reference is None else Path(reference)
            colours = read_image(guide)
            if colours.colour.mode != "RGB" or is_grey(colours.colour):
                raise UserError(f"{guide}: is grey and should give the colours; name a picture with protocol.reference")
            shown = paths[1:] if reference is None else paths
            if len(shown) < 2:
                raise UserError(f"{folder}: holds {len(paths)} frame(s), too few for a clip; choose another folder")
            self.starts.append(length)
            self._clips.append(("" if len(folders) == 1 else f"{clip}/", guide, shown, reference is None))
            length += len(shown)
        self._folders = folders
        self._length = length
        self._reference: tuple[Path, Picture] | None = None

    def __len__(self) -> int:
        """Return the number of frames to colour."""
        return self._length

    def __getitem__(self, index: int) -> Case:
        """Read a frame.

        Raises:
            UserError: it cannot be read.
        """
        if not 0 <= index < self._length:
            raise IndexError(index)
        clip = bisect_right(self.starts, index) - 1
        (prefix, guide, paths, inside), number = self._clips[clip], index - self.starts[clip]
        path = paths[number]
        picture = read_image(path)
        if self._reference is None or self._reference[0] != guide:
            self._reference = guide, read_image(guide)
        case = Case(
            f"{prefix}{path.relative_to(self._folders[clip])}",
            Picture(picture.colour),
            self._reference[1],
            follows=number > 0,
            later=paths[number:],
            distance=number + 1 if inside else None,
        )
        if picture.colour.mode != "RGB" or is_grey(picture.colour):
            return case
        return dataclasses.replace(case, target=luminance_of(picture.colour), truth=picture.colour)


def luminance_of(rgb: Image.Image) -> Picture:
    """Return the grey picture with the L* of an RGB one, rounded to 8 bits as files are."""
    import torch

    from pdnla.images import color

    values = torch.from_numpy(np.asarray(rgb, dtype=np.float32) / 255).movedim(-1, 0)
    luminance = color.grey(values)[0].mul(255).round().to(torch.uint8)
    return Picture(Image.fromarray(luminance.numpy()))


NODES = 6
"""Nodes of the grid of random displacements along a side, which give about three bends over the picture."""


def warped(image: Image.Image, longest: float, chance: np.random.BitGenerator) -> Image.Image:
    """Warp an RGB picture smoothly, with reflection at its border.

    Displacements are drawn on a grid of 6×6 nodes, uniformly in [-1, 1]², interpolated by uniform cubic B-splines and
    scaled so that the longest one has ``longest`` pixels.
    """
    nodes = np.random.Generator(chance).uniform(-1, 1, (2, NODES, NODES))
    rows, columns = (_splines(side) for side in (image.height, image.width))
    displacement = np.zeros((2, image.height, image.width))
    for i in range(NODES):  # plain sums, because the order of summation in linear algebra libraries varies
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
    """Return the weight of each node at each pixel of a side, ``(NODES, side)``: cubic B-splines, which sum to 1."""
    position = (np.arange(side) + 0.5) / side * (NODES - 3) + 1  # the outer nodes lie outside the picture
    distance = np.abs(position - np.arange(NODES)[:, None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far)


def cut(side: int, chance: np.random.BitGenerator) -> NDArray[np.bool_]:
    """Return the mask of one side of a random straight line through a square, ``(side, side)``.

    The angle is uniform, and the share of the square is uniform in [1/3, 2/3].
    """
    angle, share = np.random.Generator(chance).uniform((0, 1 / 3), (2 * np.pi, 2 / 3))
    rows, columns = np.indices((side, side))
    distance = rows * np.sin(angle) + columns * np.cos(angle)
    return distance <= np.quantile(distance, share)


def reduced(picture: Picture, size: int | None) -> Picture:
    """Reduce a picture so that its longer side has at most ``size`` pixels."""
    longer = max(picture.size)
    if size is None or longer <= size:
        return picture
    width, height = (max(1, round(side * size / longer)) for side in picture.size)
    return picture.resized((width, height))


def spread(length: int, count: int | None) -> list[int]:
    """Return ``count`` evenly spaced numbers of ``range(length)``; all if it is None or larger."""
    _check_count(count)
    if count is None or count >= length:
        return list(range(length))
    return [i * length // count for i in range(count)]


def _check_count(count: int | None) -> None:
    if count is not None and count < 1:
        raise UserError(f"protocol.count={count}: must be at least 1, or null for all")


def _pairs_of(
    targets: str | Path | None, references: str | Path | None, pairs_file: str | Path | None
) -> tuple[list[tuple[Path, Path]], Path]:
    """Return the pairs of two folders or of a pairs file, and the folder of the targets' names.

    Raises:
        UserError: both or neither are given, or they do not match.
    """
    if pairs_file is not None:
        if targets is not None or references is not None:
            raise UserError("protocol.pairs_file: names targets and references itself; leave out the folders of them")
        return read_pairs(Path(pairs_file)), Path(pairs_file).parent
    if targets is None or references is None:
        choices = "protocol.targets=... and protocol.references=..., or protocol.pairs_file=..."
        raise UserError(f"protocol=pairs: there is nothing to colour; give {choices}")
    return _matched(Path(targets), Path(references)), Path(targets)


def _add_results(results: Sequence[dict[str, Path]], method: str, paths: Sequence[Path | None]) -> None:
    """Add a method's results to those of each pair, where it has one."""
    for pair, path in zip(results, paths, strict=True):
        if path is not None:
            pair[method] = path


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
    """Return the picture in a folder with the name of each target; None for a target without one.

    Raises:
        UserError: the folder holds no picture with the name of a target.
    """
    targets = [target for target, _ in pairs]
    try:
        matched = match(root, targets, folder, list_images(folder)).references
    except UserError as error:
        raise UserError(f"protocol.{option}={folder}: {error}") from error
    paths = [path if isinstance(path, Path) else None for path in matched]
    if not any(paths):
        raise UserError(
            f"protocol.{option}={folder}: holds no picture with the name of a target; give them the same names"
        )
    return paths


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a short unique name for each path: as few of its last parts as possible; equal paths are numbered."""
    unique = set(paths)
    depth = 1
    while len({path.parts[-depth:] for path in unique}) < len(unique):
        depth += 1
    counts, occurrences, names = Counter(paths), Counter[Path](), []
    for path in paths:
        occurrences[path] += 1
        names.append("/".join(path.parts[-depth:]) + (f" #{occurrences[path]}" if counts[path] > 1 else ""))
    return names
