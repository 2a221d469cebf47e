"""What a run tells W&B, read from an offline run's own record; and where pixels look."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from torch import nn
from wandb.proto import wandb_internal_pb2

from pdnla import PDNLA, load_network
from pdnla.data.modules import BuiltinData
from pdnla.data.pseudo_pairs import PseudoPairs
from pdnla.losses import AdversarialLoss, ChromaLoss, HybridLoss, PixelLoss
from pdnla.losses.critics import ImageCritic
from pdnla.network.attention_maps import GRID, attention_maps
from pdnla.training.module import ColorizationModule
from pdnla.training.wandb_report import PIXELS, WandbReport, as_pixels, attention_strips

BLOCK = 32768  # of the record's log: LevelDB's format


def records(file: Path) -> Iterator[wandb_internal_pb2.Record]:
    """Read a ``.wandb`` file: a heading of 7 bytes, then records in pieces of (checksum, length, kind)."""
    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        if kind == 0 or place + 7 + length > len(content):
            break
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An offline run of four steps with a validation after each second."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"channel": 4}, "seed": 17}))
    torch.manual_seed(0)
    terms = {"pixel": PixelLoss(), "chroma": ChromaLoss(), "adversarial": AdversarialLoss(ImageCritic(4, 3))}
    module = ColorizationModule(
        PDNLA(4),
        HybridLoss(terms, {"pixel": 1.0, "chroma": 2.0, "adversarial": 0.5}),
        lambda groups: torch.optim.Adam(groups, 1e-3),
        steps=4,
        critic_optimizer=lambda groups: torch.optim.Adam(groups, 1e-3),
    )
    logger = WandbLogger(name="short", project="pdnla", save_dir=folder, offline=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=4,
        max_epochs=-1,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=logger,
        callbacks=[
            ModelCheckpoint(folder, "best_{step:07d}", "val/chroma_error", auto_insert_metric_name=False),
            WandbReport(str(folder), rows=2),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data = BuiltinData(
        batch_size=4,
        size=32,
        pairs=PseudoPairs(),
        seed=0,
        workers=0,
        validation_count=2,
        repeats=4,
        unpaired_fraction=0.0,
        pairing="random",
    )
    trainer.fit(module, datamodule=data)
    logger.experiment.finish()
    return folder


@pytest.fixture(scope="module")
def record(run: Path) -> list[wandb_internal_pb2.Record]:
    """Return the record once it is whole: W&B's own process may write its end after ``finish`` returns."""
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    patience = time.monotonic() + 120
    while time.monotonic() < patience:
        actual = list(records(file))
        if any(entry.HasField("exit") for entry in actual):
            return actual
        time.sleep(0.2)
    raise AssertionError(f"{file} ({file.stat().st_size} bytes) has no end")


def history(record: list[wandb_internal_pb2.Record]) -> dict[str, list[object]]:
    actual: dict[str, list[object]] = {}
    for entry in record:
        for item in entry.history.item:
            name = item.key or "/".join(item.nested_key)
            actual.setdefault(name, []).append(json.loads(item.value_json))
    return actual


@pytest.mark.slow
def test_every_term_score_rate_and_measure_is_in_the_record(record: list[wandb_internal_pb2.Record]) -> None:
    actual = history(record)
    once_a_step = [
        *(f"train/loss/{name}" for name in ("total", "pixel", "chroma", "adversarial")),
        *(f"train/weighted/{name}" for name in ("pixel", "chroma", "adversarial")),
        *(f"critics/adversarial/{name}" for name in ("real", "fake", "loss", "gradient_norm", "lr")),
        *("train/lr", "train/gradient_norm", "train/skipped_steps"),
        *("perf/images_per_second", "perf/memory_gb"),
    ]
    for name in once_a_step:
        assert len(actual[name]) == 4, name
    for name in ("psnr", "ssim", "ciede2000", "chroma_error"):
        assert len(actual[f"val/{name}"]) == len(actual[f"val/grey/{name}"]) == 2
    assert actual["train/weighted/chroma"] == pytest.approx([2 * v for v in actual["train/loss/chroma"]])  # type: ignore[operator]


def test_names_are_in_a_few_readable_groups(record: list[wandb_internal_pb2.Record]) -> None:
    groups = {name.split("/")[0] for name in history(record) if not name.startswith("_")}
    assert groups <= {"train", "val", "critics", "perf", "data", "epoch", "trainer"}


@pytest.mark.slow
def test_tables_hold_the_five_pictures_of_each_pair(run: Path, record: list[wandb_internal_pb2.Record]) -> None:
    actual = history(record)
    assert actual["val/table/ncols"] == [6, 6]
    assert actual["val/table/nrows"] == [2, 2]
    (files,) = run.glob("wandb/offline-run-*/files")
    content = json.loads((files / str(actual["val/table/path"][-1])).read_text())
    assert content["columns"] == ["target", "reference", "mid", "out", "truth", "chroma_error"]
    assert all(row[5] > 0 for row in content["data"])
    # The pictures themselves travel in the table's artifact.
    tables = [entry.artifact for entry in record if entry.artifact.type == "run_table"]
    for table in tables:
        pictures = [entry for entry in table.manifest.contents if entry.path.endswith(".png")]
        assert len(pictures) == 2 * 5
        assert all(Image.open(entry.local_path).size == (32, 32) for entry in pictures)


def test_attention_is_shown_for_each_pair(record: list[wandb_internal_pb2.Record]) -> None:
    actual = history(record)
    assert actual["val/attention/count"] == [2, 2]
    assert actual["val/attention/width"] == [32 * (1 + len(PIXELS))] * 2


def test_the_configuration_is_in_the_record(record: list[wandb_internal_pb2.Record]) -> None:
    values = {
        (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
        for entry in record
        for item in [*entry.config.update, *entry.run.config.update]
    }
    assert values["seed"] == 17
    assert values["model"] == {"channel": 4}


def test_the_best_checkpoint_is_an_artifact_named_by_its_measures(
    run: Path, record: list[wandb_internal_pb2.Record]
) -> None:
    artifacts = [
        entry.request.log_artifact.artifact if entry.request.HasField("log_artifact") else entry.artifact
        for entry in record
        if entry.HasField("artifact") or entry.request.HasField("log_artifact")
    ]
    (model,) = [artifact for artifact in artifacts if artifact.type == "model"]
    (best,) = run.glob("best_*.ckpt")
    assert "best" in model.aliases
    assert f"step_{int(best.stem.rpartition('_')[2])}" in model.aliases
    assert any(alias.startswith("chroma_error_") for alias in model.aliases)
    load_network(best)


# Where pixels look


@pytest.fixture(scope="module")
def pictures() -> tuple[PDNLA, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return PDNLA(4).eval(), torch.rand(2, 1, 48, 64).expand(-1, 3, -1, -1) * 2 - 1, torch.rand(2, 3, 64, 32) * 2 - 1


def test_attention_maps_are_distributions_over_the_reference(
    pictures: tuple[PDNLA, torch.Tensor, torch.Tensor],
) -> None:
    pixels = torch.rand(2, 5, 2)
    for level in range(4):
        maps = attention_maps(*pictures, pixels, level)
        assert maps.shape == (2, 5, GRID, GRID)
        assert torch.allclose(maps.sum(dim=(2, 3)), torch.ones(2, 5), atol=1e-5)
        assert maps.min() >= 0


def test_a_pixel_that_attends_to_one_position_looks_at_its_cell(
    pictures: tuple[PDNLA, torch.Tensor, torch.Tensor],
) -> None:
    net, target, reference = pictures
    branch = net.decoder.fusions[3].to_reference
    place = 1 + 9 + 36 + 8 * 2 + 5  # row 2, column 5 of the grid of 8
    queries: list[torch.Tensor] = []

    def only_place(_module: nn.Module, _inputs: object, keys: torch.Tensor) -> torch.Tensor:
        chosen = torch.zeros_like(keys)
        chosen[:, place] = 1e6 * queries[0][:, :, 10, 20]
        return chosen

    with torch.no_grad():
        hooks = [branch.query.register_forward_hook(lambda _m, _i, out: queries.append(out))]
        net.stages(target, reference)
        hooks += [key.register_forward_hook(only_place) for key in branch.keys]
        maps = attention_maps(net, target, reference, torch.tensor([[[20.5 / 32, 10.5 / 24]]] * 2))
    for hook in hooks:
        hook.remove()
    expected = torch.zeros(GRID, GRID)
    expected[6:9, 15:18] = 1 / 9
    assert torch.allclose(maps[:, 0], expected.expand(2, -1, -1), atol=1e-4)


def test_strips_mark_the_pixels_and_keep_the_reference_where_attention_is_highest(
    pictures: tuple[PDNLA, torch.Tensor, torch.Tensor],
) -> None:
    net, target, reference = pictures
    reference = reference[:, :, :48].repeat(1, 1, 1, 2)
    strips = attention_strips(net, target, reference)
    assert strips.shape == (2, 3, 48, 64 * 4)
    assert as_pixels(strips[0])[24, 32].tolist() == [255, 0, 255]
    observed = strips[:, :, :, 64:]
    assert (observed <= reference.repeat(1, 1, 1, 3) + 1e-4).all()
