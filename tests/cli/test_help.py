"""Help fits on a screen, names what can be chosen, and shells complete options."""

import os
import re
import subprocess
import sys

import pytest
from processes import piped

from pdnla.configuration import config_folder

SCREEN = (40, 120)
GROUPS = {
    "train": {path.name for path in config_folder().iterdir() if path.is_dir()} - {"protocol"},
    "eval": {"protocol"},
}


@pytest.mark.parametrize(("command", "module"), [("train", "train"), ("eval", "evaluate")])
def test_the_groups_are_explained_on_one_screen_before_the_values(command: str, module: str) -> None:
    run = [sys.executable, "-m", f"pdnla.cli.{module}", "--help"]
    shown = subprocess.run(run, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    screen, values = shown.split("== Configuration ==")
    assert screen.startswith(f"pdnla-{command}: ")
    lines = screen.splitlines()
    assert len(lines) <= SCREEN[0]
    assert max(map(len, lines)) <= SCREEN[1]
    for group in sorted(GROUPS[command]):
        (start,) = (number for number, line in enumerate(lines) if line.split()[:1] == [group])
        explained = re.split(r"[\s,;()]+", " ".join(lines[start : start + 2]))
        for choice in (config_folder() / group).glob("*.yaml"):
            assert choice.stem in explained, group
    assert "_target_:" in values


def test_help_into_a_closed_pipe_is_no_error() -> None:
    run = [sys.executable, "-u", "-m", "pdnla.cli.evaluate", "--help"]
    with piped(run, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize("command", ["colorize", "convert", "export", "pairs", "prepare", "web"])
@pytest.mark.slow
def test_shells_complete_options_without_torch(command: str) -> None:
    environment = {
        **os.environ,
        f"_PDNLA_{command.upper()}_COMPLETE": "complete_bash",
        "COMP_WORDS": f"pdnla-{command} --",
        "COMP_CWORD": "1",
    }
    code = f"import sys, pdnla.cli.{command} as c\ntry: c.main()\nfinally: print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    *options, loaded = shown.stdout.split()
    assert "--help" in options
    assert loaded == "False"  # a shell waits for its answer
    assert shown.returncode == 0
