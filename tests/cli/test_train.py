"""``pdnla-train``: every configuration composes, mistakes get one sentence, a run leaves what it promises."""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from pdnla import PDNLA, load_network
from pdnla.configuration import config_folder
from pdnla.training.resuming import keep_metrics
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


@pytest.mark.parametrize(("name", "channel"), [("pdnla", 32), ("pdnla_small", 16), ("pdnla_tiny", 8)])
def test_models_have_their_widths(name: str, channel: int) -> None:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [f"model={name}"])
    assert config.model.channel == channel
    assert isinstance(instantiate(config.model, channel=4), PDNLA)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, train_in: Callable[[list[str], Path], int]) -> Path:
    """The folder of a run with every logger."""
    folder = tmp_path_factory.mktemp("run")
    loggers = ["logger=[csv,tensorboard,wandb]", "logger.wandb.offline=true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_SILENT", "true")
        assert train_in([*FAST, *loggers, "hydra.run.dir=one"], folder) == 0
    return folder / "one"


@pytest.mark.slow
def test_a_run_leaves_its_record_pictures_result_and_a_checkpoint(run: Path) -> None:
    config = (run / "config.yaml").read_text()
    assert config.startswith("# pdnla ")
    assert yaml.safe_load(config)["model"]["channel"] == 4
    assert (run / "metrics.csv").exists()
    assert (run / "pictures" / "step_0000002.png").exists()
    assert load_network(run / "last.ckpt").channel == 4
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["number"], result["step"]) == ("done", None, 2)
    assert result["objective"] == result["measures"]["val/chroma_error"] > 0


@pytest.mark.slow
def test_tensorboard_and_wandb_get_numbers_and_pictures(run: Path) -> None:
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))
    (record,) = run.rglob("run-*.wandb")
    assert b"val/chroma_error" in record.read_bytes()
    assert list(run.rglob("media/images/**/*.png"))


@pytest.mark.slow
def test_a_run_goes_on_from_a_checkpoint_and_starts_from_its_weights(run: Path, tmp_path: Path, train: Train) -> None:
    again = [*FAST, "hydra.run.dir=two", f"ckpt_path={run / 'last.ckpt'}", "trainer.max_steps=3"]
    assert train(again) == 0
    assert torch.load(tmp_path / "two" / "last.ckpt", weights_only=True)["global_step"] == 3
    started = [*FAST, "hydra.run.dir=three", f"weights={run / 'last.ckpt'}", "logger=none", "trainer.max_steps=1"]
    assert train(started) == 0
    assert not (tmp_path / "three" / "metrics.csv").exists()


@pytest.mark.slow
def test_a_run_that_had_its_time_says_so_and_is_not_resumed_without_more(
    run: Path, tmp_path: Path, train: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    timed = [*FAST, "trainer.max_steps=2000", "trainer.val_check_interval=1000", "logger=none"]
    assert train([*timed, "trainer.max_time=00:00:00:01", "hydra.run.dir=two"]) == 0
    assert "trainer.max_time=00:00:00:01 is over after" in capfd.readouterr().out
    last = tmp_path / "two" / "last.ckpt"
    had = torch.load(last, weights_only=True)["global_step"]
    resumed = [*timed, f"ckpt_path={last}", "hydra.run.dir=three"]
    assert train([*resumed, "trainer.max_time=00:00:00:01"]) == 2
    assert re.search(r"trainer\.max_time: the run of \S+ has used \d+ of its 1 seconds", capfd.readouterr().err)
    assert train([*resumed, "trainer.max_time=00:01:00:00", f"trainer.max_steps={had + 1}"]) == 0
    assert torch.load(tmp_path / "three" / "last.ckpt", weights_only=True)["global_step"] == had + 1


@pytest.mark.slow
def test_a_run_without_a_last_step_says_that_its_learning_rate_does_not_fall(
    train: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    endless = ["trainer.max_steps=-1", "+trainer.limit_train_batches=1", "trainer.max_epochs=1", "logger=none"]
    assert train([*FAST, *endless, "hydra.run.dir=run"]) == 0
    assert "trainer.max_steps=-1: without a last step, the learning rates do not decay" in capfd.readouterr().out


def test_runs_that_begin_together_have_folders_of_their_own(tmp_path: Path, train: Train) -> None:
    for _ in range(3):
        assert train([*FAST, "data.size=40"]) == 2
    assert len(list((tmp_path / "runs" / "pdnla_tiny").iterdir())) == 3


BAD = [
    (["optm.lr=1"], "optm.lr is not an option; the nearest is optim.lr"),
    (["optim.lrr=1"], "optim.lrr is not an option; the nearest is optim.lr"),
    (["trainer.max_step=1"], "trainer.max_step is not an option; the nearest is trainer.max_steps"),
    (
        ["model=pdnla_tinny"],
        "model=pdnla_tinny does not exist; model can be pdnla, pdnla_informed, pdnla_semantic, pdnla_small, pdnla_t",
    ),
    (["weights=semantic_warp"], "weights=semantic_warp: holds semantic_warp, which has no trained weights"),
    (
        ["weights=pdnla_semantic"],
        "weights=pdnla_semantic: holds pdnla_semantic and the model is pdnla; choose the same",
    ),
    (["modle=pdnla"], "modle is not an option; the nearest is model"),
    (["data=folder"], "data.root is not set and has no default; add data.root=... to the command"),
    (["data=folder", "data.root=absent"], "absent: there is no such folder"),
    (["data=folder", "data.root=empty"], "empty: holds no image"),
    (["data.batch_size=1000"], "data.batch_size=1000 on 1 device(s) is more than the"),
    (["data.size=40"], "data.size=40: must be a multiple of 16"),
    (["trainer=gpu", "trainer.devices=9"], "trainer: "),
    (["model.channel=5"], "channel must be an even number of at least 4, not 5"),
    (["weights=w6.safetensors"], "has channel 6 and the model 4"),
    (["ckpt_path=w6.safetensors"], "holds only weights; use weights=w6.safetensors"),
    (["ckpt_path=absent.ckpt"], "absent.ckpt: there is no such weights file"),
    (["loss.weights.chroma=x"], "loss.weights.chroma=x: must be a number of at least 0"),
    (["loss.weights.chrome=1"], "loss.weights.chrome is not an option; the nearest is loss.weights.chroma"),
    (["logger=wandb", "logger.offline=true"], "logger.offline is not an option; the nearest is logger.wandb.offline"),
    (["optim.lr="], "optim.lr=: must be a number above 0"),
    (["data.batch_size=4.5"], "data.batch_size=4.5: must be a whole number of at least 1"),
    (["trainer.precision=16-mixed"], "trainer.precision=16-mixed: must be auto, 32-true, bf16-mixed, bf16-true or 64"),
    (["weights=epoch=3.ckpt"], """has characters that Hydra reserves; type 'weights="epoch=3.ckpt"'"""),
    (["weights=my (1).ckpt"], """type 'weights="my (1).ckpt"'"""),
    (["data=folder", "data.root=caf\u00e9"], """type 'data.root="caf\u00e9"'"""),
    (["data=folder", "data.root=it's"], """type 'data.root="it'"'"'s"'"""),
    (["data=folder", "data.root=a,b"], """has a comma; type 'data.root="a,b"' for one value, or add -m"""),
    (["data=folder", 'data.root="caf\u00e9 (1), x=y"'], "caf\u00e9 (1), x=y: there is no such folder"),
    (["backbone=none", "data.unpaired_fraction=0.5"], "backbone none is not known; use efficientnet_lite0 or vgg19"),
    (["a b"], "see pdnla-train --help"),
]


@pytest.mark.slow
def test_a_home_folder_is_expanded(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for written, read in (
        ("data.root=~/photographs", "photographs"),
        ('data.root="~/my photographs"', "my photographs"),
        ("data.root=~", ""),
    ):
        assert train([*FAST, "data=folder", written]) == 2
        assert f"{tmp_path / 'home' / read}: there is no such folder" in capfd.readouterr().err
    sweep = ["-m", *FAST, "data=folder", "data.root=~/one,~/two", "hydra.sweep.dir=~/sweep"]
    assert train(sweep) == 1
    results = (tmp_path / "home" / "sweep" / "results.csv").read_text()
    assert f"{tmp_path}/home/one" in results
    assert f"{tmp_path}/home/two" in results


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w6.safetensors"
    save_weights(PDNLA(6), path, "a test")
    return path


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_mistakes_get_one_sentence_and_status_2(
    arguments: list[str],
    sentence: str,
    other_weights: Path,
    tmp_path: Path,
    train: Train,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "w6.safetensors").symlink_to(other_weights)
    changed = {override.split("=")[0] for override in arguments}
    kept = [override for override in FAST if override.split("=")[0] not in changed]
    assert train([*kept, *arguments]) == 2
    errors = capfd.readouterr().err
    last = errors.strip().splitlines()[-1]
    assert last.startswith("pdnla-train: ")
    assert sentence in last
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "said",
    [
        "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers are out of"
        " shared memory. Please try to raise your shared memory limit.",
        "unable to write to file </torch_12_34_0>: No space left on device (28)",
    ],
)
def test_too_little_shared_memory_names_the_workers(
    said: str, train: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import pytorch_lightning as pl

    def short(*_arguments: object, **_options: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(pl.Trainer, "fit", short)
    assert train([*FAST, "hydra.run.dir=run"]) == 2
    assert "data.workers: the processes that read photographs have too little shared memory" in capfd.readouterr().err


def test_the_command_starts_and_helps_without_torch(tmp_path: Path) -> None:
    imported = "import sys, pdnla.cli.train; sys.exit('torch' in sys.modules or 'pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", imported], cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_a_full_disk_ends_a_run_with_one_sentence(
    train: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import pytorch_lightning as pl

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device", "last.ckpt")

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", full)
    assert train([*FAST, "hydra.run.dir=run"]) == 2
    assert "the disk is full; free some space" in capfd.readouterr().err


@pytest.mark.slow
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
    noise = [Image.effect_noise((48, 32), 60) for _ in "RGB"]
    noise[0].save(empty / "old.png")
    Image.merge("RGB", noise).save(empty / "reference.png")
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
