"""Train the metric of semantic correspondence on photographs: similar cells should have similar colours.

``python scripts/train_metric.py metric.safetensors --roots PHOTOGRAPHS... --kept CELLS`` writes the weights of a
``SemanticWarp`` with that metric. Folders of photographs are classes, as in ImageNet; pairs are a photograph and a
changed view of it, photographs of one class, and photographs of one person or of two (Caltech-101's ``Faces``). To half
of the references, cells of another photograph are added, which must not be chosen. The frozen network's
features of each photograph are computed once and kept in the folder CELLS, 2 MB each; after an interruption, the script
continues there. One photograph in 20 is for validation, and the people that :mod:`pdnla.data.held_out` names are left
out.

The loss of a cell is the expected distance of the a*b* that attention chooses, plus that of its mean:
``E sqrt(|c - c'|² + 4) / 2 + sqrt(|E c' - c|² + 4) / 2``.
"""

import argparse
import io
import math
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from pdnla.backbones import load_backbone
from pdnla.cli.command import run
from pdnla.data.held_out import person, without_held_out
from pdnla.data.photographs import to_tensor
from pdnla.errors import UserError
from pdnla.files import remove_stale_temporaries, replacing
from pdnla.images.greys import open_colour
from pdnla.images.io import list_images
from pdnla.memory import keep_freed_memory
from pdnla.network import SemanticWarp
from pdnla.network.correspondence import CELL, FINE, PENALTY, SIDE, TEMPERATURE, Correspondence, Metric, match_exposure
from pdnla.weights import save_weights

QUERIES, DISTRACTORS = 160, 400
"""Cells of a target in a step, and cells of another photograph that are added to a reference's."""
BATCH = 12
VALIDATION = 20
_FLAT = 4.0  # added to squared distances in a*b*


class Cells(NamedTuple):
    """A quarter of a picture's cells, N of them.

    Attributes:
        features: unit feature vectors, ``(N, D)``.
        lightness: L*/100, ``(N,)``.
        chroma: a* and b*, ``(N, 2)``.
        exposure: mean and standard deviation of the picture's L*/100, ``(2,)``.
    """

    features: Tensor
    lightness: Tensor
    chroma: Tensor
    exposure: Tensor


class Photograph(NamedTuple):
    """A photograph's own cells, and those of a changed view of it."""

    own: Cells
    changed: Cells


def cells_of(correspondence: Correspondence, picture: Image.Image, rng: random.Random) -> Cells:
    """Return every second cell of a picture in each direction."""
    view, spots = correspondence.view_and_spots(to_tensor(picture)[None] / 127.5 - 1)
    window = math.isqrt(spots.spots.shape[2])
    margin = (window - CELL // FINE) // 2
    own = slice(margin, window - margin)
    chroma = spots.spots[0, ..., -2:].unflatten(1, (window, window))[:, own, own].mean(dim=(1, 2))
    chosen = slice(rng.randrange(2), None, 2), slice(rng.randrange(2), None, 2)

    def some(of_all: Tensor) -> Tensor:
        return of_all.unflatten(0, view.grid)[chosen].flatten(0, 1).half()

    return Cells(some(view.cells[0]), some(spots.lightness[0]), some(chroma), spots.exposure[0])


def changed(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Return a crop of a picture, perhaps mirrored, of another exposure and contrast, perhaps compressed."""
    area, ratio = rng.uniform(0.4, 1), rng.uniform(0.8, 1.25)
    width = min(picture.width, int(picture.width * math.sqrt(area * ratio)))
    height = min(picture.height, int(picture.height * math.sqrt(area / ratio)))
    left, top = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
    picture = picture.crop((left, top, left + width, top + height))
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gamma, contrast = rng.uniform(0.65, 1.5), rng.uniform(0.75, 1.2)
    tones = [round(255 * min(1.0, max(0.0, ((x / 255) ** gamma - 0.5) * contrast + 0.5))) for x in range(256)]
    picture = picture.point(tones * 3)
    if rng.random() < 0.4:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=rng.randint(35, 90))
        picture = Image.open(stream).convert("RGB")
    return picture


def keep(paths: list[Path], folder: Path) -> list[tuple[Path, Photograph]]:
    """Return the cells of photographs in colour, from the folder if they are kept there."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(folder)
    correspondence = Correspondence(load_backbone())
    began, kept = time.monotonic(), []
    for index, path in enumerate(paths):
        file = folder / f"{index:06d}.pt"
        if not file.exists():
            rng, found = random.Random(index), None
            try:
                picture = open_colour(path, SIDE)
            except UserError as error:
                print(f"left out: {error}", flush=True)
                continue
            if picture is not None:
                with torch.inference_mode():
                    found = [tuple(cells_of(correspondence, p, rng)) for p in (picture, changed(picture, rng))]
            with replacing(file) as temporary:
                torch.save({"path": str(path), "cells": found}, temporary)
        content = torch.load(file, weights_only=True)
        if content["path"] != str(path):
            raise UserError(f"--kept {folder}: was made of other photographs; name another folder")
        if content["cells"] is not None:
            kept.append((path, Photograph(*(Cells(*part) for part in content["cells"]))))
        if (index + 1) % 200 == 0:
            print(f"{index + 1} of {len(paths)} photographs, {time.monotonic() - began:.0f} s", flush=True)
    return kept


class Pairs:
    """Targets and references of photographs, drawn at random.

    Args:
        photographs: with their paths.
        rng: the source of randomness.
    """

    def __init__(self, photographs: list[tuple[Path, Photograph]], rng: random.Random) -> None:
        self.all, self.rng = [photograph for _, photograph in photographs], rng
        classes, people = defaultdict(list), defaultdict(list)
        for path, photograph in photographs:
            classes[path.parent].append(photograph)
            if (who := person(path)) is not None:
                people[path.parent, who].append(photograph)
        self.classes = [group for group in classes.values() if len(group) > 1]
        self.people = [group for group in people.values() if len(group) > 1]
        folders = {folder for folder, _ in people}
        self.faces = [group for folder, group in classes.items() if folder in folders and len(group) > 1]

    def draw(self) -> tuple[Cells, Cells]:
        """Return a target and a reference: 40% of one photograph, 15% of one person, 7% of two, 38% of one class."""
        kind = self.rng.random()
        if kind < 0.4 or not self.classes:
            target, reference = self.rng.sample(self.rng.choice(self.all), 2)
        else:
            groups = self.people if kind < 0.55 else self.faces if kind < 0.62 else self.classes
            group = self.rng.choice(groups or self.classes)
            one, other = self.rng.sample(group, 2)
            target, reference = one.own, self.rng.choice(other)
        return target, self._with_distractors(reference) if self.rng.random() < 0.5 else reference

    def _with_distractors(self, reference: Cells) -> Cells:
        other = self.rng.choice(self.all).own
        some = torch.tensor(self.rng.sample(range(len(other.lightness)), min(DISTRACTORS, len(other.lightness))))
        features, lightness, chroma = (
            torch.cat([mine, its[some]]) for mine, its in zip(reference[:3], other[:3], strict=True)
        )
        return Cells(features, lightness, chroma, reference.exposure)


def loss(metric: nn.Module, target: Cells, reference: Cells, queries: Tensor) -> Tensor:
    """Return the loss of some cells of a target, see above."""
    lightness = target.lightness[queries].float().view(1, 1, 1, -1)
    lightness = match_exposure(lightness, reference.exposure[None], target.exposure[None]).flatten()
    cosines = metric(target.features[queries].float()) @ metric(reference.features.float()).T
    away = (lightness[:, None] - reference.lightness.float()[None]).abs()
    weights = (TEMPERATURE * (cosines - PENALTY * away)).softmax(dim=1)
    truth, chroma = target.chroma[queries].float(), reference.chroma.float()
    each = (torch.cdist(truth, chroma).square() + _FLAT).sqrt()
    of_mean = ((weights @ chroma - truth).square().sum(dim=1) + _FLAT).sqrt()
    return ((weights * each).sum(dim=1) + of_mean).mean() / 2


def train(
    metric: Metric,
    photographs: list[tuple[Path, Photograph]],
    steps: int,
    lr: float,
    seed: int = 0,
) -> None:
    """Train a metric."""
    held = [photograph for i, (_, photograph) in enumerate(photographs) if i % VALIDATION == VALIDATION - 1]
    pairs = Pairs([x for i, x in enumerate(photographs) if i % VALIDATION != VALIDATION - 1], random.Random(seed))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(metric.requires_grad_(True).parameters(), lr=lr, weight_decay=1e-3)
    began = time.monotonic()
    for step in range(steps + 1):
        if step % 100 == 0 or step == steps:
            with torch.no_grad():
                each = [loss(metric, own, other, torch.arange(len(own.lightness))) for own, other in held]
            error = f"{sum(map(float, each)) / len(each):.3f}" if each else "none"
            print(f"step {step}: validation {error}, {time.monotonic() - began:.0f} s", flush=True)
        if step == steps:
            break
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        for _ in range(BATCH):
            target, reference = pairs.draw()
            queries = torch.randperm(len(target.lightness), generator=generator)[:QUERIES]
            (loss(metric, target, reference, queries) / BATCH).backward()
        optimizer.step()
    metric.requires_grad_(False)


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options of a training on what the frozen network gives for photographs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("file", type=Path, help="where the weights go")
    parser.add_argument("--roots", type=Path, nargs="+", required=True, help="folders of photographs")
    parser.add_argument("--kept", type=Path, required=True, help="folder for what the frozen network gives")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def main() -> None:
    """Train and write the weights.

    Raises:
        UserError: a folder cannot be read, or none holds a photograph in colour.
    """
    parser = parser_of(__doc__)
    parser.add_argument("--per-class", type=int, default=22, help="photographs of a folder at most")
    parser.add_argument("--of-people", type=int, default=200, help="the same for folders of people with numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    folders = defaultdict(list)
    for root in options.roots:
        for path in without_held_out(list_images(root), root):
            folders[path.parent].append(path)
    rng = random.Random(0)
    paths = []
    for found in folders.values():
        most = options.per_class if all(person(path) is None for path in found) else options.of_people
        paths += rng.sample(found, min(most, len(found)))
    rng.shuffle(paths)
    network = SemanticWarp(load_backbone(), learned=True)
    metric = network.correspondence.metric
    assert metric is not None
    photographs = keep(paths, options.kept)
    if not photographs:
        raise UserError(f"--roots {options.roots[0]}: holds no photographs in colour; name another folder")
    train(metric, photographs, options.steps, options.lr)
    save_weights(network.eval(), options.file, f"scripts/train_metric.py, {options.steps} steps", half=True)


if __name__ == "__main__":
    run("train_metric.py", main)
