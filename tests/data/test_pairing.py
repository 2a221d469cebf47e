"""Which photograph is the reference of an unpaired pair, and how pairs become batches."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fork_server import python
from PIL import Image, ImageFilter
from processes import piped
from skimage import data

from pdnla import UserError
from pdnla.backbones import Backbone, load_backbone
from pdnla.data import retrieval
from pdnla.data.modules import FolderData, PairsData
from pdnla.data.pairing import ClassPartners, GivenPartners, RandomPartners, partners_by
from pdnla.data.pairs_file import read_pairs
from pdnla.data.photographs import Draw, TrainingCrops
from pdnla.data.pseudo_pairs import PseudoPairs
from pdnla.data.retrieval import build_index
from pdnla.images.color import grey

PICTURES = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PDNLA_CACHE", str(folder))
    return folder


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two views of four photographs, in two folders, the second mirrored and darker."""
    for name in PICTURES:
        image = Image.fromarray(getattr(data, name)()).convert("RGB").resize((96, 96))
        for view in ("a", "b"):
            (tmp_path / "album" / view).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "album" / view / f"{name}.png")
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).point(lambda v: int(0.8 * v))
    return tmp_path / "album"


def rngs(count: int = 40) -> Iterator[np.random.Generator]:
    return (np.random.default_rng(seed) for seed in range(count))


def test_random_partners_are_any_but_the_photograph_itself() -> None:
    partners = RandomPartners(5)
    assert {partners(3, rng) for rng in rngs()} == {0, 1, 2, 4}


def test_class_partners_share_the_folder_and_a_lone_photograph_is_its_own() -> None:
    paths = [Path(p) for p in ("x/1.png", "x/2.png", "x/3.png", "y/4.png", "z/5.png", "z/6.png")]
    partners = ClassPartners(paths)
    assert {partners(1, rng) for rng in rngs()} == {0, 2}
    assert {partners(5, rng) for rng in rngs()} == {4}
    assert {partners(3, rng) for rng in rngs()} == {3}


def test_classes_without_folders_are_refused_with_the_way_out() -> None:
    for paths in (["x/1.png", "x/2.png"], ["x/1.png", "y/2.png"]):
        with pytest.raises(UserError, match=r"use data\.pairing=nearest"):
            ClassPartners([Path(p) for p in paths])


def test_nearest_finds_the_other_view_of_the_same_photograph_whatever_its_colours(album: Path) -> None:
    paths = sorted(album.rglob("*.png"))
    for path in (album / "b").iterdir():  # other colours, the same luminance to 8 bits
        image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255
        Image.fromarray((grey(image) * 255).byte().permute(1, 2, 0).numpy()).save(path)
    nearest = build_index(paths).nearest(1)[0].flatten().tolist()
    assert [paths[n].name for n in nearest] == [p.name for p in paths]
    assert all(paths[n].parent != p.parent for n, p in zip(nearest, paths, strict=True))


def test_an_index_is_kept_and_only_what_changed_is_described_again(
    album: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(album.rglob("*.png"))
    first = build_index(paths)
    described: list[int] = []
    original = retrieval.descriptors

    def counting(pictures: torch.Tensor, backbone: Any) -> torch.Tensor:
        described.append(len(pictures))
        return original(pictures, backbone)

    monkeypatch.setattr(retrieval, "descriptors", counting)
    assert torch.equal(build_index(paths).vectors, first.vectors)
    assert described == []
    Image.open(paths[0]).filter(ImageFilter.GaussianBlur(4)).save(paths[0])
    os.utime(paths[0], ns=(1, 1))
    changed = build_index(paths)
    assert described == [1]
    assert torch.equal(changed.vectors[1:], first.vectors[1:])
    assert not torch.equal(changed.vectors[0], first.vectors[0])
    (file,) = cache.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(build_index(paths).vectors, changed.vectors)
    assert described == [1, len(paths)]


def test_what_an_interrupted_index_has_described_is_not_described_again(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(retrieval, "_BATCH", 3)
    paths = sorted(album.rglob("*.png"))
    with pytest.raises(KeyboardInterrupt):
        build_index(paths, progress=interrupt)
    totals: set[int] = set()
    build_index(paths, progress=lambda done, total: totals.add(total))
    assert totals == {len(paths) - 3}


@pytest.mark.slow
def test_one_of_several_processes_describes_and_the_others_wait(album: Path, cache: Path) -> None:
    paths = sorted(album.rglob("*.png"))
    program = "import sys; from pathlib import Path; from pdnla.data.retrieval import build_index\n"
    program += "build_index([Path(p) for p in sys.argv[1:]], progress=lambda done, total: print('described', total))"
    command = [python(), "-c", program, *map(str, paths)]
    environment = {**os.environ, "PDNLA_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    with piped(command, env=environment) as first, piped(command, env=environment) as second:
        output = sorted(process.communicate(timeout=120)[0] for process in (first, second))
    assert [first.returncode, second.returncode] == [0, 0]
    assert output == ["", f"described {len(paths)}\n"]


def test_the_backbone_that_says_what_is_near_is_the_one_asked_for(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(name: str) -> Backbone:
        asked.append(name)
        return load_backbone("efficientnet_lite0")

    monkeypatch.setattr(retrieval, "load_backbone", load)
    module = FolderData(root=str(album), **{**OPTIONS, "unpaired_fraction": 0.5, "backbone": "vgg19"})
    module.setup()
    assert asked == ["vgg19"]


def test_unreadable_pictures_are_nobodys_partner_and_are_said_each_time(
    album: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (album / "a" / "broken.png").write_bytes(b"\x89PNG no picture")
    paths = sorted(album.rglob("*.png"))
    broken = paths.index(album / "a" / "broken.png")
    for _ in range(2):
        caplog.clear()
        assert build_index(paths).readable.tolist() == [number != broken for number in range(len(paths))]
        assert "broken.png: is not an image" in caplog.text
    nearest, scores = build_index(paths).nearest(len(paths) - 2)
    assert broken not in nearest[[i for i in range(len(paths)) if i != broken]]
    assert scores.max() <= 1 + 1e-5


def test_a_folder_of_broken_pictures_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no")
    (tmp_path / "y.png").write_bytes(b"nor this")
    with pytest.raises(UserError, match=r"none of its 2 pictures can be read"):
        partners_by("nearest", [tmp_path / "x.png", tmp_path / "y.png"])


def test_unknown_pairings_are_refused(album: Path) -> None:
    with pytest.raises(UserError, match=r"data\.pairing=best: is not known; use class, nearest, random"):
        partners_by("best", [album, album])


# Pairs files


def write(file: Path, lines: list[str]) -> Path:
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_file_of_pairs_may_have_a_heading_scores_and_blank_lines(album: Path) -> None:
    lines = ["target,reference,score", "a/coffee.png, b/coffee.png,0.9", "", "a/rocket.png,b/rocket.png,0.8"]
    actual = read_pairs(write(album / "pairs.csv", lines))
    assert actual == [
        (album / "a/coffee.png", album / "b/coffee.png"),
        (album / "a/rocket.png", album / "b/rocket.png"),
    ]
    assert read_pairs(write(album.parent / "pairs.txt", lines[1:]), root=album) == actual


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["target,reference"], "holds no pairs"),
        (["a/coffee.png"], "line 1: has one column"),
        (["a/coffee.png,b/tea.png"], r"line 1: .*tea\.png is not there"),
    ],
)
def test_wrong_files_of_pairs_are_one_sentence(album: Path, lines: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_pairs(write(album / "pairs.csv", lines))


def test_a_missing_file_of_pairs_and_one_that_is_not_text_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: there is no such pairs file; check the path"):
        read_pairs(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_bytes(b"\x89PNG\0\0,")
    with pytest.raises(
        UserError, match=r"a\.csv: is not a pairs file \(it is not text\); give lines of target,reference"
    ):
        read_pairs(tmp_path / "a.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("first", ["", "sep=;\r\n", "sep=;\r\ntarget;reference\r\n"])
def test_files_of_pairs_are_read_as_spreadsheets_write_them(album: Path, encoding: str, first: str) -> None:
    (album / "pairs.csv").write_bytes(f"{first}a/coffee.png;b/coffee.png\r\n".encode(encoding))
    assert read_pairs(album / "pairs.csv") == [(album / "a/coffee.png", album / "b/coffee.png")]


def test_lines_that_are_no_pairs_are_left_out_where_the_rest_can_be_done(album: Path) -> None:
    file = write(album / "pairs.csv", ["a/coffee.png", "a/tea.png,b/coffee.png", "a/coffee.png,b/coffee.png"])
    sentences: list[str] = []
    assert read_pairs(file, left_out=sentences.append) == [(album / "a/coffee.png", album / "b/coffee.png")]
    assert sentences == [
        f"{file}, line 1: has one column; give target,reference",
        f"{file}, line 2: {album}/a/tea.png is not there; paths are relative to {album}",
    ]
    with pytest.raises(UserError, match="line 1: has one column"):
        read_pairs(write(file, ["a/coffee.png"]), left_out=sentences.append)
    with pytest.raises(UserError, match="line 3: has one column"):
        read_pairs(write(file, ["sep=,", "a/coffee.png,b/coffee.png", "a/coffee.png"]))


# Batches


OPTIONS: dict[str, Any] = {
    "batch_size": 4,
    "size": 32,
    "pairs": PseudoPairs(),
    "seed": 3,
    "workers": 0,
    "validation_count": 1,
    "repeats": 1,
    "unpaired_fraction": 0.0,
    "pairing": "nearest",
}


def test_the_first_pairs_of_a_batch_are_unpaired_and_have_another_photograph_without_noise(album: Path) -> None:
    module = FolderData(
        root=str(album / "a"), **{**OPTIONS, "repeats": 4, "unpaired_fraction": 0.5, "pairing": "random"}
    )
    module.setup()
    batch = next(iter(module.train_dataloader()))
    assert batch.unpaired.tolist() == [True, True, False, False]
    made = module.on_after_batch_transfer(batch, 0)
    assert made.unpaired == 2
    assert torch.allclose(made.pairs.reference[:2], batch.partner[:2].float() / 127.5 - 1, atol=1e-6)
    assert torch.allclose(made.pairs.truth[:2], batch.truth[:2].float() / 127.5 - 1, atol=1e-6)
    assert not torch.equal(batch.partner[:2], batch.truth[:2])
    assert torch.allclose(made.pairs.target, grey((made.pairs.truth + 1) / 2) * 2 - 1, atol=1e-5)
    assert (made.pairs.reference[2:] - made.pairs.truth[2:]).abs().max() > 0.1


def test_the_unpaired_part_rises_over_its_ramp(album: Path) -> None:
    module = FolderData(root=str(album), **{**OPTIONS, "unpaired_fraction": 0.5, "unpaired_ramp": 100})
    assert [module.unpaired(n) for n in (0, 50, 100, 10_000)] == [0, 1, 2, 2]
    assert FolderData(root=str(album), **OPTIONS).unpaired(10_000) == 0


def test_a_grey_partner_gives_way_to_another(album: Path) -> None:
    Image.new("L", (64, 64), 128).save(album / "a" / "zgrey.png")
    paths = sorted((album / "a").iterdir())
    grey_one = len(paths) - 1
    crops = TrainingCrops(paths, 32, 1.0, GivenPartners([[grey_one, 1]] * len(paths)))
    drawn = [crops[Draw(0, seed, unpaired=True)] for seed in range(20)]
    assert sum(crop.grey for crop in drawn) > 0
    for crop in drawn:
        assert crop.partner.float().std(dim=0).max() > 1  # in colour


def test_training_on_a_file_of_pairs_takes_each_targets_own_reference(album: Path) -> None:
    red, blue = album / "red.png", album / "blue.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(red)
    Image.new("RGB", (64, 64), (30, 30, 200)).save(blue)
    lines = ["a/coffee.png,red.png", "a/rocket.png,blue.png", "a/chelsea.png,red.png", "a/astronaut.png,blue.png"]
    write(album / "pairs.csv", lines)
    options = {**OPTIONS, "batch_size": 3, "unpaired_fraction": 1.0, "repeats": 2}
    module = PairsData(pairs_file=str(album / "pairs.csv"), **options)
    module.setup()
    assert len(module.training_paths) == 3
    expected = {album / line.split(",")[0]: line.endswith("red.png") for line in lines}
    loader = module.train_dataloader()
    for draws in loader.batch_sampler:
        for draw in draws:
            crop = loader.dataset[draw]
            assert (crop.partner[0].float().mean() > 100) == expected[module.training_paths[draw.photograph]]


def test_validation_pairs_come_as_a_second_loader_and_need_no_truth(album: Path) -> None:
    Image.open(album / "a" / "coffee.png").convert("L").save(album / "a" / "coffee.png")
    write(album / "pairs.csv", ["a/coffee.png,b/coffee.png"])
    module = FolderData(root=str(album), validation_pairs=str(album / "pairs.csv"), **OPTIONS)
    module.setup()
    loaders = module.val_dataloader()
    assert isinstance(loaders, list)
    module.trainer = None
    (batch,) = list(loaders[1])
    made = module.on_after_batch_transfer(batch, 1)
    assert made.unpaired == 1
    assert made.pairs.reference.std() > 0.1
    assert torch.allclose(made.pairs.target[:, 0], made.pairs.target[:, 1], atol=1e-5)


def test_overfitting_draws_one_batch_again_and_again_and_validates_on_it(album: Path) -> None:
    module = FolderData(root=str(album), overfit=True, **OPTIONS)
    module.setup()
    batches = [batch for _, batch in zip(range(3), module.train_dataloader(), strict=False)]
    (validation,) = list(module.val_dataloader())
    for batch in (*batches[1:], validation):
        assert torch.equal(batch.truth, batches[0].truth)
        assert torch.equal(batch.seed, batches[0].seed)


def test_scores_of_written_pairs_are_read_back_as_pairs(album: Path) -> None:
    with (album / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["target", "reference", "score"], ["a/rocket.png", "b/rocket.png", "0.5"]])
    assert len(read_pairs(album / "pairs.csv")) == 1
