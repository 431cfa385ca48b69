"""Locks on files, between threads, processes and machines; the system frees them however their holder ends."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_LOG = logging.getLogger(__name__)

_MOMENT_SECONDS = 10.0  # longer than making a realisation of MNIST-Scale takes
_WITHOUT_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP)


def take_lock(path: Path, timeout: float = 0.0) -> FileLock | None:
    """Create and lock a file; its folder is created where missing.

    Parameters
    ----------
    path : Path
        The file.  It holds nothing: the lock counts, not that the file is there.
    timeout : float
        Seconds to try for; 0: try once; -1: until it is free.

    Returns
    -------
    FileLock or None
        To be given to `free_lock`; any thread may do so.  None: somebody else has it, or had it a moment ago.

    Raises
    ------
    OSError
        Where nobody can lock this file: a folder that cannot be written, a file system without locks.
    """
    lock = FileLock(path, timeout=timeout, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        if error.errno in _WITHOUT_LOCKS:
            path.unlink(missing_ok=True)
        raise
    return lock


def free_lock(lock: FileLock) -> None:
    """Remove the file of a lock from `take_lock`, and free it; in a forked process, which never has it, do nothing.

    The file goes first: whoever has opened it meanwhile gets a lock on a file without a name, notices, and tries again.
    """
    if lock.is_locked:
        with suppress(OSError):  # Windows removes it in its own time
            Path(lock.lock_file).unlink()
        with suppress(OSError):
            lock.release()


@contextmanager
def first_alone(path: Path, doing: str) -> Iterator[None]:
    """Let the first to come do something alone; whoever comes meanwhile waits until it has ended, then enters.

    So the block begins by looking whether the work has been done.  Where it has not, because the first one failed or
    was killed, those who waited try at the same time, as if there were no lock: nobody queues for one more failure.
    The same holds where no file can be locked.

    Parameters
    ----------
    path : Path
        The lock file; removed at the end.
    doing : str
        What the first one does, for the warning of those who wait for more than ten seconds: ``"fetching MNIST"``.
    """
    lock = None
    try:
        lock = take_lock(path)
        if lock is None:
            _wait_for(path, doing)
    except OSError as error:
        _LOG.debug("cannot lock %s (%s); other processes may be %s too", path, error, doing)
    try:
        yield
    finally:
        if lock is not None:
            free_lock(lock)


def _wait_for(path: Path, doing: str) -> None:
    lock = take_lock(path, _MOMENT_SECONDS)
    if lock is None:
        _LOG.warning("another process is %s; waiting until it has ended", doing)
        lock = take_lock(path, -1)
    free_lock(lock)
