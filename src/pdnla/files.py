"""Writing files whole: a reader never sees half of one, and a failed write leaves the old file as it was.

And where what can be computed again is kept.
"""

import contextlib
import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pdnla.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success it takes the place of ``path``.

    On any failure the temporary file is removed and ``path`` stays as it was. The folder is made if missing.

    Raises:
        UserError: the folder cannot be made, or the file cannot be written: the disk is full, say.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"{path}: the disk is full; free some space or choose another place") from error
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: str | Path) -> Iterator[None]:
    """Keep every other process that asks the same of ``path`` waiting until the block is left.

    The lock is the system's, on an empty file ``path`` that stays behind: a process that dies gives it up. Where there
    are no such locks (Windows, some network disks), nobody waits.

    Raises:
        UserError: the file cannot be made.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting for another process to leave %s", path)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                log.info("%s: this disk has no locks (%s), so nobody waits", path, error.strerror)
        yield


def cache_folder() -> Path:
    """Return where what was computed is kept: ``$PDNLA_CACHE``, or ``pdnla`` in the user's cache folder."""
    if chosen := os.environ.get("PDNLA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pdnla"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
