"""The folder of configurations, and the record that a run keeps of its configuration."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from pdnla.files import replacing
from pdnla.options import walk

MOVED = {
    "pdnla.network.critics.ImageCritic": "pdnla.losses.critics.ImageCritic",
    "pdnla.network.critics.PatchCritic": "pdnla.losses.critics.PatchCritic",
    "pdnla.cli._sweep.SweepStart": "pdnla.cli.sweep.SweepStart",
    "pdnla.training.watching.WandbReport": "pdnla.training.wandb_report.WandbReport",
}
"""Classes that have moved: the path in records of earlier runs, and the present path."""


def config_folder() -> Path:
    """Return the folder of configurations: inside the installed package, or next to ``src/`` in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def follow_moves(config: DictConfig) -> None:
    """Replace the paths of classes that have moved, in a configuration that an earlier run recorded."""
    options = cast(Mapping[str, Any], OmegaConf.to_container(config, resolve=False))
    for path, value in walk(options):
        if path[-1] == "_target_" and value in MOVED:
            OmegaConf.update(config, ".".join(path), MOVED[value])


def record(config: DictConfig, folder: Path) -> None:
    """Write ``config.yaml``: the composed configuration, resolved, below a comment with the revision."""
    resolved = OmegaConf.to_yaml(config, resolve=True)
    with replacing(folder / "config.yaml") as temporary:
        temporary.write_text(f"# {revision()}\n{resolved}", encoding="utf-8")


def revision() -> str:
    """Return the package's version, and the git revision of the current folder if there is one."""
    from pdnla import __version__

    git = ["git", "-C", str(Path.cwd()), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        described = "no git revision"
    return f"pdnla {__version__}, {described}"
