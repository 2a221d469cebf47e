"""What Windows lacks is guarded: every module is imported without the standard library's POSIX modules."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import builtins, importlib, os, pkgutil, signal
POSIX = {"resource", "fcntl", "pwd", "grp", "termios", "tty", "pty"}
original = builtins.__import__

def without_posix(name, globals=None, *args, **options):
    if name in POSIX and (globals or {}).get("__name__", "").startswith("pdnla"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return original(name, globals, *args, **options)

builtins.__import__ = without_posix
import pdnla
names = sorted(module.name for module in pkgutil.walk_packages(pdnla.__path__, "pdnla."))
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name.partition(".")[0]
        assert missing not in POSIX | {"pdnla"}, (name, missing)  # else it is an extra's, which is not installed
print(len(names))

import pathlib, sys
from pdnla import files
from pdnla.training import module
assert files.fcntl is None and module.resource is None
folder = pathlib.Path(sys.argv[1])
with files.lock(folder / "lock"), files.replacing(folder / "a.txt") as temporary:
    temporary.write_text("whole")
files.remove_stale_temporaries(folder)
assert (folder / "a.txt").read_text() == "whole"
assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "lock"]
"""


@pytest.mark.slow
def test_every_module_is_imported_and_files_are_written_without_posix(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    modules = list((Path(__file__).parents[1] / "src" / "pdnla").rglob("*.py"))
    assert int(result.stdout) >= len(modules) - 1


def test_the_package_says_that_it_is_typed() -> None:
    import pdnla

    assert (Path(pdnla.__file__).parent / "py.typed").is_file()
