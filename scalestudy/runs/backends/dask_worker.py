"""What happens on a Dask worker: a spec comes in, a record goes out, and a training process does the work between.

A thread of the Dask worker only waits, so training neither keeps the worker from answering its scheduler nor takes it
down in a crash.  The record is kept in the run store of the worker's own machine, too, which is the client's where
they share the folder: a client or a scheduler that dies loses no finished run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalestudy import files
from scalestudy.runs.backends.base import Outcome, WorkersUnavailable
from scalestudy.runs.backends.local_processes import LocalProcesses
from scalestudy.runs.store import RunStore, StoreError
from scalestudy.training.spec import RunSpec

if TYPE_CHECKING:
    from distributed import Worker

TOPIC = "scalestudy"
"""Dask topic of the progress messages ``{"key": ..., "share": ...}``, to which Dask adds the worker's address."""

TASK = "run-"
"""Dask task keys are this and the run's key: by what stands before the hyphen Dask tells kinds of tasks apart, and so
learns how long runs take (for adaptive clusters) instead of keeping statistics of each run for ever."""

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 30.0
_SHARE_SECONDS = 1.0

Reply = dict[str, Any]


@cache
def versions() -> dict[str, str]:
    """Versions that all machines of a batch must share: of the recipe, and torch's major.minor."""
    return {
        "scalestudy recipe": str(RunSpec.model_fields["recipe"].default),
        "torch": ".".join(version("torch").split(".")[:2]),
    }


def mismatch(theirs: dict[str, str], ours: dict[str, str]) -> str:
    """Say which versions of a worker differ from the client's; empty where none does.

    Examples
    --------
    >>> mismatch({"torch": "2.11"}, {"torch": "2.13"})
    'it has torch 2.11, this client has torch 2.13'
    """
    differing = [name for name, wanted in ours.items() if theirs.get(name) != wanted]
    return "; ".join(f"it has {name} {theirs.get(name)}, this client has {name} {ours[name]}" for name in differing)


def make_run(spec: str, device: str, train: str, wanted_versions: dict[str, str]) -> Reply:
    """Make one run; called by Dask in a thread of a worker.

    Parameters
    ----------
    spec : str
        JSON of the `RunSpec`.
    device : {"cpu", "cuda"}
    train : str
        Dotted path of the training function.
    wanted_versions : dict
        `versions` of the client.

    Returns
    -------
    dict
        "event" is "done" (trained) or "found" (its record was in the store of this machine), with the JSON of the
        record as "record"; "failed" (the run's fault), "rejected" (this worker's) or "stopped", with the reason as
        "text".
    """
    from distributed import get_worker

    if differing := mismatch(versions(), wanted_versions):
        return {"event": "rejected", "text": differing}
    worker, run = get_worker(), RunSpec.model_validate_json(spec)
    try:
        with _SLOTS.taken(worker, device, train) as slot:
            return slot.make(run, _Reporter(worker, run.key))
    except (WorkersUnavailable, StoreError) as error:
        return {"event": "rejected", "text": str(error)}


class _Reporter:
    """The way from a run to its client, and back: progress, and whether the run is still wanted."""

    def __init__(self, worker: Worker, key: str) -> None:
        self._worker, self.key = worker, key
        self._told = float("-inf")

    def tell(self, share: float) -> None:
        """Send a share of progress, but not so many that they burden the scheduler."""
        if time.monotonic() > self._told + _SHARE_SECONDS:
            self._told = time.monotonic()
            self._worker.log_event(TOPIC, {"key": self.key, "share": share})

    def wanted(self) -> bool:
        """Whether nobody has cancelled the task since."""
        task = self._worker.state.tasks.get(TASK + self.key)
        return task is not None and task.state == "executing"


class _Slot:
    """One training process of this worker, kept for the next run.

    Attributes
    ----------
    number : int
        Its number among the slots of the worker.
    kind : tuple of str
        Device and training function.
    usable : bool
        Whether it can take another run.
    """

    def __init__(self, number: int, kind: tuple[str, str], store: RunStore) -> None:
        self.number, self.kind, self.usable = number, kind, True
        self._store = store
        self._process = LocalProcesses(store, *kind, workers=1, first_slot=number)

    def make(self, run: RunSpec, reporter: _Reporter) -> Reply:
        """Read or train the run, as `make_run` says."""
        record = self._store.get(run)
        if record is not None:
            return {"event": "found", "record": record.model_dump_json()}
        reporter.tell(0.0)
        self.usable = False
        self._process.start(run)
        outcome = self._outcome(reporter)
        if outcome.event == "unwritable":
            raise StoreError(outcome.text)
        self.usable = outcome.event != "stopped"
        record = self._store.get(run) if outcome.event == "done" else None
        if record is not None:
            return {"event": "done", "record": record.model_dump_json()}
        if outcome.event == "done":
            raise StoreError(f"{self._store.path(run.key)} was stored, and has vanished or was damaged since")
        return {"event": outcome.event, "text": outcome.text}

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _outcome(self, reporter: _Reporter) -> Outcome:
        """How the run ended; a run that nobody wants any more is stopped."""
        give_up = None
        while True:
            outcome = self._process.wait(_POLL_SECONDS)
            if outcome is not None and outcome.event != "progress":
                return outcome
            if outcome is not None:
                reporter.tell(outcome.share)
            if give_up is None and not reporter.wanted():
                give_up = time.monotonic() + _PATIENCE_SECONDS
                self._process.stop()
                _LOG.warning(
                    "run %s was cancelled; it ends after its current epoch or %g s", reporter.key, _PATIENCE_SECONDS
                )
            if give_up is not None and time.monotonic() > give_up:
                raise WorkersUnavailable(f"a cancelled run did not end within {_PATIENCE_SECONDS:.0f} s and was killed")


class _Slots:
    """The slots of this Dask worker: as many as it has runs at a time, numbered from 0."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Slot] = []
        self._busy: set[int] = set()
        self._store: RunStore | None = None

    @contextmanager
    def taken(self, worker: Worker, device: str, train: str) -> Iterator[_Slot]:
        """A slot whose process is of this kind, started where there is none."""
        with self._lock:
            slot = self._take((device, train), worker)
            self._busy.add(slot.number)
        try:
            yield slot
        finally:
            if not slot.usable:
                slot.close()
            with self._lock:
                self._busy.remove(slot.number)
                if slot.usable:
                    self._idle.append(slot)

    def _take(self, kind: tuple[str, str], worker: Worker) -> _Slot:
        for slot in self._idle:
            if slot.kind == kind:
                self._idle.remove(slot)
                return slot
        for slot in self._idle:
            slot.close()  # of another batch: one process per slot
        self._idle.clear()
        number = next(number for number in range(len(self._busy) + 1) if number not in self._busy)
        return _Slot(number, kind, self._run_store(worker))

    def _run_store(self, worker: Worker) -> RunStore:
        """The run store of this machine, or where that cannot be written, one that lasts as long as the worker."""
        if self._store is None:
            self._store = RunStore(files.runs())
            try:
                self._store.require_writable()
            except StoreError as error:
                self._store = RunStore(Path(worker.local_directory) / "runs")
                _LOG.warning("%s; records are kept in %s meanwhile", error, self._store.folder)
        return self._store


_SLOTS = _Slots()
