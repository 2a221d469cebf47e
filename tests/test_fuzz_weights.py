"""The campaign of damaged weights files: a short one finds nothing, and it would find what there is."""

import os
import signal
import time
from pathlib import Path

import pytest

from fuzz_weights import KINDS, Payload, campaign, saved, use
from fuzzing import GOOD, attempt, table
from pdnla import UserError

PATIENCE = 240  # seconds for a file: how busy the machine is must not decide a test


def test_a_short_campaign_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz_weights.SECONDS", PATIENCE)
    found = campaign(16, 1, tmp_path, KINDS[:4])
    results = [result for results in found.values() for result in results]
    assert len(results) == 16
    assert {result.outcome for result in results} == set(GOOD)
    assert "| kind | damage | files | read | refused | seconds, at most | MB, at most |" in table(found)


@pytest.mark.parametrize(
    ("wrong", "outcome"),
    [
        (lambda: 1 / 0, "traceback"),
        (lambda: time.sleep(9), "took too long"),
        (lambda: bytearray(1 << 30), "out of memory"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "died of signal 9"),
        (lambda: (_ for _ in ()).throw(UserError("w.pt: two\nlines")), "no plain sentence"),
        (lambda: (_ for _ in ()).throw(UserError("another file: is damaged")), "no plain sentence"),
    ],
)
def test_what_must_not_happen_is_seen(
    wrong: object, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz_weights.load_network", lambda _: wrong())  # type: ignore[operator]
    seconds = 2 if outcome == "took too long" else PATIENCE
    assert attempt(tmp_path / "w.pt", use, seconds, memory=1 << 29).outcome == outcome


def test_a_payload_that_runs_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    content = saved({"x": Payload(exec, "open('ran', 'w').close()")})
    monkeypatch.setattr("fuzz_weights.damages", lambda _: [lambda *_: bytearray(content)])
    monkeypatch.setattr("fuzz_weights.load_network", lambda file: torch.load(file, weights_only=False))
    found = campaign(3, 0, tmp_path, KINDS[:4])
    assert {result.outcome for results in found.values() for result in results} == {"payload ran"}
