"""The README and the pages of docs/: what they name exists, their diffs apply, and the site is built.

tests/test_documented_commands.py runs their commands and Python.
"""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from documented import COMMANDS, ENTRIES, PAGES, PROJECT, SNIPPETS

from documentation.sentences import collect

EXTRAS = set(
    re.findall(r"^(\w+) = \[", (PROJECT / "pyproject.toml").read_text(encoding="utf-8").split("optional-dep")[1], re.M)
)
COMPOSED = {"pdnla-train", "pdnla-eval"}


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [snippet.text for snippet in SNIPPETS if snippet.language == language]


def test_packages_that_are_installed_are_named_rightly() -> None:
    commands = {command.text for command in COMMANDS if command.text.startswith("pip install ")}
    assert commands
    for command in commands:
        (package,) = shlex.split(command)[2:]
        known = re.fullmatch(r"(?:pdnla|\.)(?:\[([\w,]+)\])?|hydra-submitit-launcher", package)
        assert known, command
        assert set((known[1] or "heic").split(",")) <= EXTRAS, command


def test_yaml_in_the_pages_is_well_formed() -> None:
    assert all(yaml.safe_load(block) for block in blocks("yaml"))


def imported(file: Path) -> set[str]:
    """Return the packages and modules of pdnla's top level that a file imports, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("pdnla.")}


def test_imports_are_those_of_the_architecture_page() -> None:
    (graph,) = blocks("text")
    rows = [re.findall(r"(\w+)(?:/|\.py)", re.split(r" {2,}", line)[0]) for line in graph.splitlines()]
    row_of = {name: number for number, row in enumerate(rows) for name in row}
    package = PROJECT / "src" / "pdnla"
    face = {"__init__", "__version__"}
    files = [
        file.relative_to(package) for file in package.rglob("*.py") if file.parent != package or file.stem not in face
    ]
    assert {file.parts[0].removesuffix(".py") for file in files} == row_of.keys()
    for file in files:
        own = file.parts[0].removesuffix(".py")
        for other in imported(package / file) - {own} - face:
            assert row_of[other] > row_of[own] or (own, other) == ("models", "hub"), (str(file), other)


@pytest.mark.skipif(not (PROJECT / ".git").exists() or shutil.which("git") is None, reason="no git checkout")
def test_diffs_in_the_pages_apply() -> None:
    diffs = blocks("diff")
    assert diffs
    for diff in diffs:
        check = ["git", "apply", "--check", "-"]
        result = subprocess.run(check, cwd=PROJECT, input=diff, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_options_in_running_text_exist() -> None:
    known = {"--help", "--cfg", "--config-dir", "--hydra-help", "--shm-size", "--force-reinstall"}
    for program, module in ENTRIES.items():
        if program not in COMPOSED and hasattr(import_module(module), "app"):
            command: Any = typer.main.get_command(import_module(module).app)
            known |= {name for option in command.params for name in [*option.opts, *option.secondary_opts]}
    for script in (PROJECT / "scripts").glob("*.py"):
        known |= set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', script.read_text(encoding="utf-8")))
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose):
            if code.startswith("--"):
                assert set(re.findall(r"--[\w-]+", code)) <= known, (page.name, code)


def test_links_between_pages_and_to_files_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path = link.partition("#")[0]
            if not link.startswith(("https://", "#")) and Path(path).name != "changelog.md":
                assert (page.parent / path).exists(), (page.name, link)


def test_sentences_of_the_troubleshooting_page_are_those_of_the_source() -> None:
    sentences = [re.sub(r"<em>.*?</em>", "…", text) for texts in collect().values() for text in texts]
    assert len(sentences) > 200
    assert "…: is a folder; name an image in it" in sentences
    assert "--size …: must be native or a number from … to …" in sentences
    assert "…: is a pipe or a device, which could wait for ever; copy it to a file" in sentences
    assert not [text for text in sentences if "font:" in text or "'self'" in text or "click one to choose it" in text]
    page = (PROJECT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [code for row in re.findall(r"^\| (`.*?) \|", page, re.M) for code in re.findall("`([^`]+)`", row)]
    assert len(quoted) >= 10
    for quote in quoted:
        assert any(quote in sentence for sentence in sentences), quote


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    result = subprocess.run(build, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not re.search(r"^WARNING", result.stderr, re.M)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocstrings") is None or find_spec("material") is None, reason="no pdnla[docs]")
def test_the_site_is_built_without_warnings_and_asks_nobody_outside(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "colouring.html", "training.html", "faq.html", "troubleshooting.html"} <= {
        page.name for page in pages
    }
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|img|iframe|source)\b[^>]*>|<link\b[^>]*stylesheet[^>]*>", text):
            assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag), (page.name, tag)
    style = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style)
    assert "is a folder; name an image in it" in (site / "search" / "search_index.json").read_text(encoding="utf-8")
    api = (site / "api" / "colouring.html").read_text(encoding="utf-8")
    assert 'id="pdnla.inference.colorizer.Colorizer.set_reference"' in api
    assert not re.search(r":(?:class|func|meth|mod):`|&gt;&gt;&gt;", re.sub(r"<pre>.*?</pre>", "", api, flags=re.S))
    assert "besides a* and b*, is the share of the target's own a* and b*" in api  # and no emphasis between asterisks
    for page in (site / "api").glob("*.html"):  # an entry of a list documents one name
        assert not re.findall(r">\w+,</span></code>", page.read_text(encoding="utf-8")), page.name
