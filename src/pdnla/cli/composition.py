"""Commands whose configuration Hydra composes: readable arguments, checked options, errors as one sentence."""

import difflib
import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from pdnla.cli.command import run
from pdnla.configuration import config_folder
from pdnla.errors import UserError, refused_path
from pdnla.options import walk

PLUGINS = {
    "hydra/launcher/joblib": "pdnla[sweeps]",
    "hydra/sweeper/optuna": "pdnla[sweeps]",
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
    "hydra/launcher/submitit_local": "hydra-submitit-launcher",
}


class HydraBypass(BaseException):
    """Carries a :class:`UserError` through Hydra, which prints its own report of any :class:`Exception`."""

    def __init__(self, reason: UserError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def run_composed(name: str, function: Callable[[DictConfig], int | None]) -> NoReturn:
    """Compose ``NAME.yaml`` with the overrides of the command line, call ``function``, and exit with its status."""
    # Otherwise Hydra prints its own traceback and exits with status 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    status: list[int | None] = []

    @hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)
    def compose(config: DictConfig) -> None:
        try:
            status.append(function(config))
        except Exception as error:
            explained = explain(error, name)
            if explained:
                raise HydraBypass(explained) from error
            raise

    def command() -> int | None:
        prepare_arguments()
        try:
            compose()
        except HydraBypass as error:
            raise error.reason from error
        except Exception as error:
            explained = explain(error, name)
            if explained is None:
                raise
            raise explained from error
        return status[0] if status else None

    run(f"pdnla-{name}", command)


def explain(error: BaseException, name: str) -> UserError | None:
    """Return the user's way out of a failed composition or run, or None for a bug.

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
    reason = next((text for link in chain if (text := _explain_surroundings(link, link is error))), None)
    reason = reason or next((text for link in chain if (text := _explain_trainer(link))), None)
    if reason is None and isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))  # the exception has no attribute for it
        reason = f"{key[1] if key else 'the configuration'}: {sentence(error.__cause__ or error)}; change that option"
    if reason is None and isinstance(error, HydraException | OmegaConfBaseException):
        known = next((text for link in chain if (text := _explain_override(link, name))), None)
        reason = known or f"{sentence(error)}; see pdnla-{name} --help"
    return None if reason is None else UserError(reason)


def _explain_surroundings(error: BaseException, outermost: bool) -> str | None:
    """Return the way out of an error of the disk, of memory or of a value that is not set."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.filename or 'the run folder'}: the disk is full; free some space and resume"
    if isinstance(error, OSError) and error.filename and outermost:
        return f"{error.filename}: {error.strerror}; choose another place, or give the rights to it"
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, OSError) and error.__cause__.filename:
        return refused_path(error.__cause__)
    if isinstance(error, MissingMandatoryValue):
        missing = error.full_key or "a value"
        return f"{missing} is not set and has no default; add {missing}=... to the command"
    if type(error).__name__ == "TerminatedWorkerError":  # joblib's
        return (
            "hydra/launcher=joblib: a run's process was killed, perhaps because memory ran out; lower"
            " hydra.launcher.n_jobs"
        )
    return None


def _explain_trainer(error: BaseException) -> str | None:
    """Return the way out of an error of Lightning's trainer."""
    if type(error).__name__ == "MisconfigurationException":  # Lightning's; importing it takes seconds
        return f"trainer: {sentence(error)}; choose other trainer settings, such as trainer=cpu"
    return None


def _explain_override(error: BaseException, name: str) -> str | None:
    """Return the way out of an override that Hydra refuses."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        if plugin := PLUGINS.get(error.missing_cfg_file):
            return f'{group}={choice} is a plugin that is not installed; pip install "{plugin}"'
        names = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
        return f"{group}={choice} does not exist; {group} can be {', '.join(names)}"
    keys = [key for key, _ in _overrides()]
    if isinstance(error, ConfigKeyError | ConfigAttributeError) and error.full_key:
        wrong = next((key for key in keys if key == error.full_key or key.startswith(f"{error.full_key}.")), None)
        return _suggest(wrong or error.full_key, _keys(name), "=...")
    if isinstance(error, ConfigCompositionException) and error.__cause__ is None:
        # A group that does not exist, or several values in a single run.
        groups = [folder.name for folder in config_folder().iterdir() if folder.is_dir()]
        for key, argument in _overrides():
            if "," in argument and {"-m", "--multirun"}.isdisjoint(sys.argv) and _parsed(argument).is_sweep_override():
                return f"{argument}: has a comma; type {_quoted(argument)} for one value, or add -m for a run of each"
            if "/" not in key and "@" in key and key.partition("@")[0] not in groups:
                return _suggest(key.partition("@")[0], groups, "=...")
    return None


def _suggest(wrong: str, keys: list[str], suffix: str) -> str:
    close = difflib.get_close_matches(wrong, keys, n=1, cutoff=0.0)
    leaf = [key for key in keys if key.rsplit(".", 1)[-1] == wrong.rsplit(".", 1)[-1]]
    return f"{wrong} is not an option; the nearest is {(leaf or close)[0]}{suffix}"


def _keys(name: str) -> list[str]:
    """Return the groups and every option of a command with the chosen groups."""
    folders = {folder.name for folder in config_folder().iterdir() if folder.is_dir()}
    chosen = [
        argument for key, argument in _overrides() if key in folders and not _parsed(argument).is_sweep_override()
    ]
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        try:
            config = hydra.compose(name, chosen)
        except HydraException:  # a chosen group is wrong as well
            config = hydra.compose(name)
    return [
        *folders,
        *(".".join(path) for path, _ in walk(cast(Mapping[str, Any], OmegaConf.to_container(config, resolve=False)))),
    ]


def sentence(error: BaseException) -> str:
    """Return the first sentence of a message, on one line."""
    text = " ".join(str(error).split())
    return re.split(r"(?<=[a-z\]])\. |\. ?$", text)[0]


def prepare_arguments() -> None:
    """Change the overrides in ``sys.argv`` so that Hydra can read them: ``~`` at the start of a path is expanded.

    Lightning starts the processes of further devices with the same arguments.

    Raises:
        UserError: a value holds characters that Hydra reserves.
    """
    for place, argument in list(_places()):
        key, _, value = argument.partition("=")
        expanded = re.sub(_HOME, lambda match: match[1] + str(Path(match[2]).expanduser()), value)
        sys.argv[place] = argument = f"{key}={expanded}"
        try:
            _parsed(argument)
        except HydraException:
            raise UserError(
                f"{argument}: the value has characters that Hydra reserves; type {_quoted(argument)}"
            ) from None


_HOME = r"""(^|[\[,{"']|:\s*)(~[\w.-]*)(?=/|$|[\]},"'])"""
_WITH_VALUE = {"--config-name", "-cn", "--config-path", "-cp", "--config-dir", "-cd", "--package", "-p", "--cfg", "-c"}


def _places() -> Iterator[tuple[int, str]]:
    """Yield the position in ``sys.argv`` of each override, and the override."""
    for place, argument in enumerate(sys.argv):
        if place and "=" in argument and not argument.startswith("-") and sys.argv[place - 1] not in _WITH_VALUE:
            yield place, argument


def _overrides() -> list[tuple[str, str]]:
    """Return the key of each override of the command line, and the override."""
    return [(argument.partition("=")[0].lstrip("+~"), argument) for _, argument in _places()]


def _parsed(argument: str) -> Override:
    return OverridesParser.create().parse_override(argument)


def _quoted(argument: str) -> str:
    """Return an override as typed in a shell, with its value quoted."""
    key, _, value = argument.partition("=")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return shlex.quote(f'{key}="{escaped}"')
