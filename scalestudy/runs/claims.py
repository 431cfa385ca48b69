"""Claims on runs, so that two batches on one store do not make the same run at the same time."""

from __future__ import annotations

import logging
from pathlib import Path

from filelock import FileLock

from scalestudy.runs.locks import free_lock, take_lock

_LOG = logging.getLogger(__name__)

CLAIM_SUFFIX = ".claim"


class Claims:
    """The runs that one batch is making, each claimed by a locked file ``<key>.claim`` beside the records.

    However a process ends, the system frees its claims.  A claim is no record: look for the record of a run *after*
    claiming it, since another batch may have stored it just before it let go.

    Parameters
    ----------
    folder : Path
        The folder of the run store; created by the first claim.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ours, theirs = Claims(Path(folder)), Claims(Path(folder))
    ...     print(ours.take("a"), theirs.take("a"), theirs.take("b"))
    ...     ours.release("a")
    ...     print(theirs.take("a"))
    ...     theirs.release_all()
    True False True
    True
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._locks: dict[str, FileLock] = {}
        self._warned = False

    def take(self, key: str) -> bool:
        """Claim a run.

        Parameters
        ----------
        key : str
            Key of the run, see `RunSpec.key`.

        Returns
        -------
        bool
            False where another process, or another object of this class, has the claim (or let go of it a moment ago).
            True where it is ours now or was already; also, with a warning logged once, where files cannot be locked
            (a folder that cannot be written, a file system without locks): two batches may then make the same run,
            which costs time and nothing else.
        """
        if key in self._locks:
            return True
        try:
            lock = take_lock(_path(self.folder, key))
        except OSError as error:
            if not self._warned:
                _LOG.warning("cannot claim runs in %s (%s); another batch may make the same ones", self.folder, error)
                self._warned = True
            return True
        if lock is None:
            return False
        self._locks[key] = lock
        return True

    def release(self, key: str) -> None:
        """Let go of a claim; no error where it is not ours."""
        lock = self._locks.pop(key, None)
        if lock is not None:
            free_lock(lock)

    def release_all(self) -> None:
        """Let go of every claim of this object."""
        for key in tuple(self._locks):
            self.release(key)


def remove_stale_claims(folder: Path) -> tuple[str, ...]:
    """Remove the files of claims that nobody has, left by killed processes.

    Returns
    -------
    tuple of str
        Names of the removed files, sorted.
    """
    removed = []
    for path in sorted(folder.glob(f"*{CLAIM_SUFFIX}")):
        try:
            lock = take_lock(path)
        except OSError:
            continue  # not ours to judge: it does no harm
        if lock is not None:
            free_lock(lock)
            removed.append(path.name)
    return tuple(removed)


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}{CLAIM_SUFFIX}"
