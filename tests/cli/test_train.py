"""``pdnla-train``: every configuration composes, mistakes get one sentence, a run leaves what it promises."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from pdnla import PDNLA, load_network
from pdnla.cli.train import config_folder, keep_metrics
from pdnla.weights import save_weights

Train = Callable[[list[str]], int]

FAST = [
    "model=pdnla_tiny",
    "model.channel=4",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.enable_progress_bar=false",
    "data.size=32",
    "data.batch_size=2",
    "data.workers=0",
]


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


GROUPS = ("model", "data", "loss", "optim", "trainer", "logger", "callbacks", "experiment")
CHOICES = list(chain.from_iterable([f"{group}={name}" for name in options(group)] for group in GROUPS))


@pytest.mark.parametrize("choice", CHOICES)
def test_every_configuration_composes(choice: str) -> None:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [choice])
    for part in ("model", "loss", "optim", "data", "trainer", "callbacks"):
        assert config[part]


@pytest.mark.parametrize(("name", "channel"), [("pdnla", 32), ("pdnla_small", 16), ("pdnla_tiny", 8)])
def test_models_have_their_widths(name: str, channel: int) -> None:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [f"model={name}"])
    assert config.model.channel == channel
    assert isinstance(instantiate(config.model, channel=4), PDNLA)


def test_a_run_leaves_its_record_pictures_and_a_checkpoint_that_resumes(tmp_path: Path, train: Train) -> None:
    assert train([*FAST, "hydra.run.dir=one"]) == 0
    run = tmp_path / "one"
    config = (run / "config.yaml").read_text()
    assert config.startswith("# pdnla ")
    assert yaml.safe_load(config)["model"]["channel"] == 4
    assert (run / "metrics.csv").exists()
    assert (run / "pictures" / "step_0000002.png").exists()
    assert load_network(run / "last.ckpt").channel == 4

    again = [*FAST, "hydra.run.dir=two", f"ckpt_path={run / 'last.ckpt'}", "trainer.max_steps=3"]
    assert train(again) == 0

    started = [*FAST, "hydra.run.dir=three", f"weights={run / 'last.ckpt'}", "logger=none"]
    assert train(started) == 0
    assert not (tmp_path / "three" / "metrics.csv").exists()


def test_a_sweep_runs_each_combination(tmp_path: Path, train: Train) -> None:
    sweep = ["-m", *FAST, "optim.lr=1e-3,5e-4", "hydra.sweep.dir=sweep"]
    assert train(sweep) == 0
    rates = [
        yaml.safe_load((tmp_path / "sweep" / run / "config.yaml").read_text())["optim"]["lr"] for run in ("0", "1")
    ]
    assert [float(rate) for rate in rates] == [1e-3, 5e-4]


def test_tensorboard_gets_numbers_and_pictures(tmp_path: Path, train: Train) -> None:
    assert train([*FAST, "hydra.run.dir=run", "logger=tensorboard"]) == 0
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*"))


def test_wandb_records_offline(tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    arguments = [*FAST, "hydra.run.dir=run", "logger=wandb", "logger.offline=true"]
    assert train(arguments) == 0
    (record,) = (tmp_path / "run").rglob("run-*.wandb")
    content = record.read_bytes()
    assert b"val/chroma_error" in content
    assert list((tmp_path / "run").rglob("media/images/**/*.png"))


BAD = [
    (["optm.lr=1"], "optm.lr is no option; the nearest is optim.lr"),
    (["optim.lrr=1"], "optim.lrr is no option; the nearest is optim.lr"),
    (["trainer.max_step=1"], "trainer.max_step is no option; the nearest is trainer.max_steps"),
    (
        ["model=pdnla_tinny"],
        "model=pdnla_tinny does not exist; model can be pdnla, pdnla_informed, pdnla_semantic, pdnla_small, pdnla_t",
    ),
    (["weights=default"], "weights=default: holds semantic_warp, in which nothing is trained"),
    (
        ["weights=pdnla_semantic"],
        "weights=pdnla_semantic: holds pdnla_semantic and the model is pdnla; choose the same",
    ),
    (["modle=pdnla"], "modle is no option; the nearest is model"),
    (["data=folder"], "data.root is not set and has no default; add data.root=... to the command"),
    (["data=folder", "data.root=absent"], "absent: there is no such folder"),
    (["data=folder", "data.root=empty"], "empty: holds no image"),
    (["data.batch_size=1000"], "data.batch_size=1000 on 1 device(s) is more than the"),
    (["data.size=40"], "data.size=40: must be a multiple of 16"),
    (["trainer=gpu", "trainer.devices=9"], "trainer: "),
    (["model.channel=5"], "channel must be an even number of at least 4, not 5"),
    (["weights=w6.safetensors"], "has channel 6 and the model 4"),
    (["ckpt_path=w6.safetensors"], "holds weights alone; use weights=w6.safetensors"),
    (["ckpt_path=absent.ckpt"], "absent.ckpt: there is no such weights file"),
    (["loss.weights.chroma=x"], "loss.weights.chroma=x: must be a number, such as 4.0"),
    (["optim.lr="], "optim.lr=: must be a number, such as 0.001"),
    (["backbone=none", "data.unpaired_fraction=0.5"], "backbone none is not known; use efficientnet_lite0 or vgg19"),
    (["a b"], "see pdnla-train --help"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_mistakes_get_one_sentence_and_status_2(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    train: Train,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    save_weights(PDNLA(6), tmp_path / "w6.safetensors", "a test")
    changed = {override.split("=")[0] for override in arguments}
    kept = [override for override in FAST if override.split("=")[0] not in changed]
    assert train([*kept, *arguments]) == 2
    errors = capfd.readouterr().err
    last = errors.strip().splitlines()[-1]
    assert last.startswith("pdnla-train: ")
    assert sentence in last
    assert "Traceback" not in errors


def test_a_full_disk_ends_a_run_with_one_sentence(
    train: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import pytorch_lightning as pl

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device", "last.ckpt")

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", full)
    assert train([*FAST, "hydra.run.dir=run"]) == 2
    assert "the disk is full; free some space" in capfd.readouterr().err


def test_the_wheel_composes_its_configuration_and_colours_in_an_empty_folder(tmp_path: Path) -> None:
    project = Path(__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=project, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    shown = subprocess.run(
        [sys.executable, "-m", "pdnla.cli.train", "--cfg", "job", "model=pdnla_tiny"],
        cwd=empty,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert yaml.safe_load(shown.stdout)["model"]["channel"] == 8
    where = subprocess.run(
        [sys.executable, "-c", "import pdnla; print(pdnla.__file__)"],
        cwd=empty,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(tmp_path / "site"))
    assert not list(empty.iterdir())
    for name, mode in (("old.png", "L"), ("reference.png", "RGB")):
        Image.effect_noise((48, 32), 60).convert(mode).save(empty / name)
    colour = [sys.executable, "-c", "from pdnla.cli.colorize import main; main()"]
    for options in (["--about-weights"], ["old.png", "reference.png", "--size", "64"]):
        subprocess.run([*colour, *options], cwd=empty, env=environment, check=True)
    assert (empty / "old_colorized.png").is_file()


def test_the_metrics_of_an_earlier_part_of_a_run_are_kept(tmp_path: Path) -> None:
    for part in ("one", "two"):
        (tmp_path / "metrics.csv").write_text(part)
        keep_metrics(tmp_path)
    assert (tmp_path / "metrics_1.csv").read_text() == "one"
    assert (tmp_path / "metrics_2.csv").read_text() == "two"
    keep_metrics(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics_1.csv", "metrics_2.csv"]
