"""Killed, terminated, or left with a broken checkpoint: nothing is lost, and the run ends as one never stopped."""

import csv
import json
import logging
import os
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from processes import Run, start

from pdnla import PDNLA, UserError
from pdnla.training.resuming import resume_from

STEPS = 12

# All kinds of terms, three batches of photographs an epoch, a checkpoint every other step.
OVERRIDES = [
    "model.channel=4",
    "experiment=hybrid",
    "trainer=cpu",
    "trainer.precision=32-true",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=1000",
    "trainer.log_every_n_steps=1",
    "callbacks.last.every_n_train_steps=2",
    "data.batch_size=4",
    "data.size=32",
    "data.repeats=2",
    "data.workers=1",
    "data.unpaired_ramp=6",
    "data.pairing=random",
    "schedule.warmup=3",
    *(f"loss.weights.{term}=0.05" for term in ("adversarial", "cooccurrence", "contextual", "content", "heads")),
    "loss.terms.adversarial.critic.width=4",
    "loss.terms.adversarial.critic.blocks=3",
    "loss.terms.adversarial.penalty_every=3",
    "loss.terms.cooccurrence.critic.width=4",
    "loss.terms.cooccurrence.critic.blocks=1",
    "loss.terms.cooccurrence.size=8",
    # of pictures this small the coarser maps have four positions
    "loss.terms.contextual.levels=[1,0,0,0]",
]


def train(folder: Path, *overrides: str) -> Run:
    return start("pdnla-train", [*OVERRIDES, f"hydra.run.dir={folder}", *overrides])


def wait_for_new(file: Path, run: Run) -> None:
    before = file.stat().st_mtime_ns if file.exists() else None
    run.wait_until(lambda: file.exists() and file.stat().st_mtime_ns != before)


def losses(folder: Path) -> dict[int, dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss/total"]]
    return {int(row["step"]): {n: v for n, v in row.items() if not n.startswith("perf/")} for row in rows}


def state(folder: Path) -> dict[str, torch.Tensor]:
    content = torch.load(folder / "last.ckpt", weights_only=True)
    assert content["global_step"] == STEPS
    actual = dict(content["state_dict"])
    for number, optimizer in enumerate(content["optimizer_states"]):
        for parameter, values in optimizer["state"].items():
            actual |= {f"optimizer{number}.{parameter}.{name}": value for name, value in values.items()}
    return actual


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder).finish()
    return folder


class Interrupted(NamedTuple):
    """The folders of a run that was killed, then terminated, then went on to its end, and its log."""

    killed: Path
    terminated: Path
    ended: Path
    message: str


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    root = tmp_path_factory.mktemp("interrupted")
    killed, terminated, ended = (root / name for name in ("killed", "terminated", "ended"))
    moments = random.Random(0)
    run = train(killed)
    for _ in range(2):
        wait_for_new(killed / "last.ckpt", run)
    time.sleep(moments.uniform(0, 0.1))
    run.send(signal.SIGKILL)
    run.finish(-signal.SIGKILL)
    run = train(terminated, f"ckpt_path={killed}", "callbacks.last.every_n_train_steps=1")
    run.wait_until((terminated / "last.ckpt").exists)
    run.send(signal.SIGTERM)
    message = run.finish(143)
    train(ended, f"ckpt_path={terminated / 'last.ckpt'}").finish()
    return Interrupted(killed, terminated, ended, message)


def step_of(folder: Path) -> int:
    return int(torch.load(folder / "last.ckpt", weights_only=True)["global_step"])


@pytest.mark.slow
def test_a_run_killed_and_told_to_leave_ends_to_the_bit_as_one_never_stopped(
    whole: Path, interrupted: Interrupted
) -> None:
    assert 0 < step_of(interrupted.killed) < step_of(interrupted.terminated) < STEPS
    expected, actual = state(whole), state(interrupted.ended)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    rows, all_rows = losses(interrupted.ended), losses(whole)
    assert rows
    for step, row in rows.items():
        assert row == {**all_rows[step], "epoch": row["epoch"]}, step


@pytest.mark.slow
def test_a_run_told_to_leave_saves_and_says_how_to_go_on(interrupted: Interrupted) -> None:
    assert f"resume with ckpt_path={interrupted.terminated / 'last.ckpt'}" in interrupted.message
    assert "Traceback" not in interrupted.message
    assert json.loads((interrupted.terminated / "result.json").read_text())["status"] == "stopped"


@pytest.mark.slow
def test_a_run_that_has_had_its_steps_says_so_when_it_is_resumed(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        resume_from(str(whole), PDNLA(4), steps=STEPS + 1)
        assert caplog.text == ""
        resume_from(str(whole), PDNLA(4), steps=STEPS)
    assert f"the run has done the {STEPS} steps of trainer.max_steps, and none is left" in caplog.text


@pytest.mark.slow
def test_a_truncated_checkpoint_is_skipped_with_a_warning(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (whole / "last.ckpt").read_bytes()
    (tmp_path / "old.ckpt").write_bytes(content)
    (tmp_path / "new.ckpt").write_bytes(content[: len(content) // 2])
    os.utime(tmp_path / "old.ckpt", (1, 1))
    with caplog.at_level(logging.WARNING):
        assert resume_from(str(tmp_path), PDNLA(4)) == str(tmp_path / "old.ckpt")
    assert f"skipped: {tmp_path / 'new.ckpt'}: is truncated" in caplog.text
    (tmp_path / "old.ckpt").unlink()
    with pytest.raises(UserError, match="holds no checkpoint that can be resumed"):
        resume_from(str(tmp_path), PDNLA(4))
