"""A command of the package in the process of a script, which has imported torch already."""

import sys
from collections.abc import Callable
from unittest.mock import patch


def run_command(name: str, main: Callable[[], object], *arguments: str) -> None:
    """Run a command.

    Args:
        name: its name.
        main: its function, which ends with :class:`SystemExit`.
        arguments: its command line.

    Raises:
        SystemExit: it did not succeed.
    """
    with patch.object(sys, "argv", [name, *arguments]):
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
