"""Train the colour prior of ``pdnla_informed``: which colours the content of a place lets expect, and their weight.

``python scripts/train_prior.py informed.safetensors --roots PHOTOGRAPHS... --kept PLACES --pairs PAIRS`` writes
``pdnla_informed`` with a trained :class:`~pdnla.network.prior.ColorPrior`. The frozen network's features of some places
of each photograph, whole and cut, are computed once and kept in the folder PLACES, 0.1 MB for each picture. Several
processes share that with ``--part 0/2`` and ``--part 1/2``, which do nothing else. The photographs that
``scripts/keep_pairs.py`` keeps for validation are left out, and so are the people of :mod:`pdnla.data.held_out`.

The weight is fitted on the pairs in ``PAIRS/validation`` that ``keep_pairs.py`` made of photographs which the prior has
not seen: on photographs that it has seen, it would trust itself too much. For the same reason, a network that gets
expected colours in its training (``model.expects=true``) gets them of priors trained ``--without 0/2`` and
``--without 1/2``: without those photographs which the pairs of ``keep_pairs.py --folds 2`` with even and odd numbers
have.
"""

import math
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from keep_pairs import part_of
from pdnla.backbones import load_backbone
from pdnla.cli.command import run
from pdnla.data.hard_pairs import change_tone
from pdnla.data.held_out import without_held_out
from pdnla.data.kept_pairs import LEVELS, count_pairs, guide_of, kind_and_size, pair_file, read_crop
from pdnla.data.splitting import fold_of, split
from pdnla.errors import UserError
from pdnla.fast import accelerate
from pdnla.files import remove_stale_temporaries, replacing
from pdnla.images import color
from pdnla.images.greys import open_colour
from pdnla.images.io import list_images
from pdnla.memory import keep_freed_memory
from pdnla.models import build, describe
from pdnla.network import InformedPDNLA
from pdnla.network.correspondence import SIDE
from pdnla.network.guide import Expected, shown
from pdnla.network.informed import INNER
from pdnla.network.prior import PLACE, ColorPrior, features_of, signs
from pdnla.training.ema import averaged_copy, update_average, warmed_decay
from pdnla.weights import load_network, save_weights
from train_metric import parser_of

PLACES = 128
"""Places of each picture that are kept."""
BATCH = 2048
NOISE = 0.5
"""Standard deviation of noise that is added to the features in training, whose mean square is about 1."""
IMPORTANCE = {"class": 2.0, "likeness": 2.0, "partial": 1.0, "side_by_side": 1.0, "person": 2.0, "place": 2.0}
"""Weights of the kinds of pairs in fitting the weight of the prior; others have 0.5."""
MANY, FEW = 3, 300
"""Pictures of each photograph of a folder with fewer than FEW; of others there are two."""


class Places(NamedTuple):
    """Some places of pictures: features, ``(N, D)``, in bytes, and a* and b*, ``(N, 2)``."""

    features: Tensor
    chroma: Tensor


def places_of(backbone: torch.nn.Module, picture: Tensor, rng: np.random.Generator) -> Places:
    """Return random places of a picture, sRGB in [0, 1], ``(3, H, W)``, with sides that are multiples of 32."""
    grey = color.grey(picture)[None] * 2 - 1
    small = F.avg_pool2d(grey, 16 // PLACE)  # then a place is one of the map at stride 16
    features = features_of(small, shown(tuple(backbone(grey))))[0].flatten(0, 1)
    chroma = F.avg_pool2d(color.rgb_to_lab(picture)[1:], 16).flatten(1).T
    some = torch.from_numpy(rng.choice(len(chroma), min(len(chroma), PLACES), replace=False))
    return Places((features[some] * LEVELS).round().clamp(-127, 127).to(torch.int8), chroma[some].half())


def cut(picture: Image.Image, rng: np.random.Generator, whole: bool) -> Tensor:
    """Return a picture, or a part of it, perhaps mirrored and of other tones, at the size of matching."""
    part = 1.0 if whole else rng.uniform(0.45, 0.95)
    width, height = (part * side for side in picture.size)
    left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
    size = [max(1, round(side * SIDE / math.sqrt(width * height) / 32)) * 32 for side in (width, height)]
    box = (left, top, left + width, top + height)
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC, box=box), dtype=np.float32) / 255
    result = torch.from_numpy(pixels).permute(2, 0, 1)
    return change_tone(result.flip(-1) if not whole and rng.random() < 0.5 else result, rng)


def keep(paths: list[Path], folder: Path, part: int, parts: int) -> None:
    """Compute the places of photographs in colour, and keep them in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(folder)
    backbone = accelerate(load_backbone())
    began, crowds = time.monotonic(), Counter(path.parent for path in paths)
    with torch.inference_mode():
        for done, index in enumerate(range(part, len(paths), parts), 1):
            file, path = folder / f"{index:06d}.pt", paths[index]
            if not file.exists():
                rng, found = np.random.default_rng([7, index]), []
                try:
                    picture = open_colour(path, SIDE)
                except UserError as error:
                    print(f"left out: {error}", flush=True)
                    continue
                if picture is not None:
                    count = MANY if crowds[path.parent] < FEW else 2
                    found = [places_of(backbone, cut(picture, rng, i == 0), rng) for i in range(count)]
                with replacing(file) as temporary:
                    torch.save({"path": str(path), "places": [tuple(places) for places in found]}, temporary)
            if done % 200 == 0:
                print(f"{done} of {len(paths) // parts} photographs, {time.monotonic() - began:.0f} s", flush=True)


def kept(paths: list[Path], folder: Path, without: list[Path]) -> Places:
    """Return the places of all photographs but those to train without."""
    all_places, left_out = [], set(without)
    for index, path in enumerate(paths):
        if path in left_out:
            continue
        file = folder / f"{index:06d}.pt"
        if file.exists():
            content = torch.load(file, weights_only=True)
            if content["path"] != str(path):
                raise UserError(f"--kept {folder}: was made of other photographs; name another folder")
            all_places += [Places(*places) for places in content["places"]]
    if not all_places:
        raise UserError(f"--roots: {len(paths)} photographs, and none in colour; name other folders")
    return Places(*(torch.cat(parts) for parts in zip(*all_places, strict=True)))


def distance(chroma: Tensor, truth: Tensor) -> Tensor:
    """Return the distance in a*b*, ``(N, 1)``, rounded off at 0."""
    return ((chroma - truth).square().sum(dim=1, keepdim=True) + 1).sqrt()


def train(prior: ColorPrior, places: Places, steps: int, lr: float) -> None:
    """Train the expected colours and their spread."""
    prior.train()
    learning = [p.requires_grad_() for name, p in prior.named_parameters() if not name.startswith("trust")]
    optimizer = torch.optim.AdamW(learning, lr=lr, weight_decay=0.05)
    average = averaged_copy(prior)
    began, errors = time.monotonic(), []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 200) * (1.02 + math.cos(math.pi * step / steps)) / 2
        some = torch.randint(len(places.chroma), (BATCH,))
        truth = places.chroma[some].float()
        features = places.features[some].float() / LEVELS
        expected = Expected(*prior(features + NOISE * torch.randn_like(features)))
        error = distance(expected.chroma, truth)
        loss = (error / expected.spread + 2 * expected.spread.log()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        update_average(average, prior, warmed_decay(0.999, step))
        errors.append(error.mean().item())
        if (step + 1) % 250 == 0:
            print(f"step {step + 1}: {np.mean(errors[-250:]):.2f}, {time.monotonic() - began:.0f} s", flush=True)
    prior.load_state_dict(average.state_dict())
    prior.eval().requires_grad_(False)


class Judged(NamedTuple):
    """Places of pairs with a result, for fitting the weight.

    Attributes:
        signs: see :func:`pdnla.network.prior.signs`.
        expected: expected a* and b*.
        result: those of the network without its prior.
        truth: the true ones.
        part: by how much the prior's weight is multiplied.
        importance: weight of the place in the loss.
    """

    signs: Tensor
    expected: Tensor
    result: Tensor
    truth: Tensor
    part: Tensor
    importance: Tensor


def judged(network: InformedPDNLA, path: Path) -> Judged:
    """Colour a kept pair by a network whose prior has no weight and return its places."""
    assert network.prior is not None
    kind, size = kind_and_size(path)
    crop = read_crop(path, min(*size, INNER), None)
    truth, reference, chroma, confidence, opinion = (x[None] for x in crop[:5])
    guide = guide_of(chroma, confidence, opinion, [level[None] for level in crop.seen])
    target = color.grey(truth) * 2 - 1
    expected = network.prior.expected(target, guide.seen)
    result = network(target, reference * 2 - 1, guide._replace(expected=expected)).out
    ours, theirs = (F.avg_pool2d(color.rgb_to_lab(x)[:, 1:], PLACE) for x in ((result + 1) / 2, truth))
    prospect, ours, theirs = (x.flatten(2)[0].T for x in (expected.chroma, ours, theirs))
    found = signs(expected, guide).flatten(0, 2)
    part = F.avg_pool2d(network.part_of_prior(guide), PLACE).flatten(2)[0].T
    return Judged(found, prospect, ours, theirs, part, torch.full((len(found), 1), IMPORTANCE.get(kind, 0.5)))


def pairs_in(folder: Path) -> list[Path]:
    """Return the kept pairs to fit the weight on.

    Raises:
        UserError: there are none.
    """
    held = folder / "validation"
    paths = [pair_file(held, index) for index in range(count_pairs(held))]
    if not paths:
        raise UserError(f"--pairs {folder}: holds no pairs in its folder validation; make them with keep_pairs.py")
    return paths


def fit(network: InformedPDNLA, paths: list[Path]) -> None:
    """Fit the weight of the expected colours on kept pairs."""
    prior = network.prior
    assert prior is not None
    prior.distrust()
    with torch.no_grad():
        found = [judged(network, path) for path in paths]
    places = Judged(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    torch.nn.init.zeros_(prior.trust.bias)
    prior.trust.requires_grad_(True)
    optimizer = torch.optim.LBFGS(prior.trust.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def error_of(chroma: Tensor) -> Tensor:
        return (places.importance * distance(chroma, places.truth)).sum() / places.importance.sum()

    def mixed() -> tuple[Tensor, Tensor]:
        weight = places.part * torch.sigmoid(prior.trust(places.signs))
        return torch.lerp(places.result, places.expected, weight), weight

    def closure() -> Tensor:
        optimizer.zero_grad()
        error = error_of(mixed()[0]) + 1e-3 * prior.trust.weight.square().sum()
        error.backward()
        return error

    optimizer.step(closure)
    prior.trust.requires_grad_(False)
    chroma, weight = mixed()
    print(
        f"{len(paths)} pairs: error {error_of(places.result):.2f} without the prior, {error_of(places.expected):.2f} of"
        f" it alone, {error_of(chroma):.2f} with it, of a mean weight of {weight.mean():.2f}"
    )


def main() -> None:
    """Train, fit and write the weights.

    Raises:
        UserError: a folder cannot be read, or none holds a photograph in colour.
    """
    parser = parser_of(__doc__)
    parser.set_defaults(threads=1)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of keep_pairs.py")
    parser.add_argument("--weights", default="default", help="pdnla_informed to add the prior to")
    parser.add_argument("--part", type=part_of, default="0/1", help="the part of the photographs to keep only")
    parser.add_argument("--without", type=part_of, help="the fold of keep_pairs.py to train without, such as 0/2")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    part, parts = options.part
    network, pairs = with_prior(options.weights), pairs_in(options.pairs)
    assert network.prior is not None
    paths = split(path for root in options.roots for path in without_held_out(list_images(root), root)).training
    keep(paths, options.kept, part, parts)
    if parts > 1:
        return
    without = fold_of(paths, *options.without) if options.without else []
    train(network.prior, kept(paths, options.kept, without), options.steps, options.lr)
    fit(network, pairs)
    save_weights(network.eval(), options.file, f"scripts/train_prior.py, {options.steps} steps", half=True)


def with_prior(weights: str) -> InformedPDNLA:
    """Return a network with a new prior.

    Raises:
        UserError: the weights are not those of a ``pdnla_informed``.
    """
    network = load_network(weights)
    if not isinstance(network, InformedPDNLA):
        raise UserError(f"--weights {weights}: is not of the model pdnla_informed, which alone has a prior")
    description = describe(network)
    again = build(description._replace(arguments={**description.arguments, "prior": True}))
    assert isinstance(again, InformedPDNLA)
    again.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("prior.")}, strict=False)
    return again.eval()


if __name__ == "__main__":
    run("train_prior.py", main)
