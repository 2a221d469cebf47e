"""Exit conditions that are not bugs: errors of the user, and preemption."""

from pathlib import Path
from typing import ClassVar


class UserError(Exception):
    """An error that the user can correct: one sentence that names the file or option and the way out.

    Commands print it without a traceback and exit with status 2. Any other exception is a bug and keeps its traceback.
    """


def refused_path(error: OSError) -> str:
    """Return the sentence for a path that the system refuses; ``error`` has its name."""
    return f"{error.filename}: {error.strerror or type(error).__name__}; check the path and its permissions"


class DiskFullError(UserError):
    """The disk is full, so further files cannot be written either."""


class Preempted(BaseException):
    """The run received SIGTERM and has saved; ``checkpoint`` is the file to resume from."""

    status: ClassVar[int] = 143
    """Exit status of the command, the same as a shell reports for a process that SIGTERM ended."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(f"received SIGTERM, saved {checkpoint}")
        self.checkpoint = checkpoint
