"""Measure how often the chosen reference has the class of the target.

    python scripts/retrieval_accuracy.py caltech101/ --workers 2
    python scripts/retrieval_accuracy.py caltech101/ --limit-per-class 20      # faster, with fewer candidates

FOLDER holds one folder for each class. Up to ten pictures of each class, drawn with the seed, are targets; all other
colour pictures are the candidates for references. There are three ways to choose:

* ``descriptors``: as ``pdnla-colorize --pick-from`` and ``pdnla-pairs`` do;
* ``luminance histogram``: the largest intersection (Swain and Ballard 1991) of global histograms of L*, 64 bins;
* ``chance``: any candidate with the same probability; its rate is computed, not drawn.

``first`` is how often the best candidate has the target's class, ``first five`` the fraction of the best five that has.
None of them uses colours. Descriptors are cached, as the commands do.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pdnla import UserError
from pdnla.data.retrieval import SIDE, build_index
from pdnla.devices import choose_device
from pdnla.images.color import rgb_to_lab
from pdnla.images.greys import open_colour
from pdnla.images.io import list_images, read_image

BINS = 64
BEST = 5


def main() -> int:
    options = parse()
    logging.basicConfig(format="%(message)s")
    try:
        measure(options)
    except UserError as error:
        print(f"retrieval_accuracy.py: {error}", file=sys.stderr)
        return 2
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="a folder a class")
    parser.add_argument("--targets-per-class", type=int, default=10)
    parser.add_argument("--limit-per-class", type=int, help="pictures of a class, drawn by the seed; all without it")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0, help="processes that read pictures")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(options.seed)
    paths = drawn(list_images(options.folder, natural=False), options.folder, options.limit_per_class, rng)
    device = choose_device(options.device)
    index = build_index(paths, options.backbone, device, options.workers, progress)
    keep = [number for number, readable in enumerate(index.readable.tolist()) if readable]
    paths, vectors = [paths[number] for number in keep], index.vectors[keep]
    names = classes(paths, options.folder)
    labels = torch.tensor([sorted(set(names)).index(name) for name in names])
    asked = set(drawn(paths, options.folder, options.targets_per_class, rng))
    targets = torch.tensor([number for number, path in enumerate(paths) if path in asked])
    offered = torch.tensor([open_colour(path, SIDE) is not None for path in paths])
    histograms = torch.stack([luminance_histogram(path) for path in paths])

    def cosine(target: int) -> Tensor:
        return vectors @ vectors[target]

    def intersection(target: int) -> Tensor:
        return torch.minimum(histograms, histograms[target]).sum(dim=1)

    print(
        f"{len(targets)} targets of {len(set(names))} classes, {int(offered.sum())} pictures in colour to choose from"
        f" ({len(paths) - int(offered.sum())} grey ones left out), seed {options.seed}\n"
    )
    print("| chosen by | first | first five |")
    print("| --- | --- | --- |")
    for name, scores in ((f"descriptors ({options.backbone})", cosine), ("luminance histogram", intersection)):
        first, five = rates(scores, targets, labels, offered)
        print(f"| {name} | {first:.1%} | {five:.1%} |")
    chance = rate_of_chance(targets, labels, offered)
    print(f"| chance | {chance:.1%} | {chance:.1%} |")


def progress(done: int, total: int) -> None:
    if done == total or done // 200 > (done - 16) // 200:
        print(f"described {done}/{total} pictures", file=sys.stderr, flush=True)


def classes(paths: Sequence[Path], folder: Path) -> list[str]:
    """Return the class of each picture: its folder directly below ``folder``."""
    return [path.relative_to(folder).parts[0] for path in paths]


def drawn(paths: Sequence[Path], folder: Path, count: int | None, rng: np.random.Generator) -> list[Path]:
    """Return the first ``count`` pictures of each class, or all if there are fewer."""
    names = np.array(classes(paths, folder))
    numbers = (rng.permutation(np.flatnonzero(names == name))[:count] for name in np.unique(names))
    return [paths[number] for number in sorted(np.concatenate(list(numbers)))]


def luminance_histogram(path: Path) -> Tensor:
    """Return the histogram of a picture's L* in 64 bins, ``(64,)``, with the sum 1."""
    rgb = torch.from_numpy(np.array(read_image(path, SIDE).rgb())).permute(2, 0, 1).unsqueeze(0).float() / 255
    lightness = rgb_to_lab(rgb)[0, 0]
    return torch.histc(lightness, BINS, 0, 100) / lightness.numel()


def rates(scores: Callable[[int], Tensor], targets: Tensor, labels: Tensor, offered: Tensor) -> tuple[float, float]:
    """Return how often the best of the offered pictures, and which part of the best five, have the target's class.

    Args:
        scores: returns how good a reference each picture is for a target, ``(N,)``.
        targets: numbers of pictures.
        labels: the class of each picture, ``(N,)``.
        offered: which of them may be chosen, ``(N,)``; a target is never its own reference.
    """
    first = five = 0.0
    for target in targets.tolist():
        cosines = scores(target).masked_fill(~offered, -torch.inf)
        cosines[target] = -torch.inf
        best = cosines.topk(min(BEST, int((cosines > -torch.inf).sum()))).indices
        right = (labels[best] == labels[target]).float()
        first += float(right[0])
        five += float(right.mean())
    return first / len(targets), five / len(targets)


def rate_of_chance(targets: Tensor, labels: Tensor, offered: Tensor) -> float:
    """Return the probability that a random offered picture has the target's class."""
    same = torch.bincount(labels[offered], minlength=int(labels.max()) + 1)[labels[targets]] - offered[targets].long()
    return float((same / (offered.sum() - offered[targets].long())).mean())


if __name__ == "__main__":
    sys.exit(main())
