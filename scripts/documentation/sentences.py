"""The sentences that commands can print, collected from the source: errors, and warnings in the log.

python scripts/documentation/sentences.py     # prints them in Markdown
"""

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "pdnla"
AREAS = {
    "Reading and writing pictures": ("images",),
    "Photographs and folders to colour": ("inference", "cli/colorize"),
    "Film": ("film", "cli/film"),
    "The web page": ("web", "cli/web"),
    "Weights and models": ("weights", "models", "hub", "checkpoints", "published", "pretrained"),
    "Exported networks": ("export", "cli/export"),
    "Options of pdnla-train and pdnla-eval": ("options", "configuration", "cli/composition", "training/options"),
    "Training": ("training", "losses", "cli/train", "cli/sweep"),
    "Photographs and pairs to train on": ("data", "cli/prepare", "cli/pairs"),
    "Evaluation": ("evaluation", "cli/evaluate"),
    "Files, devices and everything else": ("",),
}
"""Headings, and the parts of the package whose sentences are below them; the longest part that fits counts."""

_WITHOUT = ("evaluation/measures",)  # its strings are descriptions
_ERRORS = ("UserError", "DiskFullError")
_LOGS = ("warning", "error")
_WORDS = re.compile(r"[^\W\d_]{2,}")


def collect() -> dict[str, list[str]]:
    """Return the sentences below each heading, sorted, as HTML with the variable parts in ``<em>``."""
    found: dict[str, set[str]] = {area: set() for area in AREAS}
    for path in sorted(SOURCE.rglob("*.py")):
        part = path.relative_to(SOURCE).with_suffix("").as_posix()
        if part in _WITHOUT:
            continue
        fitting = [(len(start), area) for area, starts in AREAS.items() for start in starts if part.startswith(start)]
        found[max(fitting)[1]].update(sentences_of(ast.parse(path.read_text(encoding="utf-8"))))
    return {area: sorted(sentences, key=_plain) for area, sentences in found.items()}


def sentences_of(tree: ast.Module) -> Iterator[str]:
    """Yield the sentences of a module.

    They are the arguments of errors and of the log's warnings; and other strings with the form of the project's
    messages, a reason and a way out with a semicolon between them.
    """
    documentation = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inner = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    inner |= {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg in ("help", "label")
        for part in ast.walk(node.value)
    }
    said = {node.args[0] for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args and _speaks(node.func)}
    for node in ast.walk(tree):
        if node in documentation or node in inner:
            continue
        text = _text(node, node in said)
        if text is None:
            continue
        plain = _plain(text)
        message = re.search(r"\w.*; \w", plain) and len(_WORDS.findall(plain)) >= 4
        titled = plain[:1].isupper() and plain.endswith(".")  # descriptions
        listed = plain.count(";") > 2  # style sheets and headers of the page
        if (node in said and _WORDS.search(plain)) or (message and not (titled or listed)):
            yield text


def _speaks(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in _ERRORS
    return isinstance(function, ast.Attribute) and function.attr in _LOGS and "log" in ast.unparse(function.value)


def _text(node: ast.AST, said: bool) -> str | None:
    """Return a string as HTML, on one line, or None for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = html.escape(node.value, quote=False)
        text = re.sub(r"%\.?\d*[sdgf]", "<em>…</em>", text) if said else text.replace("{}", "<em>…</em>")
    elif isinstance(node, ast.JoinedStr):
        text = "".join(
            html.escape(str(part.value), quote=False) if isinstance(part, ast.Constant) else f"<em>{_name(part)}</em>"
            for part in node.values
        )
    else:
        return None
    return " ".join(text.split())


def _name(node: ast.expr) -> str:
    """Return a short name of what stands in a variable part: that of the expression, if it has one."""
    value = node.value if isinstance(node, ast.FormattedValue) else node
    names = [part.id for part in ast.walk(value) if isinstance(part, ast.Name)]
    if "error" in names:
        return "reason"
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
        return value.attr.replace("_", " ")
    return value.id.replace("_", " ") if isinstance(value, ast.Name) else "…"


def _plain(text: str) -> str:
    return html.unescape(re.sub(r"<em>.*?</em>", "…", text))


def markdown() -> str:
    """Return the sentences as Markdown below their headings, each a heading too: the search finds headings first."""
    lines = []
    for area, sentences in collect().items():
        lines += [f"### {area}", "", *(f"#### <code>{sentence}</code>\n" for sentence in sentences), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
