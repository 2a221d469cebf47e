"""Configurations: where they are, and the record that a run keeps of its own."""

import subprocess
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pdnla.files import replacing


def config_folder() -> Path:
    """Return the folder of configurations: inside the installed package, or beside ``src/`` in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def record(config: DictConfig, folder: Path) -> None:
    """Write ``config.yaml``: the composed configuration, resolved, under a comment with the revision."""
    resolved = OmegaConf.to_yaml(config, resolve=True)
    with replacing(folder / "config.yaml") as temporary:
        temporary.write_text(f"# {revision()}\n{resolved}", encoding="utf-8")


def revision() -> str:
    """Return which version this is, and the git revision of the current folder if there is one."""
    from pdnla import __version__

    git = ["git", "-C", str(Path.cwd()), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        described = "no git revision"
    return f"pdnla {__version__}, {described}"
