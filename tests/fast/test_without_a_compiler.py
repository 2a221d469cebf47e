"""Where there is no compiler: torch's convolutions serve, and one warning says so."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pdnla.fast import native


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget the library that is loaded, before a test and after it."""
    native.forget_libraries()
    yield
    native.forget_libraries()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PDNLA_NATIVE", "0", None),
        ("CXX", "no-such-compiler", r"there is no C\+\+ compiler \(no-such-compiler\)"),
        ("CXX", "false", "false: status 1"),
    ],
)
def test_without_a_compiler_torchs_convolutions_serve(
    variable: str,
    value: str,
    said: str | None,
    fresh: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PDNLA_CACHE", str(tmp_path))
    monkeypatch.setenv(variable, value)
    with caplog.at_level(logging.WARNING):
        assert native.load_library() is None
        assert native.load_library() is None
    x = torch.zeros(1, 16, 64, 64).contiguous(memory_format=torch.channels_last)
    assert not native.usable(x, torch.zeros(16, 16, 3, 3))
    x = torch.linspace(-3, 3, 50)
    assert torch.equal(native.tanh_(x.clone()), x.tanh())
    assert len(caplog.messages) == (said is not None)
    if said:
        assert re.search(said, caplog.messages[0])
    assert not list(tmp_path.rglob("*.so"))
