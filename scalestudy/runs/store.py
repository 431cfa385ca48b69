"""The run store: a folder with one ``<key>.json`` per finished run, and checkpoints and locks of those under way."""

from __future__ import annotations

import json
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from scalestudy import files
from scalestudy.files import StoreError, probe, unwritable, write_whole
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec
from scalestudy.training.state import CHECKPOINT_SUFFIX, CheckpointFile, Progress

_DAMAGED_FOLDER, _LOCK_SUFFIX = "damaged", ".lock"
_KEY = re.compile(r"[0-9a-f]{16}")
_LOG = logging.getLogger(__name__)


class DamagedRecordWarning(UserWarning):
    """A file in the store is not a valid record; it was not used and was moved aside."""


@dataclass(frozen=True)
class Problem:
    """A file that is no valid record: its name, why, and where it lies now (None: where it was)."""

    name: str
    reason: str
    moved_to: Path | None = None

    def __str__(self) -> str:
        where = f"moved to {self.moved_to}" if self.moved_to else "left where it is"
        return f"{self.name}: {self.reason}; not used, {where}"


@dataclass(frozen=True)
class MergeReport:
    """What `RunStore.merge` did, as keys: copied, already here, here with other metrics; and files refused."""

    copied: tuple[str, ...]
    already: tuple[str, ...]
    conflicts: tuple[str, ...]
    damaged: tuple[Problem, ...]


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
        self.problems: list[Problem] = []  # met by this object; each was also a `DamagedRecordWarning`
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
        content = (json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()
        again, reason = _parse(content, record.key)
        if again != record:
            raise ValueError(f"record must read back as it is, got {record.key} ({reason}); build it with Record.of")
        path = self.folder / f"{record.key}.json"
        write_whole(path, content)
        self.checkpoint(record.key).remove()
        return path

    def keys(self) -> tuple[str, ...]:
        """Names of the runs in the folder, sorted; the files are not opened."""
        return tuple(path.stem for path in _files(self.folder) if _KEY.fullmatch(path.stem))

    def records(self) -> list[Record]:
        """All valid records, sorted by key; anything else that ends in ``.json`` is moved aside as in `get`."""
        paths = [path for folder in (*self.also, self.folder) for path in _files(folder)]
        found = {record.key: record for path in paths if (record := self._load(path)) is not None}
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
        folder = Path(folder).expanduser().absolute()
        paths = _files(folder)
        if not paths or folder.resolve() == self.folder.resolve():
            what = "is this store itself" if paths else "holds no <key>.json files"
            raise ValueError(f"folder must be another run store, got {folder}, which {what}; name its runs/ folder")
        copied, already, conflicts, damaged = [], [], [], []
        for path in paths:
            theirs, reason = _parse(_read(path), path.stem)
            if theirs is None:
                damaged.append(Problem(path.name, reason))
            elif (ours := self.get(theirs.spec)) is None:
                self.put(theirs)
                copied.append(theirs.key)
            else:
                (already if ours.metrics == theirs.metrics else conflicts).append(theirs.key)
        return MergeReport(tuple(copied), tuple(already), tuple(conflicts), tuple(damaged))

    def damaged(self) -> list[Problem]:
        """Everything in the ``damaged/`` folder, and what could not go there; with the reason as found now."""
        problems = []
        for path in sorted((self.folder / _DAMAGED_FOLDER).glob("*.json")):
            reason = _parse(_read(path), path.name.split(".")[0])[1]
            problems.append(Problem(path.name, reason or "valid now; move it back to use it", path))
        left = {problem.name: problem for problem in self.problems if problem.moved_to is None}
        return [*problems, *left.values()]

    def _checkpointed(self) -> list[str]:
        return [path.stem for path in sorted(self.folder.glob(f"*{CHECKPOINT_SUFFIX}"))]

    def _load(self, path: Path) -> Record | None:
        content = _read(path)
        if content is None:
            return None
        record, reason = _parse(content, path.stem)
        if record is None:
            self._move_aside(path, reason)
        return record

    def _move_aside(self, path: Path, reason: str) -> None:
        aside, target = self.folder / _DAMAGED_FOLDER, None
        if path.parent == self.folder:
            target = aside / path.name
            if target.exists():
                target = aside / f"{path.stem}.{time.time_ns()}-{os.getpid()}.json"
            try:
                aside.mkdir(exist_ok=True)
                os.rename(path, target)
            except FileNotFoundError:
                return  # another process was faster, and warned
            except OSError:
                target = None
        problem = Problem(path.name, reason, target)
        self.problems.append(problem)
        warnings.warn(f"{problem} (store {path.parent})", DamagedRecordWarning, stacklevel=4)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _read(path: Path) -> bytes | None:
    """The content, or None for no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise unwritable(path.parent, error) from error
    except OSError as error:
        remedy = "make it readable, or move it away to have it run again"
        raise StoreError(f"cannot read {path}: {error.strerror}; {remedy}") from error


def _parse(content: bytes | None, key: str) -> tuple[Record | None, str]:
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
