"""``pdnla-train``: compose a configuration, train, and leave a folder with all that came of it."""

import difflib
import errno
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from pdnla.cli._run import run
from pdnla.errors import UserError
from pdnla.files import replacing

log = logging.getLogger(__name__)


def config_folder() -> Path:
    """Return the folder of configurations: inside the installed package, or beside ``src/`` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def train(config: DictConfig) -> None:
    """Train as ``config`` says; everything is written under Hydra's output folder of the run.

    Raises:
        UserError: the configuration asks for what is not there.
    """
    import pytorch_lightning as pl

    from pdnla.memory import keep_freed_memory
    from pdnla.training import ColorizationModule
    from pdnla.weights import load_network

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its import sets INFO
    check_numbers(config)
    keep_freed_memory()
    folder = Path(config.trainer.default_root_dir)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    network = hydra.utils.instantiate(config.model)
    if config.weights:
        start = load_network(config.weights)
        if start.channel != network.channel:
            raise UserError(
                f"weights={config.weights}: has channel {start.channel} and the model {network.channel}; choose the"
                f" model of that width or set model.channel={start.channel}"
            )
        network.load_state_dict(start.state_dict())
    checkpoint = resume_from(config.ckpt_path, network.channel)
    data = hydra.utils.instantiate(config.data)
    module = ColorizationModule(
        network,
        hydra.utils.instantiate(config.loss),
        hydra.utils.instantiate(config.optim),
        steps=config.trainer.max_steps,
        **config.schedule,
    )
    loggers = [hydra.utils.instantiate(c) for c in config.logger.values() if isinstance(c, DictConfig)]
    callbacks = [hydra.utils.instantiate(c) for c in config.callbacks.values() if isinstance(c, DictConfig)]
    trainer: pl.Trainer = hydra.utils.instantiate(
        config.trainer,
        logger=loggers or False,
        callbacks=callbacks,
        precision=trainer_precision(config.trainer.precision, config.trainer.accelerator),
        enable_progress_bar=config.trainer.enable_progress_bar and sys.stderr.isatty(),
    )
    record(config, folder)
    log.info("writing to %s", folder)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.WandbLogger):
                logger.experiment.finish()  # or the next run of a sweep would go on writing to this one
    if trainer.checkpoint_callback is not None:
        trainer.save_checkpoint(folder / "last.ckpt")
    log.info("the run is in %s", folder)


def check_numbers(config: DictConfig) -> None:
    """Raise :class:`UserError` if an override puts a word where its configuration has a number."""
    task = HydraConfig.get().overrides.task
    chosen = {override: (config_folder() / override.split("=", 1)[0]).is_dir() for override in task}
    default = hydra.compose("train", [override for override, is_group in chosen.items() if is_group])
    for key in (override.split("=", 1)[0] for override, is_group in chosen.items() if not is_group):
        usual, value = OmegaConf.select(default, key), OmegaConf.select(config, key)
        if isinstance(usual, int | float) and not isinstance(usual, bool) and isinstance(value, str):
            raise UserError(f"{key}={value}: must be a number, such as {usual}")


def resume_from(path: str | None, channel: int) -> str | None:
    """Return the checkpoint to resume from, having looked that it is one of a network this wide."""
    if path is None:
        return None
    from pdnla.weights import load_pickle, read_weights

    _, found, _ = read_weights(path)
    if Path(path).suffix == ".safetensors" or "optimizer_states" not in load_pickle(Path(path)):
        raise UserError(f"ckpt_path={path}: holds weights alone; use weights={path} to start a new training from them")
    if found != channel:
        raise UserError(f"ckpt_path={path}: has channel {found} and the model {channel}; resume with the same model")
    return path


def trainer_precision(precision: str, accelerator: str) -> str:
    """Return Lightning's name of a precision; ``auto`` is bfloat16 where the hardware has it."""
    if str(precision) != "auto":
        return precision
    import torch

    from pdnla.devices import choose_device, choose_precision

    device = choose_device("cpu" if accelerator == "cpu" else "auto")
    return "bf16-mixed" if choose_precision("auto", device) == torch.bfloat16 else "32-true"


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


def explain(error: BaseException) -> UserError | None:
    """Return what a user can do about a failed composition or run, or None if the fault is ours."""
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
        if isinstance(link, MissingMandatoryValue):
            key = re.search(r"full_key: (\S+)", str(link))
            name = key[1] if key else "a value"
            return UserError(f"{name} is not set and has no default; add {name}=... to the command")
    for link in chain:
        if type(link).__name__ == "MisconfigurationException":  # Lightning's, which takes seconds to import
            return UserError(f"trainer: {_sentence(link)}; choose other trainer settings, such as trainer=cpu")
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))
        reason = _sentence(error.__cause__ or error)
        return UserError(f"{key[1] if key else 'the configuration'}: {reason}; change the option that says so")
    if isinstance(error, HydraException | OmegaConfBaseException):
        return UserError(_unknown_override(str(error)) or f"{_sentence(error)}; see pdnla-train --help")
    return None


def _unknown_override(message: str) -> str | None:
    """Name the nearest option to one that does not exist, from Hydra's message."""
    if found := re.search(r"Could not override '([^']+)'", message):
        return _suggest(found[1], _keys(), "=...")
    if found := re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", message):
        return _suggest(found[2], _keys(), "=...")
    if found := re.search(r"In '[^']*': Could not find '([^']+)'|Could not find '([^']+)'", message):
        group, _, name = (found[1] or found[2]).rpartition("/")
        names = sorted(p.stem for p in (config_folder() / group).glob("*.yaml"))
        return f"{group}={name} does not exist; {group} can be {', '.join(names)}"
    return None


def _suggest(wrong: str, keys: list[str], suffix: str) -> str:
    close = difflib.get_close_matches(wrong, keys, n=1, cutoff=0.0)
    leaf = [key for key in keys if key.rsplit(".", 1)[-1] == wrong.rsplit(".", 1)[-1]]
    return f"{wrong} is no option; the nearest is {(leaf or close)[0]}{suffix}"


def _keys() -> list[str]:
    """Return every option of the default configuration, and the groups."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", return_hydra_config=False)
    groups = [folder.name for folder in config_folder().iterdir() if folder.is_dir()]
    return groups + _flatten(OmegaConf.to_container(config, resolve=False), "")


def _flatten(node: Any, prefix: str) -> list[str]:
    if not isinstance(node, dict):
        return []
    keys = []
    for key, value in node.items():
        keys += [f"{prefix}{key}", *_flatten(value, f"{prefix}{key}.")]
    return keys


def _sentence(error: BaseException) -> str:
    """Return the first sentence of a message, on one line."""
    text = " ".join(str(error).split())
    return re.split(r"(?<=[a-z\]])\. |\. ?$", text)[0]


class _Explained(BaseException):
    """Carries a :class:`UserError` past Hydra, which would print a report of its own about any Exception."""

    def __init__(self, reason: UserError) -> None:
        super().__init__(str(reason))
        self.reason = reason


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
def _compose_and_train(config: DictConfig) -> None:
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    try:
        train(config)
    except Exception as error:
        if explained := explain(error):
            raise _Explained(explained) from error
        raise


def main() -> None:
    """Run the command."""
    # Hydra would print its own traceback and leave with status 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    def command() -> None:
        try:
            _compose_and_train()
        except _Explained as error:
            raise error.reason from error
        except Exception as error:
            explained = explain(error)
            if explained is None:
                raise
            raise explained from error

    run("pdnla-train", command)


if __name__ == "__main__":
    main()
