"""Every configuration on disk composes with the others' defaults, and several loggers compose together."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from pdnla.cli.train import config_folder

FILES = sorted(config_folder().glob("*/*.yaml"))
REQUIRED = {
    "data.root": "photographs",
    "data.pairs_file": "pairs.csv",
    "protocol.root": "photographs",
    "protocol.frames": "frames",
}
COMMANDS = {"protocol": "eval"}  # by the group that is not pdnla-train's


def composed(overrides: list[str], command: str = "train") -> DictConfig:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose(command, overrides)


def test_the_groups_are_found() -> None:
    groups = {file.parent.name for file in FILES}
    assert {
        "model",
        "data",
        "loss",
        "optim",
        "trainer",
        "logger",
        "callbacks",
        "experiment",
        "hparams_search",
        "protocol",
    } <= groups


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}={file.stem}" for file in FILES])
def test_every_file_composes_and_needs_no_value_but_the_photographs(file: Path) -> None:
    command = COMMANDS.get(file.parent.name, "train")
    config = composed([f"{file.parent.name}={file.stem}"], command)
    # what a running command alone knows, such as the run's folder; the next composition sets Hydra's own again
    OmegaConf.register_new_resolver("hydra", lambda path: f"<{path}>", replace=True)
    missing = OmegaConf.missing_keys(config)
    assert missing <= REQUIRED.keys()
    for key in missing:
        OmegaConf.update(config, key, REQUIRED[key])
    resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    assert resolved["name"]
    for group in ("model", "data", "loss", "optim", "trainer") if command == "train" else ("protocol",):
        assert "_target_" in resolved[group], group


@pytest.mark.parametrize(
    ("overrides", "loggers"),
    [
        ([], ["csv"]),
        (["logger=csv"], ["csv"]),
        (["logger=none"], []),
        (["logger=wandb", "logger.offline=true"], ["wandb"]),
        (["logger=[csv,wandb]", "logger.offline=true"], ["csv", "wandb"]),
        (["logger=[csv,tensorboard,wandb]"], ["csv", "tensorboard", "wandb"]),
    ],
)
def test_loggers_compose_alone_and_together(overrides: list[str], loggers: list[str]) -> None:
    config = composed(overrides)
    assert [name for name, logger in config.logger.items() if isinstance(logger, DictConfig)] == loggers
    if "logger.offline=true" in overrides:
        assert config.logger.offline is True
