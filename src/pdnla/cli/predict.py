"""``pdnla-predict``: removed; it names the ``pdnla-colorize`` command that replaces it."""

import shlex
import sys
from collections.abc import Sequence

from pdnla.cli.command import run
from pdnla.errors import UserError

_PLACES = ("targets", "pairs_file", "references")
_OPTIONS = {
    "out": "-o",
    "weights": "--weights",
    "size": "--size",
    "precision": "--precision",
    "batch_size": "--batch-size",
    "trainer.devices": "--devices",
}
_FLAGS = {"compile": "--compile", "overwrite": "--overwrite"}


def main() -> None:
    """Refuse the command and name the equivalent one."""
    run("pdnla-predict", refuse)


def refuse() -> int:
    """Refuse the command.

    Raises:
        UserError: always.
    """
    raise UserError(f"is now part of pdnla-colorize; the same is: {equivalent_command(sys.argv[1:])}")


def equivalent_command(overrides: Sequence[str]) -> str:
    """Return the ``pdnla-colorize`` command that replaces ``key=value`` arguments of ``pdnla-predict``."""
    given = dict(override.split("=", 1) for override in overrides if "=" in override)
    words = [given[name] for name in _PLACES if name in given] or ["TARGETS", "REFERENCES"]
    for name, option in _OPTIONS.items():
        if name in given:
            words += [option, given[name]]
    words += [flag for name, flag in _FLAGS.items() if given.get(name, "").lower() == "true"]
    if given.get("trainer") == "cpu" or given.get("trainer.accelerator") == "cpu":
        words += ["--device", "cpu"]
    return shlex.join(["pdnla-colorize", *words])


if __name__ == "__main__":
    main()
