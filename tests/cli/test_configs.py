"""Every configuration on disk composes with the others' defaults, and several loggers compose together."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from pdnla.configuration import config_folder, follow_moves
from pdnla.evaluation import options as evaluation
from pdnla.losses import HistogramLoss
from pdnla.losses.critics import ImageCritic
from pdnla.options import check_options, matches, walk
from pdnla.training import options as training
from pdnla.training.module import ColorizationModule

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
def test_every_file_composes_keeps_the_rules_of_options_and_needs_no_value_but_the_photographs(file: Path) -> None:
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
    rules = {"train": training.OPTIONS, "eval": evaluation.OPTIONS}[command]
    check_options(config, rules)
    patterns = [rule.split(".") for rule in rules]
    named = [path for path, value in walk(resolved) if not isinstance(value, dict) and not path[-1].startswith("_")]
    assert [path for path in named if not any(matches(pattern, path) for pattern in patterns)] == []


@pytest.mark.parametrize(
    ("overrides", "loggers"),
    [
        ([], ["csv"]),
        (["logger=csv"], ["csv"]),
        (["logger=none"], []),
        (["logger=wandb", "logger.wandb.offline=true"], ["wandb"]),
        (["logger=[csv,wandb]", "logger.wandb.offline=true"], ["csv", "wandb"]),
        (["logger=[csv,tensorboard,wandb]"], ["csv", "tensorboard", "wandb"]),
    ],
)
def test_loggers_compose_alone_and_together_an_entry_each(overrides: list[str], loggers: list[str]) -> None:
    config = composed(overrides)
    assert list(config.logger) == loggers
    assert all("_target_" in logger for logger in config.logger.values())
    if "logger.wandb.offline=true" in overrides:
        assert config.logger.wandb.offline is True


def entries(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every entry that makes an object of the package, however deep."""
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from entries(child)
    if isinstance(node, dict) and str(node.get("_target_", "")).startswith("pdnla."):
        yield node


def differing(given: dict[str, Any], signature: inspect.Signature) -> dict[str, tuple[Any, Any]]:
    """Return the options whose value is another than the constructor's default, with both."""
    actual = {}
    for name, value in given.items():
        default = getattr(signature.parameters.get(name), "default", inspect.Parameter.empty)
        table = isinstance(value, dict) and default is None  # its figures are in the file alone
        if default is inspect.Parameter.empty or table or (isinstance(value, str) and value.startswith("${")):
            continue
        if isinstance(default, tuple):
            default = list(default)
        same = value == pytest.approx(default, rel=1e-9) if isinstance(value, float) else value == default
        if not same:
            actual[name] = (value, default)
    return actual


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}={file.stem}" for file in FILES])
def test_no_option_has_one_default_in_its_file_and_another_in_its_class(file: Path) -> None:
    """Experiments, searches and the file of a model's width are choices, not defaults.

    The weights of terms say how much they count beside each other, which a configuration alone knows.
    """
    if file.parent.name in ("experiment", "hparams_search", "model"):
        return
    for entry in entries(yaml.safe_load(file.read_text())):
        given = {key: value for key, value in entry.items() if key != "weight"}
        assert differing(given, inspect.signature(get_object(entry["_target_"]))) == {}, entry["_target_"]


def test_the_schedule_has_the_modules_own_defaults() -> None:
    given = yaml.safe_load((config_folder() / "train.yaml").read_text())["schedule"]
    signature = inspect.signature(ColorizationModule)
    assert given.keys() <= signature.parameters.keys()
    assert differing(given, signature) == {}


def test_differing_defaults_are_noticed() -> None:
    signature = inspect.signature(HistogramLoss)
    assert differing({"bins": 16}, signature) == {"bins": (16, signature.parameters["bins"].default)}


def test_the_record_of_an_earlier_run_still_composes_and_makes_its_loss() -> None:
    """As version 0.1.0 wrote it: weights beside the terms, and critics in another package."""
    config = OmegaConf.create(
        {
            "loss": {
                "_target_": "pdnla.losses.HybridLoss",
                "terms": {
                    "pixel": {"_target_": "pdnla.losses.PixelLoss", "mid": 0.5},
                    "adversarial": {
                        "_target_": "pdnla.losses.AdversarialLoss",
                        "critic": {"_target_": "pdnla.network.critics.ImageCritic", "width": 4, "blocks": 3},
                        "penalty": 10.0,
                        "penalty_every": 16,
                    },
                },
                "weights": {"pixel": 1.0, "adversarial": 0.05},
            }
        }
    )
    follow_moves(config)
    check_options(config, training.OPTIONS)
    loss = instantiate(config.loss)
    assert loss.weights == {"pixel": 1.0, "adversarial": 0.05}
    assert isinstance(loss.critics["adversarial"].critic, ImageCritic)
