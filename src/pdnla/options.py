"""Rules for options, which check types and ranges before a command starts."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf

from pdnla.errors import UserError

WORKING_SIDES = (16, 8192)
"""Smallest and largest option ``size``: side of the square that the network works on, in pixels."""


class Rule(NamedTuple):
    """A requirement on a value, as the end of a sentence, and its test; ``a | b`` accepts either."""

    requirement: str
    holds: Callable[[Any], bool]

    def __or__(self, other: "Rule") -> "Rule":
        return Rule(
            f"{self.requirement}, or {other.requirement}", lambda value: self.holds(value) or other.holds(value)
        )


NULL = Rule("null", lambda value: value is None)
BOOLEAN = Rule("true or false", lambda value: isinstance(value, bool))
TEXT = Rule("text", lambda value: isinstance(value, str) and value != "")
DURATION = Rule(
    "a time as DAYS:HOURS:MINUTES:SECONDS, such as 00:08:00:00",
    lambda value: isinstance(value, str) and re.fullmatch(r"\d+:\d\d:\d\d:\d\d", value) is not None,
)


def integer(least: int | None = None, most: int | None = None) -> Rule:
    """Return the rule for a whole number in a closed range."""
    return Rule(
        f"a whole number{_range(least, most)}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and _within(value, least, most),
    )


def multiple_of(step: int) -> Rule:
    """Return the rule for a multiple of ``step``, of at least that."""
    return Rule(
        f"a multiple of {step}, such as {4 * step}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value > 0 and value % step == 0,
    )


def number(least: float | None = None, most: float | None = None) -> Rule:
    """Return the rule for a finite number in a closed range."""
    return Rule(f"a number{_range(least, most)}", lambda value: _is_number(value) and _within(value, least, most))


def above(limit: float) -> Rule:
    """Return the rule for a finite number above ``limit``."""
    return Rule(f"a number above {limit:g}", lambda value: _is_number(value) and value > limit)


def one_of(*words: object) -> Rule:
    """Return the rule for a choice among a few values."""
    return Rule(_either([str(value) for value in words]), lambda value: not isinstance(value, bool) and value in words)


def list_of(rule: Rule, count: int | None = None) -> Rule:
    """Return the rule for a list, of exactly ``count`` values unless that is None."""
    many = "" if count is None else f"{count} of them, "
    return Rule(
        f"a list [...], {many}each {rule.requirement}",
        lambda value: (
            isinstance(value, list) and count in (None, len(value)) and all(rule.holds(element) for element in value)
        ),
    )


def check_options(config: DictConfig, rules: Mapping[str, Rule]) -> None:
    """Check the options of a composed configuration.

    Args:
        config: the configuration.
        rules: by dotted name; ``*`` matches any one part. An option without a rule is not checked, nor is a mapping
            with ``_target_``, which is an object of the user's.

    Raises:
        UserError: a value breaks its rule.
        MissingMandatoryValue: an option without a default is not given.
    """
    options = cast(Mapping[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    patterns = [(name.split("."), rule) for name, rule in rules.items()]
    for path, value in walk(options):
        rule = next((rule for pattern, rule in patterns if matches(pattern, path)), None)
        if rule is None or (isinstance(value, Mapping) and "_target_" in value) or rule.holds(value):
            continue
        raise UserError(f"{'.'.join(path)}={format_value(value)}: must be {rule.requirement}")


def walk(options: Mapping[str, Any], parents: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Return the name, in parts, and the value of every option; a mapping comes before its contents."""
    named = []
    for key, value in options.items():
        path = (*parents, str(key))
        named.append((path, value))
        if isinstance(value, Mapping):
            named += walk(value, path)
    return named


def matches(pattern: list[str], path: tuple[str, ...]) -> bool:
    """Return whether the name of a rule matches that of an option, both in parts."""
    return len(pattern) == len(path) and all(p in ("*", q) for p, q in zip(pattern, path, strict=True))


def format_value(value: Any) -> str:
    """Return a value as typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(format_value(element) for element in value)}]"
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _range(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {_format_number(least)} to {_format_number(most)}"
    if least is not None:
        return f" of at least {_format_number(least)}"
    return "" if most is None else f" of at most {_format_number(most)}"


def _format_number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
