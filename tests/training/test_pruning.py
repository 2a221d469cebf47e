"""Pruning: the median rule ends a bad run, spares a good one, and judges by runs that have ended alone."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pdnla.training.pruning import FILE, BestValidation, PruneBadRuns


class OneProcess:
    """As much of a trainer as the callbacks use."""

    is_global_zero = True
    sanity_checking = False
    should_stop = False

    def __init__(self) -> None:
        self.global_step = 0
        self.callback_metrics: dict[str, float] = {}
        self.strategy = SimpleNamespace(broadcast=lambda value: value)


def leave(folder: Path, values: list[tuple[int, float]], ended: bool = True) -> None:
    folder.mkdir()
    (folder / FILE).write_text(json.dumps({"ended": ended, "values": values}))


def validate(callback: Any, trainer: OneProcess, step: int, error: float) -> list[str]:
    trainer.global_step, trainer.callback_metrics = step, {"val/chroma_error": error}
    output: list[str] = []
    callback.on_validation_end(cast(Any, trainer), cast(Any, SimpleNamespace(print=output.append)))
    return output


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three runs that have ended; their means until step 20 are 8, 9 and 10."""
    leave(tmp_path / "0", [(10, 10.0), (20, 6.0), (30, 1.0)])
    leave(tmp_path / "1", [(10, 10.0), (20, 8.0), (30, 1.0)])
    leave(tmp_path / "2", [(10, 12.0), (20, 8.0), (30, 1.0)])
    return tmp_path


@pytest.mark.parametrize(("best", "ended"), [(8.9, False), (9.1, True)])
def test_the_best_value_so_far_is_held_against_the_median_of_means(sweep: Path, best: float, ended: bool) -> None:
    trainer, callback = OneProcess(), PruneBadRuns(str(sweep / "3"), warmup_validations=1, least_runs=3)
    validate(callback, trainer, 10, best)
    output = validate(callback, trainer, 20, 50.0)
    assert callback.pruned is trainer.should_stop is ended
    assert output == (
        ["step 20: pruned, its chroma error is 9.10 at best and the median of the other runs is 9.00"] * ended
    )


def test_a_run_is_not_ended_in_its_first_validations(sweep: Path) -> None:
    trainer, callback = OneProcess(), PruneBadRuns(str(sweep / "3"), warmup_validations=2, least_runs=3)
    for step in (10, 20):
        validate(callback, trainer, step, 50.0)
        assert not callback.pruned
    validate(callback, trainer, 30, 50.0)
    assert callback.pruned


def test_runs_that_have_not_ended_or_got_so_far_judge_nobody(sweep: Path) -> None:
    leave(sweep / "under way", [(10, 1.0), (20, 1.0), (30, 1.0)], ended=False)
    leave(sweep / "short", [(10, 1.0)])
    leave(sweep / "unvalidated", [])
    leave(sweep / "own", [(10, 1.0), (20, 1.0)])
    assert PruneBadRuns(str(sweep / "own"), least_runs=3).median(20) == 9.0
    assert PruneBadRuns(str(sweep / "own"), least_runs=4).median(20) is None


def test_a_run_that_is_no_number_is_ended(sweep: Path) -> None:
    trainer, callback = OneProcess(), PruneBadRuns(str(sweep / "3"), warmup_validations=0, least_runs=3)
    validate(callback, trainer, 10, math.nan)
    assert callback.pruned


def test_a_whole_run_judges_later_ones_and_a_pruned_one_does_not(sweep: Path) -> None:
    for name, error in (("good", 1.0), ("bad", 50.0)):
        trainer, callback = OneProcess(), PruneBadRuns(str(sweep / name), warmup_validations=0, least_runs=3)
        validate(callback, trainer, 10, error)
        callback.on_train_end(cast(Any, trainer), cast(Any, None))
    assert json.loads((sweep / "good" / FILE).read_text()) == {"ended": True, "values": [[10, 1.0]]}
    assert json.loads((sweep / "bad" / FILE).read_text()) == {"ended": False, "values": [[10, 50.0]]}


def test_the_best_validation_is_the_smallest_finite_error() -> None:
    trainer, callback = OneProcess(), BestValidation(("val/chroma_error",))
    for step, error in ((1, math.nan), (2, 5.0), (3, 4.0), (4, math.nan), (5, 6.0)):
        validate(callback, trainer, step, error)
    assert (callback.step, callback.best) == (3, {"val/chroma_error": 4.0})
    assert callback.last == {"val/chroma_error": 6.0}
