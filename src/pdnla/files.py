"""Atomic writes, locks between processes, and the cache folder.

A reader never sees half a file, and a failed write leaves the old file unchanged.
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
"""Prefix of the names of temporary files."""
_LONGEST_SUFFIX = 16
"""Characters of the suffix that a temporary name keeps, so that it stays far below any file system's limit."""


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success it replaces ``path``.

    After a failure the temporary file is removed and ``path`` is unchanged. A missing folder is created. The
    permissions of a replaced file are kept where the file system allows it.

    Raises:
        DiskFullError: the disk is full.
        UserError: the folder cannot be created, or the file cannot be written.
    """
    path = Path(path)
    handle: int | None = None
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _make_temporary(path)
        yield temporary
        # Some file systems (vfat, network shares) refuse chmod; the file then has default permissions.
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
    """Create an empty file next to ``path``; return it and, where locks exist, a handle that holds its lock."""
    while True:
        temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}{path.suffix[:_LONGEST_SUFFIX]}")
        try:
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileExistsError:
            continue
        if fcntl is None:  # Windows cannot rename an open file
            os.close(handle)
            return None, temporary
        with contextlib.suppress(OSError):  # network disks without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if temporary.exists():  # another process may have removed it before the lock was taken
            return handle, temporary
        os.close(handle)


def remove_stale_temporaries(folder: Path) -> None:
    """Remove the temporary files in ``folder`` whose writers were killed; a running writer holds a lock.

    Without locks (Windows, some network disks), no file is removed.
    """
    if fcntl is None:
        return
    for path in folder.glob(f"{_TEMPORARY}*"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except OSError as error:  # being written, no locks, or another user's file
            log.debug("%s: stays (%s)", path, error.strerror)


@contextlib.contextmanager
def lock(path: str | Path) -> Iterator[None]:
    """Hold the lock ``path`` in the block; other processes that want it wait.

    The lock is the operating system's, on an empty file ``path`` that is kept, so a process that dies releases it.
    Without such locks (Windows, some network disks), no process waits.

    Raises:
        UserError: the file cannot be created.
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
                log.info("waiting for another process to release %s", path)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                log.info("%s: this file system has no locks (%s); going on without one", path, error.strerror)
        yield


def cache_folder() -> Path:
    """Return the cache folder: ``$PDNLA_CACHE``, or ``pdnla`` in the user's cache folder."""
    if chosen := os.environ.get("PDNLA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pdnla"


def identity(path: Path) -> list[str | int]:
    """Return values that change if a file does: its path, bytes and time of modification."""
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]
