"""Writing into folders of results: errors that name the folder and the way out."""

from __future__ import annotations

from pathlib import Path

from scalestudy.whole_files import try_writing, write_whole


class StoreError(OSError):
    """A folder of results that cannot be read or written.  The message names it and the way out."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file as `scalestudy.whole_files.write_whole` does.

    Raises
    ------
    StoreError
        If the folder cannot be written or the disk is full.  No half file is left behind.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise unwritable(path.parent, error) from error


def probe(folder: Path) -> None:
    """Find out whether a folder can be written.

    Raises
    ------
    StoreError
        If it cannot.
    """
    try:
        try_writing(folder)
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> StoreError:
    """Return the error to raise where `folder` cannot be written."""
    reason = error.strerror or str(error)
    return StoreError(
        f"cannot write to the folder {folder}: {reason}; free some space or make it writable, or name another "
        "folder in the environment variable SCALESTUDY_RUNS (records) or SCALESTUDY_RESULTS (reports). Every run that "
        "was stored before is whole"
    )
