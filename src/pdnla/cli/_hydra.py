"""What the commands composed by Hydra share: where configurations are, what is kept of one, what went wrong."""

import difflib
import errno
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from pdnla.cli._run import run
from pdnla.errors import UserError
from pdnla.files import replacing

PLUGINS = {
    "hydra/launcher/joblib": "pdnla[sweeps]",
    "hydra/sweeper/optuna": "pdnla[sweeps]",
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
    "hydra/launcher/submitit_local": "hydra-submitit-launcher",
}

WORDS = {"size=native"}
"""Values that are no numbers where others are."""


def config_folder() -> Path:
    """Return the folder of configurations: inside the installed package, or beside ``src/`` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


class Explained(BaseException):
    """Carries a :class:`UserError` past Hydra, which would print a report of its own about any Exception."""

    def __init__(self, reason: UserError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def run_composed(name: str, function: Callable[[DictConfig], int | None]) -> NoReturn:
    """Compose ``NAME.yaml`` as the command line says, call ``function`` on it, and leave with the status it returns."""
    # Hydra would print its own traceback and leave with status 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    status: list[int | None] = []

    @hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)
    def compose(config: DictConfig) -> None:
        try:
            status.append(function(config))
        except Exception as error:
            explained = explain(error, name)
            if explained:
                raise Explained(explained) from error
            raise

    def command() -> int | None:
        try:
            compose()
        except Explained as error:
            raise error.reason from error
        except Exception as error:
            explained = explain(error, name)
            if explained is None:
                raise
            raise explained from error
        return status[0] if status else None

    run(f"pdnla-{name}", command)


def check_numbers(config: DictConfig, name: str) -> None:
    """Raise :class:`UserError` if an override puts a word where its configuration has a number."""
    task = HydraConfig.get().overrides.task
    chosen = {override: (config_folder() / override.split("=", 1)[0]).is_dir() for override in task}
    default = hydra.compose(name, [override for override, is_group in chosen.items() if is_group])
    for key in (override.split("=", 1)[0] for override, is_group in chosen.items() if not is_group):
        usual, value = OmegaConf.select(default, key), OmegaConf.select(config, key)
        number = isinstance(usual, int | float) and not isinstance(usual, bool)
        if number and isinstance(value, str) and f"{key}={value}" not in WORDS:
            raise UserError(f"{key}={value}: must be a number, such as {usual}")


def record(config: DictConfig, folder: Path) -> None:
    """Write the composed configuration, resolved, and the git revision if there is one."""
    resolved = OmegaConf.to_yaml(config, resolve=True)
    with replacing(folder / "config.yaml") as temporary:
        temporary.write_text(f"# {revision()}\n{resolved}")


def revision() -> str:
    """Return which revision of which version this is, for the record."""
    from pdnla import __version__

    git = ["git", "-C", str(Path.cwd()), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found = "no git revision"
    return f"pdnla {__version__}, {found}"


def explain(error: BaseException, name: str) -> UserError | None:
    """Return what a user can do about a failed composition or run, or None if the fault is ours.

    ``name`` is the command's: ``train`` for ``pdnla-train``, whose configuration is ``train.yaml``.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for link in chain:
        if isinstance(link, UserError):
            return link
    for link in chain:
        if isinstance(link, OSError) and link.errno == errno.ENOSPC:
            return UserError(f"{link.filename or 'the run folder'}: the disk is full; free some space and resume")
        if isinstance(link, OSError) and link.filename and link is error:
            return UserError(f"{link.filename}: {link.strerror}; choose another place, or give the rights to it")
        if isinstance(link, MissingMandatoryValue):
            key = re.search(r"[Mm]issing mandatory value: (\S+)|full_key: (\S+)", str(link))
            missing = (key[1] or key[2]) if key else "a value"
            return UserError(f"{missing} is not set and has no default; add {missing}=... to the command")
        if type(link).__name__ == "TerminatedWorkerError":  # joblib's
            return UserError(
                "hydra/launcher=joblib: a run's process was killed, perhaps for want of memory; lower"
                " hydra.launcher.n_jobs"
            )
    for link in chain:
        if type(link).__name__ == "MisconfigurationException":  # Lightning's, which takes seconds to import
            return UserError(f"trainer: {sentence(link)}; choose other trainer settings, such as trainer=cpu")
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))
        reason = sentence(error.__cause__ or error)
        return UserError(f"{key[1] if key else 'the configuration'}: {reason}; change the option that says so")
    if isinstance(error, HydraException | OmegaConfBaseException):
        return UserError(_unknown_override(str(error), name) or f"{sentence(error)}; see pdnla-{name} --help")
    return None


def _unknown_override(message: str, name: str) -> str | None:
    """Name the nearest option to one that does not exist, from Hydra's message."""
    if found := re.search(r"Could not override '([^']+)'", message):
        return _suggest(found[1], _keys(name), "=...")
    if found := re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", message):
        return _suggest(found[2], _keys(name), "=...")
    if found := re.search(r"In '[^']*': Could not find '([^']+)'|Could not find '([^']+)'", message):
        wanted = found[1] or found[2]
        group, _, choice = wanted.rpartition("/")
        if wanted in PLUGINS:
            return f'{group}={choice} is a plugin that is not installed; pip install "{PLUGINS[wanted]}"'
        names = sorted(p.stem for p in (config_folder() / group).glob("*.yaml"))
        return f"{group}={choice} does not exist; {group} can be {', '.join(names)}"
    return None


def _suggest(wrong: str, keys: list[str], suffix: str) -> str:
    close = difflib.get_close_matches(wrong, keys, n=1, cutoff=0.0)
    leaf = [key for key in keys if key.rsplit(".", 1)[-1] == wrong.rsplit(".", 1)[-1]]
    return f"{wrong} is no option; the nearest is {(leaf or close)[0]}{suffix}"


def _keys(name: str) -> list[str]:
    """Return every option of a command's default configuration, and the groups."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose(name, return_hydra_config=False)
    groups = [folder.name for folder in config_folder().iterdir() if folder.is_dir()]
    return groups + _flatten(OmegaConf.to_container(config, resolve=False), "")


def _flatten(node: Any, prefix: str) -> list[str]:
    if not isinstance(node, dict):
        return []
    keys = []
    for key, value in node.items():
        keys += [f"{prefix}{key}", *_flatten(value, f"{prefix}{key}.")]
    return keys


def sentence(error: BaseException) -> str:
    """Return the first sentence of a message, on one line."""
    text = " ".join(str(error).split())
    return re.split(r"(?<=[a-z\]])\. |\. ?$", text)[0]
