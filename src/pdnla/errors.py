"""Exit conditions that are not bugs: mistakes of the user, and being told to leave."""

from pathlib import Path
from typing import ClassVar


class UserError(Exception):
    """Something the user can mend: one clear sentence naming the file or option and the way out.

    The commands print it without a traceback and leave with exit status 2. Every other exception is a fault
    of ours and keeps its traceback.
    """


class DiskFullError(UserError):
    """The disk is full: nothing further can be written either."""


class Preempted(BaseException):
    """The run was told to leave and has saved; ``checkpoint`` is what to resume from."""

    status: ClassVar[int] = 143
    """Exit status of the command: that of a process ended by SIGTERM, as a shell reports it."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(f"told to leave, saved {checkpoint}")
        self.checkpoint = checkpoint
