"""The run store: a folder with one ``<key>.json`` per finished run, and checkpoints and locks of those under way."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from pydantic import ValidationError

from scalestudy import files
from scalestudy.files import StoreError, probe, write_whole
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec
from scalestudy.training.state import CHECKPOINT_SUFFIX, CheckpointFile, Progress

_DAMAGED_FOLDER, _LOCK_SUFFIX = "damaged", ".lock"
_LOG = logging.getLogger(__name__)


class DamagedRecordWarning(UserWarning):
    """A file in the store is not a valid record; it was not used and was moved aside."""


class MergeReport(NamedTuple):
    """What `RunStore.merge` did, as keys: copied, already here, here with other metrics; and files refused, and why."""

    copied: list[str]
    already: list[str]
    conflicts: list[str]
    damaged: list[tuple[str, str]]


class RunStore:
    """A content-addressed folder of records; any number of processes may use it at once.

    Parameters
    ----------
    folder : path-like
        Created by the first record.
    also : path-like
        Folders whose records count as stored, too, and that are never written.
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
        found = {key: self.checkpoint(key).progress() for key in self._checkpointed() if not self.path(key).exists()}
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
        self.checkpoint(record.key).remove()
        return path

    def records(self) -> list[Record]:
        """All valid records, sorted by key; anything else that ends in ``.json`` is moved aside as in `get`."""
        found = {record.key: record for path in self._paths() if (record := self._load(path)) is not None}
        return [found[key] for key in sorted(found)]

    @contextmanager
    def lock(self, key: str) -> Iterator[bool]:
        """Whether nobody else makes this run; then nobody else may until the block ends, or this process.

        Where files cannot be locked two batches may make the same run, which costs time and nothing else.
        """
        lock = FileLock(self.folder / f"{key}{_LOCK_SUFFIX}", blocking=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            _LOG.warning("cannot lock run %s in %s (%s); another batch may make it too", key, self.folder, error)
            yield True
            return
        try:
            yield True
        finally:
            with suppress(OSError):  # first the name: whoever opened the file meanwhile notices, and tries again
                Path(lock.lock_file).unlink()
            lock.release()

    def require_writable(self) -> None:
        """Clear up after killed processes, then write and remove a test file; `StoreError` if that fails."""
        for path in self.folder.glob(f"*{_LOCK_SUFFIX}"):
            with self.lock(path.stem):
                pass
        for key in self._checkpointed():
            if self.path(key).exists():
                self.checkpoint(key).remove()  # whoever stored the record was killed just then
        probe(self.folder)

    def merge(self, folder: str | os.PathLike) -> MergeReport:
        """Copy the valid records of another store (or of a folder copied from another machine) into this one.

        Ours is kept where both have a run; differing metrics are reported.  The other folder is not changed.
        """
        if not (paths := _files(Path(folder).expanduser())):
            told = f"got {folder}, which holds no <key>.json files; name its runs/ folder"
            raise ValueError(f"folder must be another run store, {told}")
        report = MergeReport([], [], [], [])
        for path in paths:
            theirs, reason = _read(path)
            if theirs is None:
                report.damaged.append((path.name, reason))
            elif (ours := self.get(theirs.spec)) is None:
                self.put(theirs)
                report.copied.append(theirs.key)
            else:
                (report.already if ours.metrics == theirs.metrics else report.conflicts).append(theirs.key)
        return report

    def damaged(self) -> list[tuple[str, str]]:
        """Names of what lies in ``damaged/`` and of what could not go there, with the reason as found now."""
        aside = [(path.name, _read(path)[1]) for path in _files(self.folder / _DAMAGED_FOLDER)]
        left = [(path.name, reason) for path in self._paths() if (reason := _read(path)[1])]
        return left + [(name, reason or "valid now; move it back to use it") for name, reason in aside]

    def _paths(self) -> list[Path]:
        return [path for folder in (*self.also, self.folder) for path in _files(folder)]

    def _checkpointed(self) -> list[str]:
        return [path.stem for path in sorted(self.folder.glob(f"*{CHECKPOINT_SUFFIX}"))]

    def _load(self, path: Path) -> Record | None:
        record, reason = _read(path)
        if reason:
            self._move_aside(path, reason)
        return record

    def _move_aside(self, path: Path, reason: str) -> None:
        where = "left where it is"
        if path.parent == self.folder:
            target = self.folder / _DAMAGED_FOLDER / path.name
            if target.exists():
                target = target.with_name(f"{path.stem}.{time.time_ns()}-{os.getpid()}.json")
            try:
                target.parent.mkdir(exist_ok=True)
                os.rename(path, target)
                where = f"moved to {target}"
            except FileNotFoundError:
                return  # another process was faster, and warned
            except OSError:
                pass  # it stays
        told = f"{path.name}: {reason}; not used, {where} (store {path.parent})"
        warnings.warn(told, DamagedRecordWarning, stacklevel=4)


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
    if not content:
        return None, "empty"
    try:
        data = json.loads(content)
    except ValueError as error:
        return None, f"truncated or not JSON ({error})"
    spec = data.get("spec") if isinstance(data, dict) else None
    known = RunSpec.model_fields["recipe"].default
    if isinstance(spec, dict) and spec.get("recipe", known) != known:
        return None, f"made by recipe {spec['recipe']}, this version of scalestudy has recipe {known}"
    try:
        record = Record.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "record"
        return None, f"{where}: {first['msg']}"
    if record.key != key:
        return None, f"foreign: it holds run {record.key}, its name says {key}"
    return record, ""
