"""Writing files whole: a reader never sees half of one, and a failed write leaves the old file as it was.

And locks between processes, and the folder of what can be computed again.
"""

import contextlib
import errno
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from pdnla.errors import DiskFullError, UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_TEMPORARY = ".pdnla-"
"""What the names of temporary files begin with."""
_LONGEST_SUFFIX = 16
"""Characters of a suffix that a temporary name keeps: with them it stays far below any file system's limit."""


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success it takes the place of ``path``.

    On any failure the temporary file is removed and ``path`` stays as it was. The folder is made if missing. The
    permissions of a file that is replaced are kept where the file system lets them be.

    Raises:
        DiskFullError: the disk is full.
        UserError: the folder cannot be made, or the file cannot be written.
    """
    path = Path(path)
    handle: int | None = None
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _make_temporary(path)
        yield temporary
        # Some file systems (vfat, network shares) refuse chmod: then the file has the permissions of a new one.
        with contextlib.suppress(OSError):
            temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"{path}: the disk is full; free some space or choose another place") from error
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{path}: cannot be written, its name is too long; choose a shorter one") from error
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _make_temporary(path: Path) -> tuple[int | None, Path]:
    """Make an empty file beside ``path``; return it and, where there are locks, a handle that holds its lock."""
    while True:
        temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}{path.suffix[:_LONGEST_SUFFIX]}")
        try:
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileExistsError:
            continue
        if fcntl is None:  # an open file cannot be renamed there
            os.close(handle)
            return None, temporary
        with contextlib.suppress(OSError):  # network disks without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if temporary.exists():  # before it was locked, another process may have removed it as a stale one
            return handle, temporary
        os.close(handle)


def remove_stale_temporaries(folder: Path) -> None:
    """Remove the temporary files in ``folder`` whose writers were killed; those being written are locked and stay.

    Where there are no locks (Windows, some network disks), all stay.
    """
    if fcntl is None:
        return
    for path in folder.glob(f"{_TEMPORARY}*"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except OSError as error:  # being written, no locks here, or another's file
            log.debug("%s: stays (%s)", path, error.strerror)


@contextlib.contextmanager
def lock(path: str | Path) -> Iterator[None]:
    """Hold the lock ``path``: every other process that asks for it waits until the block is left.

    The lock is the system's, on an empty file ``path`` that stays: a process that dies gives it up. Where there are no
    such locks (Windows, some network disks), nobody waits.

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
