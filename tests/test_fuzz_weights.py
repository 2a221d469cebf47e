"""The campaign of damaged weights files: a short one finds nothing, and it would find what there is."""

import sys
from collections.abc import Callable

import pytest

if sys.platform == "win32":
    pytest.skip("the campaigns need POSIX's limits of memory", allow_module_level=True)

Run = Callable[..., tuple[int, dict[str, int]]]
KINDS = ("--kinds", "safetensors", "checkpoint", "published", "old_pickle")


@pytest.mark.slow
def test_a_short_campaign_finds_nothing(run_campaign: Run) -> None:
    status, outcomes = run_campaign("fuzz_weights", "--files", "16", "--seed", "1", *KINDS)
    assert status == 0, outcomes
    assert outcomes.keys() == {"read", "refused"}
    assert sum(outcomes.values()) == 16
    assert all(outcomes.values())


@pytest.mark.slow
def test_what_must_not_happen_is_seen(run_campaign: Run) -> None:
    faults = """
import os, signal, time
from pdnla import UserError
def fail(*_):
    raise UserError(wrongs.pop(0))
wrongs = ["w.pt: two\\nlines", "another file: is damaged"]
faults = [
    lambda _: 1 / 0,
    lambda _: bytearray(4 << 30),
    lambda _: os.kill(os.getpid(), signal.SIGKILL),
    lambda _: (_ for _ in ()).throw(UserError("damaged.pt: two\\nlines")),
    lambda _: (_ for _ in ()).throw(UserError("another file: is damaged")),
]
whole = fuzz_weights.attempt
def attempt(file, use, seconds, memory):
    fuzz_weights.load_network = faults.pop(0) if faults else lambda _: time.sleep(99)
    return whole(file, use, seconds if faults else 2, memory)
fuzz_weights.attempt = attempt
"""
    status, outcomes = run_campaign("fuzz_weights", "--files", "6", *KINDS, fault=faults)
    assert status == 1, outcomes
    assert outcomes == {
        "read": 0,
        "refused": 0,
        "traceback": 1,
        "out of memory": 1,
        "died of signal 9": 1,
        "no plain sentence": 2,
        "took too long": 1,
    }


@pytest.mark.slow
def test_a_payload_that_runs_is_seen(run_campaign: Run) -> None:
    fault = """
import torch
content = fuzz_weights.saved({"x": fuzz_weights.Payload(exec, "open('ran', 'w').close()")})
fuzz_weights.damages = lambda _: [lambda *_: bytearray(content)]
fuzz_weights.load_network = lambda file: torch.load(file, weights_only=False)
"""
    status, outcomes = run_campaign("fuzz_weights", "--files", "3", *KINDS, fault=fault)
    assert status == 1, outcomes
    assert outcomes == {"read": 0, "refused": 0, "payload ran": 3}
