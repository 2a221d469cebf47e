"""Training: schedules and averages by their formulas, a real short run, its record, and resuming it."""

import csv
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from pdnla import PDNLA, load_network
from pdnla.data.modules import BuiltinData
from pdnla.data.pseudo_pairs import PseudoPairs
from pdnla.losses import ChromaLoss, HybridLoss, PixelLoss
from pdnla.training.ema import averaged_copy, update_average, warmed_decay
from pdnla.training.gradients import mean_over_devices
from pdnla.training.module import ColorizationModule
from pdnla.training.pictures import PictureGrid


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 1e-3, betas=(0.5, 0.99))


def make(steps: int, **options: Any) -> ColorizationModule:
    torch.manual_seed(0)
    loss = HybridLoss({"pixel": PixelLoss(), "chroma": ChromaLoss()}, {"pixel": 1.0, "chroma": 4.0})
    return ColorizationModule(PDNLA(4), loss, adam, steps=steps, **options)


def builtin() -> BuiltinData:
    return BuiltinData(
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


def test_learning_rate_rises_then_falls_linearly_to_a_two_hundredth() -> None:
    module = make(steps=1000, warmup=100)
    assert module.lr_factor(0) == pytest.approx(0.01)
    assert module.lr_factor(49) == pytest.approx(0.5 * (1 - 0.995 * 0.049))
    assert module.lr_factor(500) == pytest.approx(1 - 0.995 * 0.5)
    assert module.lr_factor(1000) == pytest.approx(1 / 200)
    assert module.lr_factor(5000) == pytest.approx(1 / 200)


def test_average_of_weights_follows_its_formula_and_takes_no_gradient() -> None:
    network = nn.Linear(2, 2)
    average = averaged_copy(network)
    before = average.weight.clone()
    with torch.no_grad():
        network.weight += 1
    update_average(average, network, 0.9)
    assert torch.allclose(average.weight, 0.9 * before + 0.1 * network.weight)
    assert not average.weight.requires_grad
    assert [warmed_decay(0.999, n) for n in (0, 8, 10**6)] == [0.1, 0.5, 0.999]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ColorizationModule]:
    """A run of 24 steps with a validation at 12 and 24."""
    folder = tmp_path_factory.mktemp("run")
    module = make(steps=24, warmup=5)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=24,
        max_epochs=-1,
        val_check_interval=12,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[
            ModelCheckpoint(folder, "last"),
            PictureGrid(str(folder / "pictures"), rows=2),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=builtin())
    return folder, module


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.slow
def test_a_short_run_learns(run: tuple[Path, ColorizationModule]) -> None:
    losses = column(run[0], "train/loss/total")
    assert len(losses) == 24
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.slow
def test_the_record_has_each_term_the_speed_and_the_grey_result_beside_ours(
    run: tuple[Path, ColorizationModule],
) -> None:
    for name in ("train/loss/pixel", "train/loss/chroma", "train/lr", "train/gradient_norm", "perf/images_per_second"):
        assert len(column(run[0], name)) == 24, name
    for name in ("psnr", "ssim", "ciede2000", "chroma_error"):
        assert len(column(run[0], f"val/{name}")) == 2
        assert len(set(column(run[0], f"val/grey/{name}"))) == 1
    ratio = column(run[0], "val/chroma_error_ratio")
    error, grey = column(run[0], "val/chroma_error"), column(run[0], "val/grey/chroma_error")
    assert ratio == pytest.approx([e / g for e, g in zip(error, grey, strict=True)], rel=1e-3)


def test_every_validation_leaves_a_picture_of_five_columns(run: tuple[Path, ColorizationModule]) -> None:
    pictures = sorted((run[0] / "pictures").iterdir())
    assert [p.name for p in pictures] == ["step_0000012.png", "step_0000024.png"]
    assert Image.open(pictures[0]).size == (5 * (32 + 4) + 4, 2 * (32 + 4) + 4)


def test_a_checkpoint_publishes_the_average(run: tuple[Path, ColorizationModule]) -> None:
    folder, module = run
    loaded = load_network(folder / "last.ckpt").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in module.ema.state_dict().items())
    assert any(not torch.equal(loaded[name], value) for name, value in module.network.state_dict().items())


def test_resuming_goes_on_with_step_optimiser_schedule_and_average(
    run: tuple[Path, ColorizationModule], tmp_path: Path
) -> None:
    folder, _ = run
    module = make(steps=24, warmup=5)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=25,
        max_epochs=-1,
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=builtin(), ckpt_path=str(folder / "last.ckpt"))
    assert trainer.global_step == 25
    optimizer = module.optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer | pl.core.optimizer.LightningOptimizer)
    assert {int(state["step"]) for state in optimizer.state.values()} == {25}
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 / 200)
    kept = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    moved = module.ema.state_dict()["refiner.stem.weight"] - kept["ema.refiner.stem.weight"]
    assert 0 < moved.abs().max() < 0.01


def trained(steps: int, folder: Path, checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
    """Train with epochs of 6 batches up to ``steps``, leave a checkpoint, and return all weights."""
    module = make(steps=20, warmup=2)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=builtin(), ckpt_path=str(checkpoint) if checkpoint else None)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return trained(10, tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [4, 6, 8])
def test_a_run_stopped_within_or_after_an_epoch_and_resumed_ends_as_one_never_stopped(
    stop: int, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    trained(stop, tmp_path)
    resumed = trained(10, tmp_path, tmp_path / f"{stop}.ckpt")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_training_without_an_end_keeps_its_learning_rate() -> None:
    module = make(steps=-1, warmup=100)
    assert module.lr_factor(0) == pytest.approx(0.01)
    assert [module.lr_factor(step) for step in (99, 1000, 10**6)] == [1.0, 1.0, 1.0]


@pytest.mark.slow
def test_figures_are_exchanged_on_the_steps_that_are_logged_alone(
    run: tuple[Path, ColorizationModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanged = []

    def counting(values: Any) -> Any:
        exchanged.append(set(values))
        return mean_over_devices(values)

    monkeypatch.setattr("pdnla.training.module.mean_over_devices", counting)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=8,
        max_epochs=-1,
        limit_val_batches=0,
        log_every_n_steps=3,
        logger=CSVLogger(tmp_path, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(make(steps=24, warmup=5), datamodule=builtin())
    assert column(tmp_path, "step") == [2, 5]
    assert len(exchanged) == 2
    for name in ("train/loss/total", "train/lr", "train/gradient_norm", "train/weighted/chroma"):
        every = column(run[0], name)
        assert column(tmp_path, name) == [every[2], every[5]]
    assert len(column(tmp_path, "perf/images_per_second")) == 2
