"""MkDocs' hooks: pages whose content is elsewhere, in the changelog and in the source."""

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from sentences import markdown

PROJECT = Path(__file__).parents[2]


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the changelog."""
    changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changelog.md", content=changes))
    return files


def on_page_markdown(text: str, **_: Any) -> str:
    """Insert the sentences of the commands into their page."""
    marker = "<!-- sentences -->"
    return text.replace(marker, markdown()) if marker in text else text
