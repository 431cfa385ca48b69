"""Files that other processes see whole or not at all, and clearing up after killed writers."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import time
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"

_STALE_SECONDS = 24 * 3600
_PROBE_BYTES = 64 * 1024


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that other processes see whole or not at all, and that survives a power cut.

    Parameters
    ----------
    path : Path
        Its folder is created where missing.  A file of that name is replaced.
    content : bytes
        The whole content.

    Raises
    ------
    OSError
        If the folder cannot be written or the disk is full.  No half file is left behind.
    """
    temporary = _temporary(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write_synced(temporary, content)
        if temporary.read_bytes() != content:
            raise OSError("what was written reads back differently")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def try_writing(folder: Path) -> None:
    """Find out whether a folder can be written, by writing 64 KiB and removing them.

    Raises
    ------
    OSError
        If it cannot.
    """
    temporary = _temporary(folder / "probe")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _write_synced(temporary, bytes(_PROBE_BYTES))
    finally:
        temporary.unlink(missing_ok=True)


def remove_stale_temporaries(folder: Path) -> tuple[str, ...]:
    """Remove what killed writers left.

    A temporary of this machine goes when its process has ended, whatever the clock says; one of another machine that
    shares the folder (or of this one before it was started again) when it is older than a day.

    Returns
    -------
    tuple of str
        Names of the removed files.
    """
    removed = []
    for path in sorted(folder.glob(f"*{TEMPORARY_SUFFIX}")):
        try:
            if _is_stale(path):
                path.unlink()
                removed.append(path.name)
        except OSError:
            continue  # gone meanwhile, or not ours to remove: it does no harm
    return tuple(removed)


def _temporary(path: Path) -> Path:
    """A name beside `path` that no other writer has, and that tells whose it is."""
    return path.with_name(f"{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def _write_synced(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open folders; its rename is durable enough
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_stale(path: Path) -> bool:
    parts = path.name.split(".")
    if len(parts) >= 4 and parts[-4] == _host() and parts[-3].isdecimal():
        return not _alive(int(parts[-3]))  # whatever its age: the clock may have jumped while it is being written
    return time.time() - path.stat().st_mtime > _STALE_SECONDS


def _alive(pid: int) -> bool:
    """Whether a process may still write; one that has ended and waits for its parent to notice does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True  # not Linux, or it ended just now: the next call will see


def _host() -> str:
    """Eight hex digits that differ wherever process ids mean other processes: machine, boot, container."""
    parts = [platform.node()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(), lambda: os.readlink("/proc/self/ns/pid")):
        try:
            parts.append(read())
        except OSError:
            continue  # not Linux: the name of the machine has to do
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
