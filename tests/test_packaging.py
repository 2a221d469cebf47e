"""What is published: the distributions, and the files that others read about the project."""

import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import pdnla
from pdnla.pretrained import BUNDLED, find_weights

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t"]
    subprocess.run([*build, "sdist"], cwd=PROJECT, check=True, capture_output=True)
    (source,) = folder.iterdir()
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    subprocess.run([*build, "wheel"], cwd=unpacked, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


@pytest.mark.slow
def test_the_wheel_from_the_source_distribution_is_complete(distributions: tuple[Path, Path]) -> None:
    _, wheel = distributions
    assert wheel.name == f"pdnla-{pdnla.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {str(path.relative_to(PROJECT / "src")) for path in (PROJECT / "src" / "pdnla").rglob("*.py")}
    weights = {f"pdnla/pretrained/{find_weights(name).name}" for name in BUNDLED}
    others = {"pdnla/py.typed", "pdnla/conf/train.yaml", "pdnla/fast/native/convolution.cpp"}
    assert sources | weights | others | {"pdnla/pretrained/weights.md"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("twine") is None, reason="twine is not installed")
def test_twine_accepts_the_distributions(distributions: tuple[Path, Path]) -> None:
    check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions)]
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == pdnla.__version__
    assert f'\nversion = "{pdnla.__version__}"\n' in (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    released = re.findall(r"^## \[([\d.]+)\] - (\S+)$", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert released[0] == (pdnla.__version__, str(citation["date-released"]))


def test_the_paper_is_cited_alike() -> None:
    paper = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    bibtex = (PROJECT / "README.md").read_text(encoding="utf-8")
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    for part in (paper["title"], authors, paper["doi"], f"{paper['start']}--{paper['end']}", str(paper["year"])):
        assert part in bibtex


def test_forms_and_workflows_are_well_formed() -> None:
    forms = sorted((PROJECT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) >= 3
    for path in forms:
        form: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem == "config":
            continue
        assert {"name", "description", "body"} <= form.keys()
        fields = [field for field in form["body"] if field["type"] != "markdown"]
        assert len({field["id"] for field in fields}) == len(fields)
        assert all(field["attributes"]["label"] for field in fields)
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    machines = {
        (m["os"].partition("-")[0], m["python"]) for m in workflow["jobs"]["test"]["strategy"]["matrix"]["include"]
    }
    assert {("ubuntu", "3.10"), ("ubuntu", "3.13")} <= machines
    assert {"macos", "windows"} <= {system for system, _ in machines}
    assert any("make test" in step.get("run", "") for step in workflow["jobs"]["test"]["steps"])
