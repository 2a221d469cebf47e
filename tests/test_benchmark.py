"""The benchmark runs and compares a checkout with another one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fork_server import python

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.platform == "win32", reason="the benchmark needs POSIX's figures of memory")
@pytest.mark.slow
def test_variants_take_turns_with_those_of_another_checkout(tmp_path: Path) -> None:
    options = ["--only", "network", "--sizes", "64", "--channels", "32", "--rounds", "1", "--variants"]
    command = [
        sys.executable,
        "scripts/benchmark.py",
        *options,
        "published,plain,eager",
        "--against",
        str(ROOT),
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "performance.json").read_text())["network"]["runs"]
    figures = run["figures"]
    assert figures.keys() == {"published float32", "plain float32", "pdnla float32", "pdnla bfloat16"}
    assert all(measured["seconds"] > 0 and measured["peak"] > 0 for measured in figures.values())
    assert [name for name, measured in figures.items() if measured["ratios"]] == ["pdnla float32", "pdnla bfloat16"]
    assert all(len(measured["ratios"]) == 2 for name, measured in figures.items() if name.startswith("pdnla"))
    assert (tmp_path / "performance.md").read_text().count("| pdnla float32 |") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="the benchmark needs POSIX's figures of memory")
@pytest.mark.slow
def test_variants_of_another_width_are_refused_before_anything_is_exported() -> None:
    options = ["--only", "network", "--sizes", "512", "--channels", "8", "--variants", "onnx"]
    command = [python(), "scripts/benchmark.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("are measured with --channels 32 --sizes 512 only\n")
    assert "exporting" not in done.stderr
