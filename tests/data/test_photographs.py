"""Training data: seeded draws, grey and broken photographs left out, errors before training begins."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pdnla import UserError
from pdnla.data.modules import BuiltinData, FolderData, ImageNetData, PairsData
from pdnla.data.photographs import Draw, DrawnBatches, FixedPairs, TrainingCrops, colourful
from pdnla.data.preparing import plan_shards
from pdnla.data.pseudo_pairs import PseudoPairs
from pdnla.images.greys import is_grey, open_colour


def save(path: Path, colour: tuple[int, int, int] | None, size: tuple[int, int] = (40, 30)) -> Path:
    """A picture of noise about a colour, or grey noise."""
    rng = np.random.default_rng(len(path.name))
    noise = rng.integers(0, 40, (*size[::-1], 1))
    pixels = noise + (np.array(colour) if colour else np.full(3, 90))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


OPTIONS: dict[str, Any] = {
    "batch_size": 2,
    "size": 16,
    "pairs": PseudoPairs(),
    "seed": 3,
    "workers": 0,
    "validation_count": 64,
    "repeats": 1,
    "unpaired_fraction": 0.0,
    "pairing": "nearest",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(8):
        save(tmp_path / f"{i}.png", (30 * i, 200 - 20 * i, 60))
    return tmp_path


def module(root: Path, **options: Any) -> FolderData:
    return FolderData(root=str(root), **{**OPTIONS, **options})


def first_batches(data: FolderData, count: int = 2) -> list[torch.Tensor]:
    data.setup()
    batches: Iterator[Any] = iter(data.train_dataloader())
    return [torch.cat(tuple(data.on_after_batch_transfer(next(batches), 0).pairs)) for _ in range(count)]


def test_the_same_seed_gives_the_same_batches_with_and_without_workers(folder: Path) -> None:
    once, again = first_batches(module(folder)), first_batches(module(folder, workers=2))
    other = first_batches(module(folder, seed=4))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once[0], other[0])


def test_an_epoch_draws_each_photograph_once_and_the_next_in_another_order() -> None:
    sampler = DrawnBatches(12, 3, seed=0)
    first = [draw for batch in sampler for draw in batch]
    sampler.set_epoch(1)
    second = [draw for batch in sampler for draw in batch]
    assert sorted(d.photograph for d in first) == list(range(12))
    assert [d.photograph for d in first] != [d.photograph for d in second]
    assert len({d.seed for d in first + second}) == 24
    assert len(sampler) == 4


def test_devices_share_out_the_batches_of_one_device() -> None:
    separate = list(DrawnBatches(13, 4, seed=5, repeats=2))
    ranks = [list(DrawnBatches(13, 2, seed=5, rank=r, devices=2, repeats=2)) for r in range(2)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == separate
    assert len(separate) == 6


def test_grey_means_by_the_stated_rule() -> None:
    assert is_grey(Image.new("RGB", (50, 50), (120, 121, 122)))
    assert is_grey(Image.new("RGB", (50, 50), (0, 0, 0)))
    assert not is_grey(Image.new("RGB", (50, 50), (120, 130, 122)))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "I;16"])
def test_pictures_without_colour_channels_are_grey(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "x.png")
    assert open_colour(tmp_path / "x.png", 8) is None


def test_a_16_bit_target_of_a_validation_pair_keeps_its_greys(tmp_path: Path) -> None:
    greys = np.linspace(0, 65535, 256).astype(np.uint16)
    Image.fromarray(np.tile(greys, (256, 1))).save(tmp_path / "grey.png")
    colours = save(tmp_path / "colours.png", (200, 60, 60))
    pair = FixedPairs([(tmp_path / "grey.png", colours)], 256)[0]
    assert pair.truth[:, 0].tolist() == [list(range(256))] * 3
    with pytest.raises(UserError, match=r"data\.validation_pairs: .*gone\.png: there is no such image"):
        FixedPairs([(tmp_path / "gone.png", colours)], 16)[0]


def test_grey_and_broken_photographs_give_way_and_are_counted(folder: Path) -> None:
    grey = save(folder / "grey.png", None)
    broken = folder / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no jpeg")
    crops = TrainingCrops([grey, broken, folder / "1.png"], 16, 1.5)
    drawn = [crops[Draw(i, seed)] for i in (0, 1) for seed in range(20)]
    assert all(crop.truth.shape == (3, 16, 16) for crop in drawn)
    assert all(crop.grey >= 1 for crop in drawn[:20])
    assert all(crop.unreadable >= 1 for crop in drawn[20:])
    assert crops[Draw(2, 0)][-2:] == (0, 0)


def test_crops_are_inside_the_photograph_at_any_shape(tmp_path: Path) -> None:
    for size in [(200, 20), (20, 200), (16, 16), (5, 5)]:
        path = save(tmp_path / f"{size[0]}x{size[1]}.png", (200, 60, 60), size)
        crop = TrainingCrops([path], 16, 1.5)[Draw(0, 1)]
        assert crop.truth.shape == (3, 16, 16)
        assert crop.truth[0].min() >= 150  # red everywhere: nothing from outside


def test_validation_photographs_are_kept_from_training(folder: Path) -> None:
    data = module(folder, validation_count=64)
    data.setup()
    assert len(data.validation_paths) == 1
    assert not set(data.validation_paths) & set(data.training_paths)
    assert len(data.training_paths) == 7


def test_validation_pairs_are_always_the_same(folder: Path) -> None:
    data = module(folder, validation_root=str(folder))
    data.setup()
    first, second = (
        [data.on_after_batch_transfer(batch, 0).pairs for batch in data.val_dataloader()] for _ in range(2)
    )
    assert sum(len(pairs.target) for pairs in first) == 8
    assert all(torch.equal(a.reference, b.reference) for a, b in zip(first, second, strict=True))


def test_imagenet_layout_uses_val_if_it_is_there(tmp_path: Path) -> None:
    for name in ("train/n01/a.JPEG", "train/n01/b.JPEG", "train/n02/c.JPEG", "val/v.JPEG"):
        save(tmp_path / name, (200, 60, 60))
    data = ImageNetData(root=str(tmp_path), **OPTIONS)
    data.setup()
    assert [p.name for p in data.training_paths] == ["a.JPEG", "b.JPEG", "c.JPEG"]
    assert [p.name for p in data.validation_paths] == ["v.JPEG"]
    (tmp_path / "val/v.JPEG").unlink()
    (tmp_path / "val").rmdir()
    split = ImageNetData(root=str(tmp_path), **OPTIONS)
    split.setup()
    assert len(split.training_paths) == 2
    assert len(split.validation_paths) == 1
    with pytest.raises(UserError, match=r"has no folder train/"):
        ImageNetData(root=str(tmp_path / "train"), **OPTIONS).setup()


def test_builtin_photographs_are_there_and_in_colour() -> None:
    data = BuiltinData(**{**OPTIONS, "repeats": 2})
    data.setup()
    assert len(colourful(data.training_paths, 99, 0)) == 6
    assert len(data.validation_paths) == 2


def test_what_cannot_train_is_said_before_training(folder: Path, tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "greys" / f"{i}.png", None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for i in range(4):
        (tmp_path / "broken" / f"{i}.jpg").write_bytes(b"no image")
    save(tmp_path / "single" / "one.png", (200, 60, 60))
    for root, options, sentence in [
        ("greys", {}, "is a readable colour photograph; choose another data.root"),
        ("broken", {}, "is a readable colour photograph; choose another data.root"),
        ("empty", {}, "holds no image"),
        ("absent", {}, "there is no such folder"),
        ("single", {}, "holds a single photograph"),
        (".", {"batch_size": 64}, r"data.batch_size=64 on 1 device\(s\) is more than the"),
        (".", {"size": 100}, "data.size=100: must be a multiple of 16, such as 96"),
    ]:
        with pytest.raises(UserError, match=sentence):
            module(tmp_path / root, **options).setup()


def test_pairs_of_grey_targets_cannot_train_and_the_pairs_file_is_named(tmp_path: Path) -> None:
    lines = [f"{save(tmp_path / f'{i}.png', None)},{save(tmp_path / f'c{i}.png', (200, 60, 60))}" for i in range(4)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match=r"is a readable colour photograph; choose another data\.pairs_file"):
        PairsData(pairs_file=str(tmp_path / "pairs.csv"), **OPTIONS).setup()


def test_a_run_of_grey_photographs_in_training_ends_it_with_the_reason(tmp_path: Path) -> None:
    grey = save(tmp_path / "g.png", None)
    with pytest.raises(UserError, match=r"64 photographs drawn in a row were grey \(64\)"):
        TrainingCrops([grey], 16, 1.5)[Draw(0, 0)]


def test_what_alpha_hides_makes_no_picture_coloured_or_grey(tmp_path: Path) -> None:
    alpha = Image.new("L", (60, 60), 0)
    alpha.paste(255, (20, 20, 30, 30))
    for name, shown, hidden in [("grey", (90, 90, 90), (0, 255, 0)), ("coloured", (130, 110, 100), (90, 90, 90))]:
        image = Image.new("RGB", (60, 60), hidden)
        image.paste(shown, (20, 20, 30, 30))
        image.putalpha(alpha)
        image.save(tmp_path / f"{name}.png")
    assert open_colour(tmp_path / "grey.png", 8) is None
    coloured = open_colour(tmp_path / "coloured.png", 8)
    assert coloured is not None
    assert coloured.getpixel((25, 25)) == (130, 110, 100)
    assert len(set(coloured.getpixel((0, 0)))) == 1  # type: ignore[arg-type]


def test_no_training_uses_the_people_held_out(tmp_path: Path) -> None:
    faces = tmp_path / "Faces"
    faces.mkdir()
    for number in (41, 42, 46, 47, 133, 138):
        Image.new("RGB", (40, 40), (200, 90, 40)).save(faces / f"image_{number:04d}.jpg")
    training, validation = module(tmp_path).photographs()
    assert sorted(int(path.stem[-4:]) for path in (*training, *validation)) == [41, 47, 138]
    jobs = plan_shards(tmp_path, tmp_path / "shards", 1, 32).jobs
    assert sorted(path for job in jobs for path in job.paths) == [f"Faces/image_{n:04d}.jpg" for n in (41, 47, 138)]
    lines = [f"Faces/image_{a:04d}.jpg,Faces/image_{b:04d}.jpg" for a, b in ((41, 47), (42, 41), (47, 46), (47, 138))]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    given = PairsData(pairs_file=str(tmp_path / "pairs.csv"), **OPTIONS).given
    assert [[int(path.stem[-4:]) for path in pair] for pair in given] == [[41, 47], [47, 138]]
    for number in (41, 47, 138):
        (faces / f"image_{number:04d}.jpg").unlink()
    with pytest.raises(UserError, match="people whom no training may use; name another folder"):
        module(tmp_path).photographs()


def test_scikit_images_photographs_are_chosen_by_name() -> None:
    training, validation = BuiltinData(**OPTIONS, names=["coffee.png"]).photographs()
    assert [path.name for path in training] == ["coffee.png"]
    assert [path.name for path in validation] == ["motorcycle_left.png", "motorcycle_right.png"]
    with pytest.raises(UserError, match=r"data\.names: scikit-image has no tea\.png; use such as astronaut\.png, "):
        BuiltinData(**OPTIONS, names=["tea.png"]).photographs()
