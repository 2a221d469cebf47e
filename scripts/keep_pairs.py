"""Make hard pairs of photographs and keep what correspondence gives for each, for ``pdnla-train data=kept_pairs``.

``python scripts/keep_pairs.py PAIRS --roots PHOTOGRAPHS... --count 20000``; interrupted, it goes on. Several processes
share the work with ``--part 0/2`` and ``--part 1/2``. About one photograph in 97, chosen by its name, is kept for pairs
to validate with, and the people that :mod:`pdnla.data.held_out` sets apart are left out.

With ``--folds 2``, pair i has only photographs of fold i % 2, so that a training can give it the colours that a prior
expects which ``train_prior.py --without 0/2`` or ``1/2`` trained on the other fold.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from pdnla.backbones import load_backbone
from pdnla.cli.command import run
from pdnla.data.hard_pairs import HardPairs
from pdnla.data.held_out import without_held_out
from pdnla.data.kept_pairs import keep, pair_file
from pdnla.data.splitting import fold_of, split
from pdnla.errors import UserError
from pdnla.fast import accelerate
from pdnla.files import remove_stale_temporaries
from pdnla.images import color
from pdnla.images.io import list_images
from pdnla.memory import keep_freed_memory
from pdnla.network.correspondence import Correspondence
from pdnla.network.guide import shown
from pdnla.weights import load_network

SIDES = {224: 0.2, 288: 0.35, 352: 0.3, 448: 0.15}
"""At how many pixels squared pairs are matched, and the share of each: 448, as in colouring, takes four times 224's."""


def main() -> None:
    """Make and keep the pairs.

    Raises:
        UserError: a folder or weights cannot be read, or the network has no correspondence.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pairs go")
    parser.add_argument("--roots", type=Path, nargs="+", required=True, help="folders of photographs")
    parser.add_argument(
        "--places", type=Path, nargs="*", default=[], help="of these, folders of folders, each of one place"
    )
    parser.add_argument("--count", type=int, default=20000, help="pairs to train on")
    parser.add_argument("--validation", type=int, default=48, help="pairs to validate with")
    parser.add_argument("--part", type=part_of, default="0/1", help="which part of the work this process does")
    parser.add_argument("--folds", type=int, default=1, help="parts of the photographs that no pair mixes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--weights", default="default", help="whose metric correspondence uses, if those weights have one"
    )
    options = parser.parse_args()
    if options.folds < 1:
        parser.error(f"--folds {options.folds}: must be at least 1")
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    part, parts = options.part
    for folder in (options.folder, options.folder / "validation"):
        if folder.is_dir():
            remove_stale_temporaries(folder)
    paths = [path for root in options.roots for path in without_held_out(list_images(root), root)]
    for folder in options.places:
        if all(path.parent.parent != folder for path in paths):
            raise UserError(f"--places {folder}: holds no folders of photographs of --roots; name it as it is there")
    training, validation = split(paths)
    own = getattr(load_network(options.weights), "correspondence", None)
    if not isinstance(own, Correspondence):
        raise UserError(f"--weights {options.weights}: has no correspondence; name pdnla_informed or semantic_warp")
    matched = {side: accelerate(Correspondence(load_backbone(), side, own.metric)) for side in SIDES}

    def carry(target: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        return matched[288](target, reference).chroma

    jobs = [
        (
            [HardPairs(validation, carry, seed=1, places=options.places)],
            options.folder / "validation",
            options.validation,
        ),
        (
            [
                HardPairs(fold_of(training, fold, options.folds), carry, seed=0, places=options.places)
                for fold in range(options.folds)
            ],
            options.folder,
            options.count,
        ),
    ]
    began, made = time.monotonic(), 0
    with torch.inference_mode():
        for folds, folder, count in jobs:
            for index in range(part, count, parts):
                path = pair_file(folder, index)
                if path.exists():
                    continue
                pair = folds[index % len(folds)][index]
                side = int(np.random.default_rng([2, index]).choice(list(SIDES), p=list(SIDES.values())))
                spots = matched[side].encode_reference((pair.reference * 2 - 1)[None])
                match = matched[side].match((color.grey(pair.truth) * 2 - 1)[None], spots)
                keep(path, pair, match.carried, match.opinion, shown(match.maps), side)
                made += 1
                if made % 100 == 0:
                    print(f"{index + 1} of {count}: {made / (time.monotonic() - began):.2f} pairs a second", flush=True)


def part_of(text: str) -> tuple[int, int]:
    """Return a part's number and the number of parts, of a text such as ``0/2``."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text} is no part; write 0/2 and 1/2 for two processes")
    return int(part), int(parts)


if __name__ == "__main__":
    run("keep_pairs.py", main)
