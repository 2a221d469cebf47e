"""Weights of measures that do not come with the package."""

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pdnla.errors import UserError
from pdnla.evaluation.measures import MEASURES, resolve

log = logging.getLogger(__name__)

_TIMEOUT = 10.0  # seconds that a server of weights has to answer


@contextmanager
def impatient() -> Iterator[None]:
    """Give up on a server that does not answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def available(wanted: Mapping[str, bool | str]) -> frozenset[str]:
    """Return the measures whose weights are there, of those that need some.

    Args:
        wanted: for each measure ``auto`` (where its weights are or can be downloaded), true or false; one that is not
            named is not measured.

    Raises:
        UserError: a measure is asked for and cannot be had, needs no weights, or is none of auto, true and false.
    """
    return frozenset(name for name, choice in wanted.items() if _is_available(name, choice))


def _is_available(name: str, wanted: bool | str) -> bool:
    measure = MEASURES.get(name)
    if measure is None or measure.weights is None:
        optional = ", ".join(m.name for m in MEASURES.values() if m.weights)
        raise UserError(f"measures.{name}: is no measure that can be left out; choose from {optional}")
    if wanted not in (True, False, "auto"):
        raise UserError(f"measures.{name}={wanted}: must be auto, true or false")
    if wanted is False:
        return False
    try:
        resolve(measure.weights)()
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        if wanted is True:
            raise UserError(f"measures.{name}=true: its weights cannot be had ({reason}); set it to false") from error
        instead = f"{measure.stand_in} is measured instead" if measure.stand_in else "it is not measured"
        log.info("no weights for %s: %s (%s)", name, instead, reason)
        return False
    return True
