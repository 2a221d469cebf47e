"""Sweeps: a failed run costs the others nothing, the table tells all, a search finds what it minimises."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fork_server import python
from hydra.core.config_store import ConfigStore
from processes import start

from pdnla.processes import is_first, process_count
from pdnla.training.sweeps import read_results, write_tables

Train = Callable[[list[str]], int]

FAST = [
    "model=pdnla_tiny",
    "model.channel=4",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.max_steps=2",
    "trainer.val_check_interval=1",
    "trainer.enable_progress_bar=false",
    "data.size=32",
    "data.batch_size=2",
    "data.workers=0",
    "data.validation_count=2",
    "callbacks.pictures.rows=1",
    "hydra.sweep.dir=sweep",
]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep" / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_failed_run_is_one_line_and_the_others_are_done(
    tmp_path: Path, train: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(["-m", *FAST, "optim.lr=x,1e-3,5e-4"]) == 1
    output = capfd.readouterr()
    assert "Traceback" not in output.out + output.err
    failures = [line for line in output.out.splitlines() if "failed: optim.lr=x: must be a number" in line]
    assert len([line for line in failures if "ERROR" in line and "run 0" in line]) == 1

    actual = rows(tmp_path)
    assert [row["status"] for row in actual] == ["done", "done", "failed: optim.lr=x: must be a number above 0"]
    assert {row["optim.lr"] for row in actual[:2]} == {"0.001", "0.0005"}
    rates = [yaml.safe_load((tmp_path / "sweep" / run / "config.yaml").read_text())["optim"]["lr"] for run in "12"]
    assert rates == [1e-3, 5e-4]
    errors = [float(row["val/chroma_error"]) for row in actual[:2]]
    assert errors == sorted(errors)
    assert actual[2]["run"] == "0"
    assert actual[2]["val/chroma_error"] == ""

    table = (tmp_path / "sweep" / "results.md").read_text().splitlines()
    assert table[0] == (
        "| run | optim.lr | val/chroma_error | val/chroma_error_ratio | val/psnr | step | seconds | status |"
    )
    assert len(table) == 5
    assert "val/chroma_error_ratio" in output.out


def test_a_fault_of_ours_leaves_its_traceback_in_the_run(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import pytorch_lightning as pl

    def broken(*_arguments: Any, **_options: Any) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(pl.Trainer, "fit", broken)
    assert train(["-m", *FAST, "seed=0"]) == 1
    assert "failed: ZeroDivisionError: a fault; see " in capfd.readouterr().out
    assert "in broken" in (tmp_path / "sweep" / "0" / "traceback.txt").read_text()


def test_a_bad_run_leaves_its_reason(tmp_path: Path, train: Train) -> None:
    assert train([*FAST, "hydra.run.dir=bad", "data.size=40"]) == 2
    bad = json.loads((tmp_path / "bad" / "result.json").read_text())
    assert bad["status"].startswith("failed: data.size=40: must be a multiple of 16")
    assert bad["objective"] is None


def test_a_choice_that_does_not_exist_fails_the_whole_command(
    tmp_path: Path, train: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(["-m", *FAST, "loss=paired,absent"]) == 2
    assert "loss=absent does not exist" in capfd.readouterr().err
    assert not list(tmp_path.rglob("results.csv"))


def test_a_sweep_does_not_write_over_another(tmp_path: Path, train: Train, capfd: pytest.CaptureFixture[str]) -> None:
    earlier = tmp_path / "sweep" / "0" / "result.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text('{"number": 0, "overrides": ["seed=0"]}')
    assert train(["-m", *FAST, "seed=0,1"]) == 2
    assert "already holds the results of a sweep; choose another folder" in capfd.readouterr().err
    assert not (tmp_path / "sweep" / "1").exists()


def test_runs_of_several_models_share_the_folder_of_their_sweep(tmp_path: Path, train: Train) -> None:
    expected = [override for override in FAST if not override.startswith(("model=", "hydra."))]
    assert train(["-m", *expected, "model=pdnla_tiny,pdnla_small", "data.size=40"]) == 1  # each fails, and is told
    (file,) = tmp_path.rglob("results.csv")
    with file.open(newline="") as table:
        assert {row["model"] for row in csv.DictReader(table)} == {"pdnla_tiny", "pdnla_small"}


@pytest.mark.slow
def test_joblib_runs_a_sweep_in_two_workers(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command = [python(), "-m", "pdnla.cli.train", "-m", *FAST, *parallel, "optim.lr=1e-3,x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert [row["status"].split(":")[0] for row in rows(tmp_path)] == ["done", "failed"]


@pytest.mark.slow
def test_optuna_minimises_prunes_and_goes_on_after_a_failure(tmp_path: Path, train: Train) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = [
        "hparams_search=optuna",
        "hydra.sweeper.n_trials=4",
        "callbacks.prune.warmup_validations=0",
        "callbacks.prune.least_runs=1",
        "loss.weights.pixel=1,x",
    ]
    assert train(["-m", *FAST, *search]) == 1
    actual = rows(tmp_path)
    assert len(actual) == 4
    statuses = {row["status"].split(":")[0] for row in actual}
    assert {"done", "failed"} <= statuses <= {"done", "failed", "pruned"}
    best = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert best["best_value"] == pytest.approx(float(actual[0]["val/chroma_error"]))
    assert float(best["best_params"]["optim.lr"]) == pytest.approx(float(actual[0]["optim.lr"]))


@pytest.mark.slow
def test_a_search_in_which_every_run_failed_ends_with_the_table(
    tmp_path: Path, train: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ["hparams_search=optuna", "hydra.sweeper.n_trials=2", "data.size=40"]
    assert train(["-m", *FAST, *search]) == 1
    assert "Traceback" not in capfd.readouterr().err
    assert len(rows(tmp_path)) == 2


@pytest.mark.slow
def test_a_search_without_any_validation_says_what_it_lacks(
    tmp_path: Path, train: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ["hparams_search=optuna", "hydra.sweeper.n_trials=1", "trainer.val_check_interval=1000"]
    assert train(["-m", *FAST, *search]) == 1
    output = capfd.readouterr()
    assert "Traceback" not in output.out + output.err
    assert "none was validated; trainer.val_check_interval must be at most the number of steps" in output.out
    assert [row["status"] for row in rows(tmp_path)] == ["done"]


@pytest.mark.parametrize(
    ("group", "choice"), [("launcher", "hydra/launcher=joblib"), ("sweeper", "hparams_search=optuna")]
)
def test_a_plugin_that_is_missing_is_named_with_its_installation(
    group: str, choice: str, train: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from hydra.core.plugins import Plugins

    Plugins.instance()  # registers what is installed
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"][group], f"{choice.split('=')[1]}.yaml", raising=False)
    assert train(["-m", *FAST, choice, "seed=0,1"]) == 2
    assert 'is a plugin that is not installed; pip install "pdnla[sweeps]"' in capfd.readouterr().err


@pytest.mark.slow
def test_each_run_on_two_devices_has_processes_of_its_own(tmp_path: Path) -> None:
    output = start("pdnla-train", ["-m", *FAST, "trainer.devices=2", "weights=absent.ckpt,null"], tmp_path).finish(1)
    assert [row["status"].split(":")[0] for row in rows(tmp_path)] == ["done", "failed"]
    assert [result.number for result in read_results(tmp_path / "sweep")] == [1, 0]
    assert "Traceback" not in output
    assert yaml.safe_load((tmp_path / "sweep" / "1" / "config.yaml").read_text())["trainer"]["devices"] == 2


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_a_sweep_is_not_started_by_several_processes(
    variable: str, train: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "2")
    assert process_count() == 2
    assert train(["-m", *FAST, "seed=0,1"]) == 2
    assert "leave out torchrun or srun" in capfd.readouterr().err


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_only_the_first_process_speaks(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_first()
    monkeypatch.setenv(variable, "0")
    assert is_first()
    monkeypatch.setenv(variable, "1")
    assert not is_first()


def test_several_machines_need_a_launcher_that_has_them(tmp_path: Path, train: Train) -> None:
    assert train(["-m", *FAST, "trainer.num_nodes=2", "seed=0"]) == 1
    assert "use hydra/launcher=submitit_slurm" in rows(tmp_path)[0]["status"]


def test_a_killed_run_is_told_in_the_table(tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "0"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"number": 0, "overrides": ["seed=0", "name=a|b"], "status": "started"}')
    results = read_results(tmp_path / "sweep")
    assert [result.failed for result in results] == [True]
    write_tables(results, tmp_path / "sweep")
    assert "failed: killed" in (tmp_path / "sweep" / "results.md").read_text()
    assert rows(tmp_path)[0]["name"] == "a|b"


def test_names_in_brackets_are_in_the_printed_table(
    tmp_path: Path, train: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(["-m", *FAST, "data.size=40", "name=x,'[/x]'"]) == 1
    assert "[/x]" in capfd.readouterr().out
