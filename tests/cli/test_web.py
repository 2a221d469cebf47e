"""``pdnla-web``: what is refused before anything is loaded."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from pdnla.cli import web


def status(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["pdnla-web", *arguments])
    with pytest.raises(SystemExit) as left:
        web.main()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    find = importlib.util.find_spec

    def none_of_gradio(name: str, *args: Any) -> Any:
        return None if name == "gradio" else find(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", none_of_gradio)
    assert status([], monkeypatch) == 2
    told = 'pdnla-web: the page needs an extra that is not installed; pip install "pdnla[web]"\n'
    assert capsys.readouterr().err == told


def test_wrong_options_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("gradio", reason="the extra pdnla[web] is not installed")
    monkeypatch.delenv(web.PASSWORD, raising=False)
    for arguments, told in {
        ("--host", "0.0.0.0"): "others can reach it, which takes a password",
        ("--host", "0.0.0.0", "--password", "short"): "--password: must have at least 8 characters",
        ("--weights", "missing.pt"): "--weights missing.pt: there is no such file",
        ("--size", "8"): "--size 8: must be native or a number from 16 to 8192",
        ("--references", str(tmp_path)): "holds no image",
        ("--port", "70000"): "--port",
    }.items():
        assert status(list(arguments), monkeypatch) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
