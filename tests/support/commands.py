"""Commands that run in a test's process, and a stand-in for the network."""

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn


class Colours(NamedTuple):
    mid: Tensor
    out: Tensor


class MeanColour(nn.Module):
    """A stand-in for the network: every pixel gets the reference's mean colour; a white picture breaks it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.calls = 0

    def encode_reference(self, reference: Tensor) -> tuple[Tensor]:
        return (reference.mean(dim=(2, 3), keepdim=True),)

    def forward(self, target: Tensor, reference: Tensor | tuple[Tensor]) -> Colours:
        code = reference if isinstance(reference, tuple) else self.encode_reference(reference)
        self.calls += 1
        out = (code[0] * self.scale).expand_as(target)
        white = (target > 0.99).all(dim=3).all(dim=2).all(dim=1)
        out = torch.where(white.reshape(-1, 1, 1, 1), torch.nan, out)
        return Colours(out, out)


class Done(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Done]


def run_here(
    main: Callable[[], object],
    arguments: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Done:
    """Run a command in this process; a traceback fails the test.

    Args:
        main: its entry point.
        arguments: the command line, from the command's name on.
        monkeypatch, capsys: the fixtures.
    """
    monkeypatch.setattr(sys, "argv", list(arguments))
    with pytest.raises(SystemExit) as left:
        main()
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    return Done(int(left.value.code or 0), output.out, output.err)


def refused(done: Done, *words: str) -> None:
    """Assert that pdnla-colorize ended with status 2 and one sentence with these words."""
    assert done.status == 2
    assert done.err.startswith("pdnla-colorize: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err
