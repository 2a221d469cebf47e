"""Types and ranges of options: what is refused, in which words, and what is let through."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from pdnla import UserError
from pdnla.network import STRIDE
from pdnla.options import NULL, check_options, integer, list_of, number, one_of
from pdnla.training.options import OPTIONS


def check(option: str, value: Any) -> None:
    config = OmegaConf.create()
    OmegaConf.update(config, option, value)
    check_options(config, OPTIONS)


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("optim.lr", "x", "optim.lr=x: must be a number above 0"),
        ("optim.lr", 0, "optim.lr=0: must be a number above 0"),
        ("optim.lr", float("nan"), "optim.lr=nan: must be a number above 0"),
        ("critic_optim.lr", None, "critic_optim.lr=null: must be a number above 0"),
        ("optim.betas", [0.5], "optim.betas=[0.5]: must be a list [...], 2 of them, each a number from 0 to 1"),
        ("model.share", 0, "model.share=0: must be a number above 0 and at most 1"),
        ("model.share", 1.5, "model.share=1.5: must be a number above 0 and at most 1"),
        ("model.share", True, "model.share=true: must be a number above 0 and at most 1"),
        ("model.same_share", -0.1, "model.same_share=-0.1: must be a number from 0 to 1, or null"),
        ("model.learned", "x", "model.learned=x: must be true or false"),
        ("seed", -1, "seed=-1: must be a whole number from 0 to 4294967295"),
        ("seed", 2**32, "seed=4294967296: must be a whole number from 0 to 4294967295"),
        ("data.workers", -1, "data.workers=-1: must be a whole number of at least 0"),
        ("data.batch_size", 4.5, "data.batch_size=4.5: must be a whole number of at least 1"),
        ("data.batch_size", True, "data.batch_size=true: must be a whole number of at least 1"),
        ("data.batch_size", [1, 2], "data.batch_size=[1,2]: must be a whole number of at least 1"),
        ("data.batch_size", {"a": 1}, "data.batch_size={'a': 1}: must be a whole number of at least 1"),
        ("data.zoom", 0.5, "data.zoom=0.5: must be a number of at least 1"),
        ("data.unpaired_fraction", 1.5, "data.unpaired_fraction=1.5: must be a number from 0 to 1"),
        ("data.unpaired_ramp", -1, "data.unpaired_ramp=-1: must be a whole number of at least 0"),
        ("data.size", 40, "data.size=40: must be a multiple of 16, such as 64"),
        ("data.pairing", "friend", "data.pairing=friend: must be class, nearest or random"),
        ("data.shuffle_shards", -1, "data.shuffle_shards=-1: must be a whole number of at least 0"),
        ("data.pairs.noise", 1.1, "data.pairs.noise=1.1: must be a number from 0 to 1"),
        ("schedule.accumulate", 0, "schedule.accumulate=0: must be a whole number of at least 1"),
        ("schedule.max_skipped", 0, "schedule.max_skipped=0: must be a whole number of at least 1"),
        ("schedule.compile", 1, "schedule.compile=1: must be true or false"),
        ("loss.weights.tv", -1, "loss.weights.tv=-1: must be a number of at least 0"),
        ("loss.terms.tv.weight", "x", "loss.terms.tv.weight=x: must be a number of at least 0"),
        ("trainer.precision", "16-mixed", "float16 would need gradient scaling"),
        (
            "trainer.devices",
            0,
            "trainer.devices=0: must be a whole number of at least 1, auto or -1 for all, or a list",
        ),
        ("trainer.max_steps", 0, "trainer.max_steps=0: must be a whole number of at least 1, or -1"),
        ("trainer.max_time", "8h", "trainer.max_time=8h: must be a time as DAYS:HOURS:MINUTES:SECONDS"),
        ("trainer.val_check_interval", 4.5, "trainer.val_check_interval=4.5: must be a whole number of steps"),
        ("logger.offline", True, "logger.offline=true: must be left out; the option is logger.wandb.offline"),
    ],
)
def test_a_wrong_type_or_range_is_one_sentence_that_says_what_it_must_be(
    option: str, value: Any, sentence: str
) -> None:
    with pytest.raises(UserError) as refused:
        check(option, value)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("optim.lr", 1),
        ("trainer.devices", "0,1"),
        ("trainer.devices", [0, 1]),
        ("trainer.devices", -1),
        ("trainer.max_steps", -1),
        ("trainer.max_time", None),
        ("trainer.max_time", "00:08:00:00"),
        ("trainer.val_check_interval", 0.5),
        ("trainer.strategy", {"_target_": "pytorch_lightning.strategies.DDPStrategy"}),
        ("loss.terms.mine.own_option", "anything"),
        ("data.validation_root", None),
    ],
)
def test_what_is_right_or_of_the_users_own_making_passes(option: str, value: Any) -> None:
    check(option, value)


def test_rules_say_what_they_allow() -> None:
    assert (integer(1) | NULL).requirement == "a whole number of at least 1, or null"
    assert number(0, 0.5).requirement == "a number from 0 to 0.5"
    assert one_of("a", "b", "c").requirement == "a, b or c"
    assert not one_of(1).holds(True)
    assert not list_of(integer(0)).holds(3)
    assert STRIDE == 16  # README and messages name it
