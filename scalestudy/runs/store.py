"""The run store: a folder with one ``<key>.json`` per finished run, and checkpoints and locks of those under way."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from scalestudy import files
from scalestudy.files import StoreError, probe, write_whole
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec
from scalestudy.training.state import CHECKPOINT_SUFFIX, CheckpointFile, Progress

_DAMAGED_FOLDER, _LOCK_SUFFIX = "damaged", ".lock"
_LOCK_SECONDS = 0.5  # that a run which another process makes is waited for


class DamagedRecordWarning(UserWarning):
    """A file in the store is not a valid record; it was not used and was moved aside."""


class RunStore:
    """A folder of records, created by the first one; any number of processes may use it at once.

    Records in the folders `also` count as stored, too; those are never written.
    """

    def __init__(self, folder: str | os.PathLike, *also: str | os.PathLike) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.also = tuple(map(Path, also))

    @classmethod
    def open(cls) -> RunStore:
        """The store that `files.runs` names, behind which stand the committed records."""
        return cls(files.runs(), files.records())

    def path(self, key: str) -> Path:
        """The file of a key: where it lies, else where it will."""
        paths = [folder / f"{key}.json" for folder in (self.folder, *self.also)]
        return next((path for path in paths if path.exists()), paths[0])

    def checkpoint(self, key: str) -> CheckpointFile:
        """The file that keeps a run while it is under way, existing or not; `put` removes it."""
        return CheckpointFile(self.folder / f"{key}{CHECKPOINT_SUFFIX}")

    def under_way(self) -> dict[str, Progress]:
        """How far the runs are that have a checkpoint and no record, by key."""
        keys = (path.stem for path in sorted(self.folder.glob(f"*{CHECKPOINT_SUFFIX}")))
        found = {key: self.checkpoint(key).progress() for key in keys if not self.path(key).exists()}
        return {key: progress for key, progress in found.items() if progress}

    def shares_done(self) -> dict[str, float]:
        """What part of the runs under way that this code can go on with is done, by key; tests count as an epoch."""
        usable = {key: progress for key, progress in self.under_way().items() if progress.is_of_this_code}
        return {key: progress.epochs_done / (progress.epochs + 1) for key, progress in usable.items()}

    def get(self, spec: RunSpec) -> Record | None:
        """The record of a run, or None; a damaged file is moved to ``damaged/`` with a warning and counts as none."""
        found = (self._load(folder / f"{spec.key}.json") for folder in (self.folder, *self.also))
        return next(filter(None, found), None)

    def put(self, record: Record) -> Path:
        """Store a record whole or not at all, replacing one with the same key; the checkpoint of its run goes."""
        path = self.folder / f"{record.key}.json"
        write_whole(path, (json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode())
        _remove(self.checkpoint(record.key).path)
        return path

    def records(self) -> list[Record]:
        """All valid records, sorted by key; anything else that ends in ``.json`` is moved aside as in `get`."""
        found = {record.key: record for path in self._paths() if (record := self._load(path)) is not None}
        return [found[key] for key in sorted(found)]

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Nobody else makes this run until the block ends, or this process; `filelock.Timeout` where somebody does."""
        lock = FileLock(path := self.folder / f"{key}{_LOCK_SUFFIX}", timeout=_LOCK_SECONDS, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            raise
        except OSError as error:
            remedy = f"free some space, make it writable, or name a folder with file locks in {files.RUNS_VARIABLE}"
            raise StoreError(f"cannot lock {path}: {error.strerror or error}; {remedy}") from error
        try:
            yield
        finally:
            _remove(path)  # before it is released: whoever opened it meanwhile notices, and tries again
            lock.release()

    def require_writable(self) -> None:
        """Clear up after processes that were killed just when they had stored a record, then `files.probe`."""
        for path in [*self.folder.glob(f"*{CHECKPOINT_SUFFIX}"), *self.folder.glob(f"*{_LOCK_SUFFIX}")]:
            if self.path(path.stem).exists():
                _remove(path)
        probe(self.folder)

    def merge(self, folder: str | os.PathLike) -> dict[str, list[str]]:
        """Copy the valid records of another store, which is not changed, into this one; what both have stays ours.

        Keys that were "copied", "already" here, in "conflict" (other metrics); files that are "damaged", and why.
        """
        if not (paths := _files(Path(folder).expanduser())):
            told = f"got {folder}, which holds no <key>.json files; name its runs/ folder"
            raise ValueError(f"folder must be another run store, {told}")
        report: dict[str, list[str]] = {"copied": [], "already": [], "conflict": [], "damaged": []}
        for path in paths:
            theirs, reason = _read(path)
            if theirs is None:
                report["damaged"].append(f"{path.name}: {reason}")
            elif (ours := self.get(theirs.spec)) is None:
                self.put(theirs)
                report["copied"].append(theirs.key)
            else:
                report["already" if ours.metrics == theirs.metrics else "conflict"].append(theirs.key)
        return report

    def damaged(self) -> list[tuple[str, str]]:
        """Names of what lies in ``damaged/`` and of what could not go there, with the reason as found now."""
        aside = [(path.name, _read(path)[1]) for path in _files(self.folder / _DAMAGED_FOLDER)]
        left = [(path.name, reason) for path in self._paths() if (reason := _read(path)[1])]
        return left + [(name, reason or "valid now; move it back to use it") for name, reason in aside]

    def _paths(self) -> list[Path]:
        return [path for folder in (*self.also, self.folder) for path in _files(folder)]

    def _load(self, path: Path) -> Record | None:
        record, reason = _read(path)
        if reason:
            where, target = "left where it is", self.folder / _DAMAGED_FOLDER / f"{path.stem}.{time.time_ns()}.json"
            if path.parent == self.folder:
                with suppress(OSError):  # else it stays
                    target.parent.mkdir(exist_ok=True)
                    where = f"moved to {path.rename(target)}"
            told = f"{path.name}: {reason}; not used, {where} (store {path.parent})"
            warnings.warn(told, DamagedRecordWarning, stacklevel=3)
        return record


def _remove(path: Path) -> None:
    with suppress(OSError):  # left behind it does no harm
        path.unlink()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _read(path: Path) -> tuple[Record | None, str]:
    """The record in a file, or None and the reason; without one where there is no file."""
    try:
        return _parse(path.read_bytes(), path.name.split(".")[0])
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except OSError as error:
        remedy = "make it readable, or move it away to have it run again"
        raise StoreError(f"cannot read {path}: {error.strerror}; {remedy}") from error


def _parse(content: bytes, key: str) -> tuple[Record | None, str]:
    """The record in a file named `key`, or None and the reason."""
    try:
        record = Record.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        return None, f"{'.'.join(map(str, first['loc'])) or 'record'}: {first['msg']}"
    if record.key != key:
        return None, f"foreign: it holds run {record.key}, its name says {key}"
    return record, ""
