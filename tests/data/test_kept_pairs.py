"""Kept pairs: what is read is what was kept, a crop is that part of the picture, batches follow from their number."""

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import skimage
import torch
from PIL import Image

import keep_pairs
from pdnla.backbones import load_backbone
from pdnla.cli import command
from pdnla.data.hard_pairs import HardPair
from pdnla.data.kept_pairs import (
    CountedPairs,
    EndlessBatches,
    KeptCrop,
    KeptPairData,
    add_mistakes,
    guide_of,
    keep,
    kind_and_size,
    mix_chroma,
    pair_file,
    read_crop,
)
from pdnla.data.photographs import Draw
from pdnla.errors import UserError
from pdnla.images import color
from pdnla.network import InformedPDNLA, SemanticWarp
from pdnla.network.correspondence import Carried, Opinion
from pdnla.network.guide import SHOWN
from pdnla.weights import save_weights


def kept(path: Path, height: int = 96, width: int = 128, kind: str = "warped", seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(1, 3, height // 16, width // 16, generator=generator)
    truth = torch.nn.functional.interpolate(rough, (height, width), mode="bilinear")[0]
    chroma = color.rgb_to_lab(truth)[None, 1:]
    confidence = torch.linspace(0, 1, width).expand(1, 1, height, width)
    rows = torch.linspace(0, 1, 7).view(1, 1, 7, 1).expand(1, 5, 7, 9)
    columns = [torch.linspace(-1, 1, n).expand(1, c, 5, n) for c, n in zip(SHOWN, (16, 8, 4), strict=True)]
    opinion = Opinion(rows[:, :2], rows[:, 2:3], rows[:, 3:4], rows[:, 4:])
    keep(path, HardPair(truth, truth.flip(-1), kind), Carried(chroma, confidence), opinion, columns, 224)


def kept_data(root: Path, batch_size: int, recolour: float = 0.0, priors: Sequence[str] = ()) -> KeptPairData:
    options = {"workers": 0, "validation_count": 8, "recount": 2, "recolour": recolour, "turn": 0.0, "mistakes": 0.0}
    return KeptPairData(str(root), batch_size, 64, 0, backbone="efficientnet_lite0", priors=priors, **options)  # type: ignore[arg-type]


def test_a_crop_is_the_same_part_of_everything(tmp_path: Path) -> None:
    kept(tmp_path / "p.safetensors")
    crop = read_crop(tmp_path / "p.safetensors", 64, None)
    lab = color.rgb_to_lab(crop.truth)
    assert (lab[1:] - crop.chroma).abs().max() < 1.5  # bytes
    torch.testing.assert_close(crop.confidence[0, 0], torch.linspace(0, 1, 128)[32:96], atol=0.003, rtol=0)
    # Row 16 to 80 of 96 in the middle of a ramp from first to last of 7 places.
    wanted = ((torch.arange(16, 80) + 0.5) / 96 * 7 - 0.5).clamp(0, 6) / 6
    torch.testing.assert_close(crop.opinion[0, :, 0], wanted, atol=0.002, rtol=0)
    assert [tuple(x.shape) for x in crop.seen] == [(40, 16, 16), (112, 8, 8), (320, 4, 4)]
    middle = crop.seen[0][0, 0]
    torch.testing.assert_close(middle, -middle.flip(0), atol=0.03, rtol=0)
    assert crop.follows


def test_in_pairs_of_former_versions_no_place_shows_the_same_in_the_same_light(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    kept(path)
    with safetensors.safe_open(path, framework="pt") as file:
        about = file.metadata()
    state = safetensors.torch.load_file(path)
    state["opinion"] = state["opinion"][:4].contiguous()
    former = tmp_path / "former.safetensors"
    safetensors.torch.save_file(state, former, about)
    new, old = read_crop(path, 64, None), read_crop(former, 64, None)
    torch.testing.assert_close(old.opinion[:4], new.opinion[:4])
    guide = guide_of(*(x[None] for x in (old.chroma, old.confidence, old.opinion)), [x[None] for x in old.seen])
    assert guide.difference is not None
    torch.testing.assert_close(guide.difference, torch.ones(1, 1, 64, 64))


def test_crops_from_anywhere_are_mirrored_in_all_their_parts(tmp_path: Path) -> None:
    kept(tmp_path / "p.safetensors")
    directions = set()
    for seed in range(8):
        crop = read_crop(tmp_path / "p.safetensors", 64, np.random.default_rng(seed))
        assert (color.rgb_to_lab(crop.truth)[1:] - crop.chroma).abs().max() < 1.5
        rises = bool(crop.confidence[0, 0, -1] > crop.confidence[0, 0, 0])
        assert rises == bool(crop.seen[0][0, 0, -1] > crop.seen[0][0, 0, 0])
        directions.add(rises)
    assert directions == {True, False}


def test_narrow_pictures_are_extended_by_their_reflection(tmp_path: Path) -> None:
    kept(tmp_path / "p.safetensors", height=96, width=48)
    crop = read_crop(tmp_path / "p.safetensors", 64, None)
    assert crop.truth.shape == (3, 64, 64)
    assert torch.equal(crop.truth[:, :, 48], crop.truth[:, :, 46])


def test_a_file_that_is_no_pair_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"p\.safetensors"):
        read_crop(tmp_path / "p.safetensors", 64, None)


def test_batches_go_on_where_they_were_though_the_folder_has_grown(tmp_path: Path) -> None:
    for index in range(4):
        pair_file(tmp_path, index).touch()
    counted = CountedPairs(tmp_path, every=3)
    drawn = list(islice(iter(EndlessBatches(counted, 2, seed=5)), 3))
    for index in range(4, 40):
        pair_file(tmp_path, index).touch()
    drawn += islice(iter(EndlessBatches(counted, 2, seed=5, first=3)), 4)
    assert counted.counts == {0: 4, 3: 40, 6: 40}
    assert max(draw.photograph for batch in drawn[:3] for draw in batch) < 4
    assert max(draw.photograph for batch in drawn[3:] for draw in batch) >= 4
    pair_file(tmp_path, 40).touch()
    resumed = CountedPairs(tmp_path, every=3)
    resumed.counts = counted.until(6)
    assert resumed.counts == {0: 4, 3: 40}
    assert list(islice(iter(EndlessBatches(resumed, 2, seed=5, first=2)), 4)) == drawn[2:6]


def test_devices_share_the_pairs_of_a_batch(tmp_path: Path) -> None:
    for index in range(12):
        pair_file(tmp_path, index).touch()
    one, *two = (
        next(iter(EndlessBatches(CountedPairs(tmp_path, every=3), size, 5, 0, rank, devices)))
        for size, rank, devices in ((6, 0, 1), (3, 0, 2), (3, 1, 2))
    )
    assert two[0] + two[1] == one
    assert len({draw.photograph for draw in one}) == 6


def test_a_gap_ends_the_count(tmp_path: Path) -> None:
    for index in (0, 1, 3):
        pair_file(tmp_path, index).touch()
    assert CountedPairs(tmp_path, every=10).at(0) == 2


def test_mixing_changes_the_chroma_of_its_rows_alone(tmp_path: Path) -> None:
    pictures = color.lab_to_rgb(torch.tensor([60.0, 10.0, 5.0]).view(1, 3, 1, 1).repeat(2, 1, 8, 8))
    turned = torch.stack([torch.eye(2), -torch.eye(2)])
    result = mix_chroma(pictures, turned)
    assert torch.equal(result[0], pictures[0])
    lab = color.rgb_to_lab(result[1]).mean(dim=(1, 2))
    torch.testing.assert_close(lab, torch.tensor([60.0, -10.0, -5.0]), atol=0.1, rtol=0)


def test_mistakes_are_made_in_a_part_and_lower_its_confidence() -> None:
    places = torch.arange(64.0).expand(1, 2, 64, 64).repeat(6, 1, 1, 1)
    sure = torch.ones(6, 1, 64, 64)
    chroma, confidence = add_mistakes(places, sure, range(6), 1.0)
    changed = ((chroma - places).abs() > 1).any(dim=1).flatten(1).float().mean(dim=1)
    assert changed.gt(0).all()
    assert changed.lt(0.6).all()
    assert confidence.min() < 0.9
    assert (confidence[((chroma - places).abs() < 1e-6).all(dim=1, keepdim=True)] > 0.95).all()
    same, sure_still = add_mistakes(places, sure, range(6), 0.0)
    assert torch.equal(same, places)
    assert torch.equal(sure_still, sure)


def test_a_training_batch_keeps_truth_and_guide_together(tmp_path: Path) -> None:
    from torch.utils.data import default_collate

    for index, kind in enumerate(("warped", "partial", "warped", "warped")):
        kept(pair_file(tmp_path, index), kind=kind, seed=index)
    data = kept_data(tmp_path, 4, recolour=1.0)
    crops = [read_crop(pair_file(tmp_path, index), 64, None, seed=index) for index in range(4)]
    batch = data.on_after_batch_transfer(KeptCrop(*default_collate(crops)), 0)
    assert batch.guide is not None
    lab = color.rgb_to_lab((batch.pairs.truth + 1) / 2)
    inside = ((batch.pairs.truth > -0.98) & (batch.pairs.truth < 0.98)).all(dim=1, keepdim=True)
    error = (lab[:, 1:] - batch.guide.chroma).abs() * inside
    assert error.quantile(0.99) < 2.5
    assert torch.equal(batch.pairs.truth[1], crops[1].truth * 2 - 1)  # its reference does not tell all
    assert not torch.equal(batch.pairs.truth[0], crops[0].truth * 2 - 1)
    torch.testing.assert_close(batch.guide.hints[:, :2] * 100, batch.guide.chroma)


def test_a_training_pair_has_the_colours_that_the_prior_of_its_number_expects(tmp_path: Path) -> None:
    from torch.utils.data import default_collate

    for name, warm in (("even", 10.0), ("odd", 20.0)):
        network = InformedPDNLA(load_backbone(), channel=4, learned=False)
        assert network.prior is not None
        network.prior.given.bias[0] = warm / 50
        save_weights(network, tmp_path / f"{name}.safetensors", "a test")
    for index in range(4):
        kept(pair_file(tmp_path, index), seed=index)
    data = kept_data(tmp_path, 4, priors=[str(tmp_path / f"{name}.safetensors") for name in ("even", "odd")])
    crops = [data.train_dataloader().dataset[Draw(number, 0)] for number in (2, 3, 1)]
    guide = data.on_after_batch_transfer(KeptCrop(*default_collate(crops)), 0).guide
    assert guide is not None
    assert guide.expected is not None
    assert guide.expected.chroma.shape == (3, 2, 8, 8)
    torch.testing.assert_close(guide.expected.chroma.mean(dim=(2, 3))[:, 0], torch.tensor([10.0, 20.0, 20.0]))
    rows = guide.rows(torch.tensor([True, False, True]))
    assert rows.expected is not None
    torch.testing.assert_close(rows.expected.chroma[:, 0, 0, 0], torch.tensor([10.0, 20.0]))


def test_weights_without_a_prior_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.priors: pdnla_tiny"):
        kept_data(tmp_path, 4, priors=["pdnla_tiny"])


def test_a_narrow_picture_is_reflected_as_often_as_needed(tmp_path: Path) -> None:
    kept(tmp_path / "p.safetensors", height=32, width=160)
    crop = read_crop(tmp_path / "p.safetensors", 128, None)
    assert crop.truth.shape == (3, 128, 128)
    torch.testing.assert_close(crop.truth[:, 31:63], crop.truth[:, :32].flip(1))
    torch.testing.assert_close(crop.truth[:, 62:94], crop.truth[:, :32])
    with pytest.raises(UserError, match=r"data\.size=272"):
        KeptPairData(str(tmp_path), 1, 272, 0, 0, 8, 2, 0.0, 0.0, 0.0, "efficientnet_lite0")


def test_a_damaged_pair_is_named(tmp_path: Path) -> None:
    kept(tmp_path / "p.safetensors", kind="beside")
    assert kind_and_size(tmp_path / "p.safetensors") == ("side_by_side", (96, 128))
    whole = (tmp_path / "p.safetensors").read_bytes()
    (tmp_path / "p.safetensors").write_bytes(whole[:1000])
    for read in (kind_and_size, lambda path: read_crop(path, 64, None)):
        with pytest.raises(UserError, match=r"p\.safetensors: is no kept pair"):
            read(tmp_path / "p.safetensors")


def test_priors_without_use_and_other_precisions_are_refused(tmp_path: Path) -> None:
    for index in range(2):
        for folder in (tmp_path, tmp_path / "validation"):
            kept(pair_file(folder, index), seed=index)
    network = InformedPDNLA(load_backbone(), channel=4, learned=False)
    save_weights(network, tmp_path / "w.safetensors", "a test")
    data = kept_data(tmp_path, 2, priors=[str(tmp_path / "w.safetensors")])
    module = SimpleNamespace(network=network)
    for devices, precision, said in ((1, "32-true", r"data\.priors"), (1, "64-true", "64-true"), (2, "32-true", "4")):
        trainer = SimpleNamespace(world_size=devices, global_rank=0, precision=precision, lightning_module=module)
        data.trainer = trainer  # type: ignore[assignment]
        with pytest.raises(UserError, match=said):
            data.setup()
        data.priors = []


def test_too_few_pairs_are_refused(tmp_path: Path) -> None:
    kept(pair_file(tmp_path, 0))
    with pytest.raises(UserError, match="keep_pairs"):
        kept_data(tmp_path, 2).setup()
    with pytest.raises(UserError, match="validation"):
        kept_data(tmp_path, 1).setup()


@pytest.mark.slow
def test_the_command_keeps_pairs_matched_with_a_metric_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs, names = tmp_path / "photographs", ("astronaut", "chelsea", "coffee", "rocket")
    for folder in ("one", "two"):
        (photographs / folder).mkdir(parents=True)
        for name in names:
            Image.fromarray(getattr(skimage.data, name)()).resize((96, 80)).save(photographs / folder / f"{name}.png")
    network = SemanticWarp(load_backbone(), learned=True)
    assert network.correspondence.metric is not None
    torch.manual_seed(0)
    torch.nn.init.normal_(network.correspondence.metric.up, std=0.5)
    save_weights(network, tmp_path / "metric.safetensors", "a test")
    monkeypatch.setattr(keep_pairs, "SIDES", {64: 1.0, 288: 0.0})

    def run(folder: str, *more: str) -> list[KeptCrop]:
        counts = ["--count", "4", "--validation", "1", *more]
        typed = ["keep_pairs.py", str(tmp_path / folder), "--roots", str(photographs), *counts]
        monkeypatch.setattr(sys, "argv", typed)
        keep_pairs.main()
        assert pair_file(tmp_path / folder / "validation", 0).exists()
        return [read_crop(pair_file(tmp_path / folder, index), 64, None, seed=0) for index in range(4)]

    one = run("one", "--weights", str(tmp_path / "metric.safetensors"))
    before = pair_file(tmp_path / "one", 0).stat().st_mtime_ns
    run("one", "--weights", str(tmp_path / "metric.safetensors"))
    assert pair_file(tmp_path / "one", 0).stat().st_mtime_ns == before  # what is kept is not made again
    other = run("other", "--weights", "semantic_warp")
    assert all(torch.equal(mine.truth, theirs.truth) for mine, theirs in zip(one, other, strict=True))
    # The metric matches other places, where a reference is not so unsuitable that both results are grey.
    assert not all(torch.equal(mine.chroma, theirs.chroma) for mine, theirs in zip(one, other, strict=True))
    with pytest.raises(SystemExit) as stopped:
        command.run("keep_pairs.py", lambda: run("wrong", "--weights", "pdnla_tiny") and 0)
    assert stopped.value.code == 2
    with pytest.raises(SystemExit) as stopped:
        run("wrong", "--part", "2/2")
    assert stopped.value.code == 2
    assert "--weights pdnla_tiny: has no correspondence" in capsys.readouterr().err


def test_the_earlier_name_of_a_kind_is_read(tmp_path: Path) -> None:
    for kind, follows in {"beside": True, "side_by_side": True, "partial": False}.items():
        kept(tmp_path / kind, kind=kind)
        assert read_crop(tmp_path / kind, 64, None).follows is follows
