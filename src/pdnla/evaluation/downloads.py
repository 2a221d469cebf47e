"""Weights of measures that are not part of the package."""

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pdnla.errors import UserError
from pdnla.evaluation.measures import MEASURES, resolve

log = logging.getLogger(__name__)

_TIMEOUT = 10.0  # seconds until a server must answer


@contextmanager
def short_timeout() -> Iterator[None]:
    """Set a short timeout for connections, in the block."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def available(choices: Mapping[str, bool | str]) -> frozenset[str]:
    """Return the measures with weights of their own that are requested and whose weights are available.

    Args:
        choices: for each measure ``auto`` (if its weights exist or can be downloaded), true or false; a measure that is
            not named is left out.

    Raises:
        UserError: the weights of a measure set to true are not available, a measure has no weights, or a choice is
            none of auto, true and false.
    """
    return frozenset(name for name, choice in choices.items() if _is_available(name, choice))


def _is_available(name: str, choice: bool | str) -> bool:
    measure = MEASURES.get(name)
    if measure is None or measure.weights is None:
        optional = ", ".join(m.name for m in MEASURES.values() if m.weights)
        raise UserError(f"measures.{name}: is not a measure with weights of its own; choose from {optional}")
    if choice not in (True, False, "auto"):
        raise UserError(f"measures.{name}={choice}: must be auto, true or false")
    if choice is False:
        return False
    try:
        resolve(measure.weights)()
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        if choice is True:
            raise UserError(
                f"measures.{name}=true: its weights are not available ({reason}); set it to false"
            ) from error
        instead = f"{measure.stand_in} is measured instead" if measure.stand_in else "it is not measured"
        log.info("no weights for %s: %s (%s)", name, instead, reason)
        return False
    return True
