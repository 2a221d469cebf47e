"""Shards: every photograph once and byte for byte, drawn as from a folder, split and resumed exactly."""

import gc
import io
import json
import os
import pickle
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pdnla import UserError
from pdnla.data.modules import ShardData
from pdnla.data.photographs import Draw, DrawnBatches, TrainingCrops
from pdnla.data.preparing import ShardJob, begin, plan_shards, write_shard
from pdnla.data.pseudo_pairs import PseudoPairs
from pdnla.data.shards import Shards, window_order
from pdnla.images.io import list_images

COUNT = 24


def save(path: Path, colour: tuple[int, int, int], size: tuple[int, int]) -> None:
    noise = np.random.default_rng(sum(map(ord, path.name))).integers(0, 40, (*size[::-1], 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((noise + np.array(colour)).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of three classes, each of its own size, one of them in another format."""
    root = tmp_path_factory.mktemp("photographs")
    for i in range(COUNT):
        save(root / f"class{i % 3}" / f"{i}.{'png' if i == 5 else 'JPEG'}", (9 * i, 200 - 8 * i, 60), (40 + i, 30))
    return root


def write(folder: Path, out: Path, shards: int = 5, size: int = 0) -> Path:
    """Write shards of as many photographs each as are needed to have so many."""
    plan = plan_shards(folder, out, 1, size)
    (job,) = plan.jobs  # a megabyte holds all
    parts = np.array_split(np.arange(len(job.paths)), shards)
    jobs = [
        ShardJob(folder, out, number, [job.paths[i] for i in part], [job.classes[i] for i in part], size)
        for number, part in enumerate(parts)
    ]
    plan.record["shards"] = shards
    begin(plan, out, overwrite=False)
    for job in jobs:
        write_shard(job)
    return out


@pytest.fixture(scope="session")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(folder, tmp_path_factory.mktemp("shards") / "out")


def index_of(root: Path, number: int) -> dict[str, Any]:
    actual: dict[str, Any] = json.loads((root / f"shard-{number:06d}.json").read_text())
    return actual


def module(root: Path, **options: Any) -> ShardData:
    given = {
        "batch_size": 4,
        "size": 16,
        "pairs": PseudoPairs(),
        "seed": 3,
        "workers": 0,
        "validation_count": 64,
        "repeats": 1,
        "unpaired_fraction": 0.0,
        "pairing": "nearest",
        **options,
    }
    return ShardData(root=str(root), **given)


def epoch(data: ShardData) -> list[torch.Tensor]:
    data.setup()
    return [torch.cat(tuple(data.on_after_batch_transfer(batch, 0).pairs)) for batch in data.train_dataloader()]


def test_offsets_give_the_bytes_of_the_photographs(folder: Path, shards: Path) -> None:
    observed = []
    for number in range(5):
        index = index_of(shards, number)
        content = (shards / f"shard-{number:06d}.tar").read_bytes()
        for path, offset, size in zip(index["paths"], index["offsets"], index["sizes"], strict=True):
            assert content[offset : offset + size] == (folder / path).read_bytes()
            observed.append(folder / path)
    assert sorted(observed) == list_images(folder, natural=False)


def test_a_shard_is_a_webdataset_tar(shards: Path) -> None:
    classes = json.loads((shards / "plan.json").read_text())["classes"]
    suffixes = []
    for number in range(5):
        index = index_of(shards, number)
        with tarfile.open(shards / f"shard-{number:06d}.tar") as tar:
            contents = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        assert [name for name in contents if not name.endswith(".cls")] == index["names"]
        for name, path in zip(index["names"], index["paths"], strict=True):
            key, suffix = name.split(".")
            suffixes.append(suffix)
            assert classes[int(contents[f"{key}.cls"])] == Path(path).parent.name
    assert sorted(suffixes) == ["jpg"] * (COUNT - 1) + ["png"]


def test_a_sample_opens_as_its_file_does(folder: Path, shards: Path) -> None:
    opened = Shards(shards)
    paths = [path for number in range(5) for path in index_of(shards, number)["paths"]]
    assert [sample.open("rb").read() for sample in opened] == [(folder / path).read_bytes() for path in paths]
    assert [sample.parent for sample in opened] == [int(path[5]) for path in paths]
    assert str(opened[-1]) == f"{shards / 'shard-000004.tar'}: 000004-000003"
    assert [str(sample) for sample in opened[1:3]] == [str(opened[1]), str(opened[2])]


@pytest.mark.skipif(sys.platform == "win32", reason="the test sends POSIX signals or forks")
def test_each_process_opens_its_own_files(shards: Path) -> None:
    opened = Shards(shards)
    first = opened.read(0)
    assert pickle.loads(pickle.dumps(opened)).read(0) == first
    child = os.fork()
    if not child:
        os._exit(0 if opened.read(1) == Shards(shards).read(1) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert opened.read(0) == first


def test_few_files_are_open_however_many_shards(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdnla.data.shards.MOST_OPEN", 2)
    opened, expected = Shards(shards), list(Shards(shards))
    assert [opened.read(i) for i in range(COUNT)] == [sample.open().read() for sample in expected]
    del expected
    gc.collect()
    open_files = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert sum(path.is_relative_to(shards.resolve()) for path in open_files) == 2


def test_the_same_draw_is_the_same_crop_from_a_shard_as_from_the_folder(folder: Path, shards: Path) -> None:
    paths = [folder / path for number in range(5) for path in index_of(shards, number)["paths"]]
    from_shards, from_folder = TrainingCrops(Shards(shards), 16, 1.5), TrainingCrops(paths, 16, 1.5)
    for number in range(COUNT):
        draw = Draw(number, 100 + number)
        assert torch.equal(from_shards[draw].truth, from_folder[draw].truth)


def test_large_photographs_are_scaled_down_and_small_ones_kept(tmp_path: Path) -> None:
    save(tmp_path / "in/a/large.png", (200, 60, 60), (300, 90))
    save(tmp_path / "in/a/small.png", (200, 60, 60), (50, 48))
    opened = Shards(write(tmp_path / "in", tmp_path / "out", shards=1, size=48))
    sizes = {}
    for sample in opened:
        with Image.open(sample.open()) as image:
            sizes[image.format] = image.size
    assert sizes == {"JPEG": (160, 48), "PNG": (50, 48)}


def test_shards_fill_up_to_their_size_and_mix_classes(tmp_path: Path) -> None:
    for i in range(12):
        path = tmp_path / f"in/{i // 4}/{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(400_000))
    jobs = plan_shards(tmp_path / "in", tmp_path / "out", 1, 0).jobs
    assert [len(job.paths) for job in jobs] == [3, 2, 3, 2, 2]
    assert sorted(path for job in jobs for path in job.paths) == sorted(f"{i // 4}/{i}.jpg" for i in range(12))
    assert any(len(set(job.classes)) > 1 for job in jobs)
    assert plan_shards(tmp_path / "in", tmp_path / "out", 1, 0).jobs == jobs


def orders() -> list[Callable[[np.random.Generator], Any] | None]:
    shard = np.repeat(np.arange(7, dtype=np.int32), 10)
    return [None, lambda rng: window_order(shard, 3, rng)]


@pytest.mark.parametrize("order", orders(), ids=["random", "windows"])
def test_devices_share_out_the_draws_of_one_device(order: Callable[[np.random.Generator], Any] | None) -> None:
    separate = list(DrawnBatches(70, 8, seed=5, repeats=2, order=order))
    ranks = [list(DrawnBatches(70, 4, seed=5, rank=r, devices=2, repeats=2, order=order)) for r in range(2)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == separate
    first = [{draw.photograph for batch in list(rank)[:8] for draw in batch} for rank in ranks]
    assert not first[0] & first[1]


@pytest.mark.parametrize("order", orders(), ids=["random", "windows"])
def test_resuming_draws_what_was_left_of_the_epoch(order: Callable[[np.random.Generator], Any] | None) -> None:
    whole = DrawnBatches(70, 8, seed=5, order=order)
    whole.set_epoch(2)
    rest = DrawnBatches(70, 8, seed=5, order=order)
    rest.set_epoch(2)
    rest.skip = 3
    assert list(rest) == list(whole)[3:]


def test_a_window_mixes_few_shards_and_an_epoch_has_every_photograph() -> None:
    shard = np.repeat(np.arange(7, dtype=np.int32), [10, 3, 8, 0, 10, 9, 10])
    first, second = (window_order(shard, 2, np.random.default_rng(seed)) for seed in (1, 2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert list(first) != list(second)
    runs = shard[first]
    for start in range(0, 50, 5):
        assert len(set(runs[start : start + 5])) <= 4  # two windows at most
    places = {number: np.flatnonzero(runs == number) for number in set(shard)}
    overlapping = [sum(a[0] < b[-1] and b[0] < a[-1] for b in places.values() if b is not a) for a in places.values()]
    assert max(overlapping) == 1  # with the other of its window


@pytest.mark.parametrize("window", [0, 2])
def test_batches_are_the_same_with_and_without_workers(shards: Path, window: int) -> None:
    once, again = epoch(module(shards, shuffle_shards=window)), epoch(module(shards, shuffle_shards=window, workers=2))
    assert len(once) == 5  # of 20 photographs, 4 of the 24 validate
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_validation_is_kept_apart_or_comes_from_other_shards(shards: Path) -> None:
    data = module(shards)
    data.setup()
    training, validation = ({s.open().read() for s in part} for part in (data.training_paths, data.validation_paths))
    assert len(training) == 20
    assert len(validation) == 4
    assert not training & validation
    other = module(shards, validation_root=str(shards))
    other.setup()
    assert len(other.training_paths) == len(other.validation_paths) == COUNT
    assert sum(len(batch.truth) for batch in other.val_dataloader()) == COUNT


def test_pairing_by_class_stays_in_the_class(shards: Path) -> None:
    data = module(shards, unpaired_fraction=0.5, pairing="class")
    data.setup()
    assert data.partners is not None
    photographs: Any = data.training_paths
    for number in range(20):
        partner = data.partners(number, np.random.default_rng(number))
        assert partner != number
        assert photographs[partner].parent == photographs[number].parent


def test_a_broken_photograph_in_a_shard_gives_way_with_its_place_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write(folder, tmp_path / "out", shards=1)
    opened = Shards(root)
    with (root / "shard-000000.tar").open("r+b") as file:
        file.seek(int(opened.offset[3]))
        file.write(bytes(int(opened.size[3])))
    assert TrainingCrops(opened, 16, 1.5)[Draw(3, 0)].unreadable >= 1
    assert "shard-000000.tar: 000000-000003: is not an image that can be read" in caplog.text
    assert "BytesIO" not in caplog.text


def test_a_shard_that_is_cut_while_training_is_one_warning_each(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write(folder, tmp_path / "out", shards=1)
    opened = Shards(root)
    os.truncate(root / "shard-000000.tar", int(opened.offset[-1]) + 5)
    crop = TrainingCrops(opened, 16, 1.5)[Draw(COUNT - 1, 0)]
    assert crop.unreadable >= 1
    assert "shard-000000.tar: is truncated; run pdnla-prepare again" in caplog.text


def test_what_cannot_train_is_said_before_training(folder: Path, tmp_path: Path) -> None:
    cut, lost, other = (write(folder, tmp_path / name) for name in ("cut", "lost", "other"))
    os.truncate(cut / "shard-000002.tar", 1024)
    (lost / "shard-000004.json").unlink()
    (other / "plan.json").write_text('{"format": 99}')
    damaged = write(folder, tmp_path / "damaged")
    (damaged / "plan.json").write_text("{")
    for root, options, sentence in [
        (cut, {}, r"shard-000002\.tar: is missing, truncated or without its index; run pdnla-prepare again"),
        (lost, {}, r"shard-000004\.tar: is missing, truncated or without its index; run pdnla-prepare again"),
        (other, {}, "is of another version; run pdnla-prepare again with --overwrite"),
        (damaged, {}, "is damaged; run pdnla-prepare again with --overwrite"),
        (folder, {}, "has no plan.json; name a folder that pdnla-prepare wrote"),
        (cut, {"unpaired_fraction": 0.5, "pairing": "nearest"}, "with shards use class or random"),
    ]:
        with pytest.raises(UserError, match=sentence):
            module(root, **options).setup()


def test_a_million_photographs_are_held_in_arrays_alone(shards: Path) -> None:
    opened = Shards(shards)
    many = opened.take(np.arange(1_000_000) % COUNT)
    assert len(pickle.dumps(many)) < 40_000_000
    assert Image.open(io.BytesIO(many.read(999_999))).size == Image.open(opened[999_999 % COUNT].open()).size
