"""The commands and blocks of code of the README and of the pages in docs/, in the order of the pages."""

import re
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]
_SETTINGS = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r'^(pdnla-\w+) = "([\w.]+):main"$', _SETTINGS, re.M))
"""The package's commands and their modules."""

_PROGRAMS = [
    *ENTRIES,
    *("docker", "eval", "git", "hf", "make", "pip", "pytest", "python3?", "sbatch", "source", "srun"),
    *("tensorboard", "torchrun", "twine", "wandb", r"scripts/[\w/]+\.\w+"),
]
_COMMAND = re.compile(rf"(?:[A-Z_]+=\S* )*(?:{'|'.join(_PROGRAMS)}) \S.*")
_CODE = re.compile(r"^```(\w*)\n(.*?)^```|(?<!`)`([^`]+)`(?!`)", re.M | re.S)


class Snippet(NamedTuple):
    """A command (``language`` is bash), or a block of another language; ``prose``: in running text."""

    page: str
    language: str
    text: str
    prose: bool = False


def snippets(page: Path) -> list[Snippet]:
    """Return what a page holds, in its order; in running text, a program's name alone is not a command."""
    name = page.relative_to(PROJECT).as_posix()
    found = []
    for language, block, code in _CODE.findall(page.read_text(encoding="utf-8")):
        if code:
            line = " ".join(code.split())
            if _COMMAND.fullmatch(line):
                found.append(Snippet(name, "bash", line, prose=True))
        elif language == "bash":
            lines = (re.sub(r"(^|\s+)#.*$", "", line) for line in block.replace("\\\n", " ").splitlines())
            found += [Snippet(name, "bash", " ".join(line.split())) for line in lines if line.split()]
        else:
            found.append(Snippet(name, language, block))
    return found


SNIPPETS = [snippet for page in PAGES for snippet in snippets(page)]
COMMANDS = [snippet for snippet in SNIPPETS if snippet.language == "bash"]
