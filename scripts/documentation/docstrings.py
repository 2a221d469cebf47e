"""An extension for the API reference: docstrings' roles, examples and asterisks become Markdown."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`(~?)([\w.]+)`")
_ASTERISK = re.compile(r"(`+)[^`]+\1|^(?:>>>|\.\.\.).*|\b[abL](\*)", re.MULTILINE)
_EXAMPLE = re.compile(r"^(?:>>>|\.\.\.).*(?:\n(?:>>>|\.\.\.).*)*", re.MULTILINE)


def _link(match: re.Match[str]) -> str:
    short, name = match.groups()
    shown = name.rpartition(".")[2] if short else name.removeprefix("pdnla.")
    return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'


def _code(match: re.Match[str]) -> str:
    lines = (re.sub(r"^(>>>|\.\.\.) ?", "", line) for line in match[0].splitlines())
    return "\n".join(["```python", *lines, "```"])


def _escape(match: re.Match[str]) -> str:
    return match[0] if match[2] is None else match[0].replace("*", r"\*")


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Turn roles into links, where the name is documented, and examples into blocks of code; keep the * of L*."""
        if obj.docstring is not None:
            text = _ASTERISK.sub(_escape, obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(_code, _ROLE.sub(_link, text))
