"""Several protocols in one evaluation: other views, faces, warped pairs, partial references, published pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pdnla.errors import UserError
from pdnla.evaluation.faces import Faces
from pdnla.evaluation.protocols import EvenlySpaced, GivenPairs, Joined, PartialPairs, Protocol, WarpedPairs


class Part(NamedTuple):
    """A protocol and how its figures are shown.

    Attributes:
        protocol: its cases.
        title: heading of its table.
        meaning: a sentence below the heading.
        overview: its measures in the table of the whole suite.
    """

    protocol: Protocol
    title: str
    meaning: str = ""
    overview: tuple[str, ...] = ()


class Suite:
    """The full evaluation of weights, in parts; a part whose folder is not given is left out.

    Args:
        views: folder with ``target/``, ``reference/`` and ``truth/``: the reference is another photograph of the same
            place; or several such folders.
        faces: folder ``Faces`` of Caltech-101.
        photographs: folder of photographs, for warped pairs and partial references.
        published: folder with ``target/``, ``reference/`` and ``published/``, the results of others; or several.
        size: longest side of views and published pairs in pixels; larger pictures are reduced to it.
        square: side in pixels of warped pairs and partial references.
        counts: largest number of cases of each part, evenly spaced; a part that is not named is used completely.

    Raises:
        UserError: nothing is given, a folder lacks a subfolder, or counts name an unknown part.
    """

    def __init__(
        self,
        views: str | Path | Sequence[str | Path] | None = None,
        faces: str | Path | None = None,
        photographs: str | Path | None = None,
        published: str | Path | Sequence[str | Path] | None = None,
        size: int = 384,
        square: int = 256,
        counts: Mapping[str, int | None] | None = None,
    ) -> None:
        counts = counts or {}
        self.parts: dict[str, Part] = {}
        if views is not None:
            self.parts["views"] = Part(
                EvenlySpaced(_pairs(views, "views", size), counts.get("views")),
                "Other views",
                "The reference is another photograph of the same place; the target's own colours are known.",
                ("ciede2000", "placement_error", "chroma_error_over_grey", "opposite_hue"),
            )
        if faces is not None:
            self.parts["faces"] = Part(
                Faces(faces, counts.get("faces")),
                "Faces",
                "The reference is another photograph of the same person, in another place.",
                ("ciede2000_skin", "placement_error_skin", "opposite_hue"),
            )
        if photographs is not None:
            self.parts["warped"] = Part(
                WarpedPairs(photographs, square, count=counts.get("warped")),
                "Warped pairs",
                "The reference is the photograph itself, mirrored and smoothly warped.",
                ("psnr", "ciede2000", "colourfulness_ratio"),
            )
            self.parts["partial"] = Part(
                PartialPairs(photographs, square, count=counts.get("partial")),
                "Partial references",
                "A third to two thirds of the warped photograph are replaced by another one; what is missing must "
                "become plausible or neutral.",
                ("ciede2000_shown", "ciede2000_missing", "chroma_error_over_grey_missing", "opposite_hue_missing"),
            )
        if published is not None:
            self.parts["published"] = Part(
                EvenlySpaced(_pairs(published, "published", size), counts.get("published")),
                "Published pairs",
                "Pairs that others have published, with their results. The truth is not known: compare the pictures.",
                ("his", "colourfulness_ratio"),
            )
        options = {"views": views, "faces": faces, "photographs": photographs, "published": published}
        self.left_out = [name for name, folder in options.items() if folder is None]
        if not self.parts:
            choices = ", ".join(f"protocol.{name}=FOLDER" for name in options)
            raise UserError(f"protocol=suite: there is nothing to evaluate; give some of {choices}")
        unknown = set(counts) - {"views", "faces", "warped", "partial", "published"}
        if unknown:
            raise UserError(f"protocol.counts.{min(unknown)}: is not a part of the suite")


def parts_of(protocol: Protocol | Suite, name: str) -> dict[str, Part]:
    """Return the parts of a suite, or the protocol as the only part."""
    return protocol.parts if isinstance(protocol, Suite) else {name: Part(protocol, name)}


def _pairs(folders: str | Path | Sequence[str | Path], option: str, size: int) -> Protocol:
    """Return the pairs of a folder with subfolders for targets, references, and truths or published results.

    Raises:
        UserError: a subfolder is missing.
    """
    roots = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    last = "truth" if option == "views" else "published"
    protocols: dict[str, Protocol] = {}
    for root in roots:
        for name in ("target", "reference", last):
            if not (root / name).is_dir():
                needed = f"it needs target/, reference/ and {last}/"
                raise UserError(f"protocol.{option}={root}: has no folder {name}/; {needed}")
        truths, published = (root / last, None) if option == "views" else (None, root / last)
        protocols[root.name] = GivenPairs(
            root / "target", root / "reference", truths=truths, published=published, size=size
        )
    if len(protocols) < len(roots):
        raise UserError(f"protocol.{option}: two folders have the same name; rename one of them")
    return Joined(protocols) if len(roots) > 1 else next(iter(protocols.values()))
