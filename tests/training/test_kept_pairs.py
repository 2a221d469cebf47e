"""Training on kept pairs: killed and resumed, it ends with the weights of a run that nothing stopped."""

import signal
import sys
from pathlib import Path

import pytest
import torch
from processes import Run, start

from pdnla.data.hard_pairs import HardPair
from pdnla.data.kept_pairs import keep, pair_file
from pdnla.images import color
from pdnla.network.correspondence import Carried, Opinion
from pdnla.network.guide import SHOWN

STEPS = 16
OVERRIDES = [
    "experiment=informed",
    "model.channel=4",
    "trainer=cpu",
    "trainer.precision=32-true",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=8",
    "callbacks.last.every_n_train_steps=1",
    "data.batch_size=2",
    "data.size=32",
    "data.recount=2",
    "data.recolour=0.5",
    "data.mistakes=0.5",
    "schedule.warmup=2",
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    root = tmp_path / "pairs"
    for index in range(7):
        generator = torch.Generator().manual_seed(index)
        truth = torch.rand(3, 48, 64, generator=generator)
        seen = [torch.randn(1, c, 4, 4, generator=generator) for c in SHOWN]
        opinion = Opinion(*(torch.rand(1, c, 4, 4, generator=generator) for c in (2, 1, 1, 1)))
        carried = Carried(color.rgb_to_lab(truth)[None, 1:], torch.rand(1, 1, 48, 64, generator=generator))
        for folder in (root, root / "validation"):
            keep(pair_file(folder, index), HardPair(truth, truth, "warped"), carried, opinion, seen, 64)
    return root


def train(folder: Path, pairs: Path, *overrides: str) -> Run:
    return start("pdnla-train", [*OVERRIDES, f"data.root={pairs}", f"hydra.run.dir={folder}", *overrides])


@pytest.mark.skipif(sys.platform == "win32", reason="the test sends POSIX signals or forks")
@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_weights_of_one_never_stopped(tmp_path: Path, pairs: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    first = train(stopped, pairs)
    first.wait_until((stopped / "last.ckpt").exists)
    first.send(signal.SIGKILL)
    first.finish(-signal.SIGKILL)
    assert torch.load(stopped / "last.ckpt", weights_only=True)["global_step"] < STEPS
    for run in (train(whole, pairs), train(stopped, pairs, f"ckpt_path={stopped}")):
        run.finish()
    states = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (whole, stopped)]
    assert [state["global_step"] for state in states] == [STEPS, STEPS]
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name


@pytest.mark.slow
def test_another_model_is_refused_in_a_sentence(tmp_path: Path, pairs: Path) -> None:
    output = train(tmp_path / "run", pairs, "model=pdnla_tiny").finish(2)
    assert "data=kept_pairs: its pairs are kept for model=pdnla_informed; choose that, or other data" in output
