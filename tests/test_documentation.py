"""The README and the pages of docs/: every command in them is run or parsed, and the site is built.

A command is parsed by what parses it for users: typer's commands up to the call of their function, Hydra's up to the
composed and checked configuration, scripts by their declared options. ``RUN`` names those that are run, in a folder
with small pictures; the others are only parsed, because they take long, or need what the comments and tables say.
"""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from PIL import Image

from documentation.sentences import collect
from pdnla.backbones import load_backbone
from pdnla.cli.composition import prepare_arguments
from pdnla.configuration import config_folder
from pdnla.files import cache_folder
from pdnla.options import check_options
from pdnla.training.options import OPTIONS
from pdnla.weights import save_weights

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]
ENTRIES = dict(
    re.findall(r'^(pdnla-\w+) = "([\w.]+):main"$', (PROJECT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
)
EXTRAS = set(
    re.findall(r"^(\w+) = \[", (PROJECT / "pyproject.toml").read_text(encoding="utf-8").split("optional-dep")[1], re.M)
)
COMPOSED = {"pdnla-train": "train", "pdnla-eval": "eval"}

RUN: dict[str, list[str]] = {
    "pdnla-colorize grey.jpg reference.jpg": ["--size", "64"],
    "pdnla-colorize grey.jpg reference.jpg -o result.jpg": ["--size", "64"],
    "pdnla-colorize album/ reference.jpg -o coloured/": ["--size", "64"],
    "pdnla-colorize album/ references/ -o coloured/": ["--size", "64"],
    "pdnla-colorize album/ --pick-from photographs/": ["--size", "64", "-o", "picked/"],
    "pdnla-colorize album/ --pick-from photographs/ --keep-reference": ["--size", "64"],
    "pdnla-colorize --about-weights": [],
    "pdnla-colorize --help": [],
    "pdnla-pairs album/ --references photographs/ -o pairs.csv --count 5": ["--workers", "0"],
    "pdnla-convert PDNLA.pt pdnla.safetensors": [],
    "pdnla-train model=pdnla_tiny data=folder data.root=~/photographs": [
        *("trainer=cpu", "trainer.max_steps=1", "trainer.enable_progress_bar=false", "model.channel=4"),
        *("data.size=32", "data.batch_size=2", "data.workers=0", "data.validation_count=1", "hydra.run.dir=run"),
    ],
}
"""Commands that are run, by their text, and what is added for the test's sake."""

ELSEWHERE = {
    "source": "is the shell's",
    "tensorboard": "is another program, which shows what a test of pdnla-train finds written",
    "wandb": "is another program; W&B's records are tested without it",
    "hf": "is huggingface_hub's, and asks for a password",
    "docker": "is another program",
}
"""Programs that are neither run nor parsed here, and why."""

PYTHON_ELSEWHERE = {
    'network.push_to_hub("owner/name")': "needs the Hub; tests/test_hub.py has the same with the Hub's answers",
    "@pdnla.models.register": "registers a model for good; tests/cli/test_own_model.py trains such a one",
}
"""Blocks of Python, by a line in them, that are compiled and not run, and why."""


class Snippet(NamedTuple):
    """A command, or a block of code, in a page; in running text a command may be without its arguments."""

    page: str
    text: str
    prose: bool = False

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def blocks(language: str) -> Iterator[Snippet]:
    """Yield the fenced blocks of a language."""
    for page in PAGES:
        for found in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            yield Snippet(page.relative_to(PROJECT).as_posix(), found)


def commands() -> Iterator[Snippet]:
    """Yield the commands in blocks, and those in running text."""
    for page, block, _ in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := re.sub(r"(^|\s+)#.*$", "", line).split():
                yield Snippet(page, " ".join(words))
    starts = "|".join([*ENTRIES, "make", "python", "pip", "pytest", "sbatch", "srun", *ELSEWHERE])
    for path in PAGES:
        prose = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose):
            if re.match(rf"({starts})(\s|$)", code) and "{" not in code:
                yield Snippet(path.relative_to(PROJECT).as_posix(), " ".join(code.split()), prose=True)


COMMANDS = sorted(set(commands()))


def parse(words: list[str], prose: bool = False) -> None:
    """Parse a command as its program does; raise if it would be refused."""
    while re.match(r"[A-Z_]+=", words[0]):  # the environment
        words = words[1:]
    program, *arguments = words
    if program == "srun":
        parse(arguments)
    elif program == "eval":
        parse(shlex.split(re.fullmatch(r"\$\((.*)\)", arguments[0])[1]))  # type: ignore[index]
    elif program in COMPOSED:
        parse_composed(COMPOSED[program], arguments)
    elif program in ENTRIES:
        parse_typer(program, arguments, prose)
    elif program == "make":
        rules = re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.M)
        assert set(arguments) <= set(rules), rules
    elif program == "pip":
        parse_pip(arguments)
    elif program in ("python", "python3"):
        parse_script(arguments)
    elif program == "pytest":
        assert all((PROJECT / path).exists() for path in arguments if "/" in path)
    elif program == "sbatch" or program.endswith(".sh"):
        parse_launcher([*arguments] if program == "sbatch" else words)
    else:
        assert program in ELSEWHERE, f"{program} is not known to this test"


def parse_typer(program: str, arguments: list[str], prose: bool) -> None:
    """Parse up to the call of the function; a help text or the like is printed."""
    module = import_module(ENTRIES[program])
    if not hasattr(module, "app"):  # pdnla-predict, which only names another command
        assert not arguments
        return
    command: Any = typer.main.get_command(module.app)
    names = {name for parameter in command.params for name in parameter.opts}
    installing = [argument for argument in arguments if argument.endswith("-completion")]
    assert set(installing) <= names
    arguments = [argument for argument in arguments if argument not in installing]
    if arguments:
        try:
            command.make_context(program, list(arguments))
        except Exception as error:
            # A help text was printed; or prose speaks of an option alone.
            alone = ("MissingParameter", "BadOptionUsage") if prose else ()
            if type(error).__name__ not in ("Exit", *alone):
                raise


def parse_composed(name: str, arguments: list[str]) -> None:
    """Compose and check the configuration; of a sweep, that of the first run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        prepare_arguments()
        arguments = sys.argv[1:]
    overrides = []
    words = iter(arguments)
    own_files = any(argument.startswith("--config-dir") for argument in arguments)
    for word in words:
        if word in ("--cfg", "-sc"):
            next(words)
        elif word in ("...", "-m", "--multirun", "--help", "--hydra-help") or word.startswith("--config-dir="):
            continue
        elif not (own_files and word.startswith("model=")) and "submitit" not in word:
            overrides.append(word)
    if any("submitit" in argument for argument in arguments):  # a plugin that is no dependency
        overrides = [word for word in overrides if not word.startswith("hydra.launcher.")]
    parsed = OverridesParser.create().parse_overrides(overrides)
    first = [next(iter(each.sweep_string_iterator())) if each.is_sweep_override() else None for each in parsed]
    overrides = [
        word if value is None else f"{word.partition('=')[0]}={value}"
        for word, value in zip(overrides, first, strict=True)
    ]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose(name, [word for word in overrides if not word.startswith("hydra")])
        if any(word.startswith("hydra") for word in overrides):
            compose(name, overrides, return_hydra_config=True)
    OmegaConf.register_new_resolver("hydra", lambda path: f"<{path}>", replace=True)
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "photographs")
    if name == "train":
        check_options(config, OPTIONS)


def parse_pip(arguments: list[str]) -> None:
    if not arguments:
        return
    verb, *packages = arguments
    assert verb == "install" or not packages
    for package in packages:
        known = re.fullmatch(r"pdnla(?:\[([\w,]+)\])?|\.(?:\[([\w,]+)\])?", package)
        if known:
            assert {extra for part in known.groups() if part for extra in part.split(",")} <= EXTRAS
        else:
            assert re.fullmatch(r"[\w-]+", package), package


def parse_script(arguments: list[str]) -> None:
    script, *options = arguments
    if script == "-m":
        assert find_spec(options[0])
        return
    text = (PROJECT / script).read_text(encoding="utf-8")
    tree = ast.parse(text)
    declared = {
        value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"
        for value in node.args
        if isinstance(value, ast.Constant)
    }
    assert {option.partition("=")[0] for option in options if option.startswith("-")} <= declared
    if "sys.argv[1]" in text or any(not name.startswith("-") for name in declared):
        assert options, f"{script} takes an argument"
        assert not options[0].startswith("-"), f"{script} takes an argument first"


def parse_launcher(arguments: list[str]) -> None:
    while arguments[0].startswith("-"):
        arguments = arguments[1:]
    script, *overrides = arguments
    assert (PROJECT / script).is_file()
    parse_composed("train", overrides)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_documented_command_is_parsed(command: Snippet, capsys: pytest.CaptureFixture[str]) -> None:
    parse(shlex.split(command.text), command.prose)


@pytest.mark.parametrize(
    "command",
    [
        "pdnla-colorize grey.jpg reference.jpg --sizes 512",
        "pdnla-colorize grey.jpg reference.jpg --depth 12",
        "pdnla-colorize album/ --install-completions",
        "pdnla-train data.roots=photographs",
        "pdnla-train model=pdnla_tiniest",
        "pdnla-train trainer.max_steps=many",
        "pdnla-train -m optim.lr=1e-3,5e-4 optim.lrs=1",
        "pdnla-eval protocol=pair",
        "srun pdnla-colorize a b --device",
        "sbatch --nodes=2 scripts/slurm_train.sh experiment=imagenets",
        "make tests",
        "python scripts/benchmark.py --round 2",
        "python scripts/showcase.py",
        "python scripts/loading_speed.py --shards 8",
        'pip install "pdnla[hiec]"',
        "pdnla-paint a.jpg",
    ],
)
def test_a_mistyped_command_would_be_found(command: str) -> None:
    try:
        parse(shlex.split(command))
    except Exception:  # of typer, Hydra, or an assertion of this test
        return
    pytest.fail("it was parsed")


def test_what_is_run_is_documented() -> None:
    documented = {command.text for command in COMMANDS}
    assert set(RUN) <= documented
    programs = {shlex.split(text)[0] for text in documented}
    assert set(ELSEWHERE) - programs <= {"docker", "hf", "tensorboard", "wandb", "source"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, published_file: Path) -> Path:
    """A folder with the files that the pages name."""
    import skimage

    folder = tmp_path_factory.mktemp("documented")
    data = Path(skimage.__file__).parent / "data"
    pictures = {
        name: Image.open(data / f"{name}.png").convert("RGB").resize((96, 64)) for name in ("coffee", "chelsea")
    }
    pictures["cup"] = pictures["coffee"].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for place in ("album", "references", "photographs"):
        (folder / place).mkdir()
        for name, picture in pictures.items():
            (picture.convert("L") if place == "album" else picture).save(folder / place / f"{name}.png")
    pictures["coffee"].convert("L").save(folder / "grey.jpg")
    pictures["cup"].save(folder / "reference.jpg")
    shutil.copy(published_file, folder / "PDNLA.pt")
    return folder


@pytest.mark.slow
def test_documented_commands_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run one after the other in one folder, as a reader types them."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PDNLA_CACHE", str(cache_folder()))  # which holds compiled convolutions
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    for text, added in RUN.items():
        program, *arguments = shlex.split(text)
        monkeypatch.setattr(sys, "argv", [program, *arguments, *added])
        with pytest.raises(SystemExit) as left:
            import_module(ENTRIES[program]).main()
        assert left.value.code in (0, None), text
    for result in ("grey_colorized.png", "result.jpg", "coloured/cup.png", "picked/cup.png", "album_colorized/cup.png"):
        assert Image.open(folder / result).size == (96, 64)
    assert (folder / "album_colorized" / "references.csv").is_file()
    assert (folder / "pairs.csv").is_file()
    assert (folder / "pdnla.safetensors").is_file()
    assert (folder / "run" / "last.ckpt").is_file()


@pytest.mark.slow
def test_documented_python_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pdnla

    monkeypatch.chdir(folder)
    pdnla.load_network("PDNLA.pt").save_pretrained("net")  # what pdnla-convert makes, in the test of commands
    shutil.copy(folder / "net" / "model.safetensors", "pdnla.safetensors")
    learned = pdnla.network.SemanticWarp(load_backbone(), learned=True)
    save_weights(learned, "metric.safetensors", "what scripts/train_metric.py makes")
    names: dict[str, Any] = {name: torch.zeros(1, 3, 32, 48) for name in ("target", "reference")}
    skipped = set()
    for snippet in blocks("python"):
        code = compile(snippet.text, snippet.page, "exec")
        reasons = [line for line in PYTHON_ELSEWHERE if line in snippet.text]
        skipped.update(reasons)
        if not reasons:
            exec(code, names)
    assert skipped == PYTHON_ELSEWHERE.keys()
    assert names["coloured"].size == (96, 64)
    assert (folder / "my_network" / "config.json").is_file()
    mixed = pdnla.load_network("mixed.safetensors")
    assert mixed.share == 0.75
    torch.testing.assert_close(
        mixed.correspondence.metric.down, learned.correspondence.metric.down, atol=1e-4, rtol=1e-3
    )


def test_yaml_in_the_pages_is_well_formed() -> None:
    assert all(yaml.safe_load(block.text) for block in blocks("yaml"))


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
    graph = next(block.text for block in blocks("text") if block.page == "docs/architecture.md")
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
    diffs = list(blocks("diff"))
    assert diffs
    for diff in diffs:
        check = ["git", "apply", "--check", "-"]
        result = subprocess.run(check, cwd=PROJECT, input=diff.text, capture_output=True, text=True, check=False)
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
