"""The loop of a batch: what is started, what is waited for, what has come of each run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from scalestudy.runs.backends import Backend, Outcome, RunStopped
from scalestudy.runs.claims import Claims
from scalestudy.runs.estimate import Clock
from scalestudy.runs.processes import StopRequest
from scalestudy.runs.progress import ProgressBar
from scalestudy.runs.store import RunStore, StoreError
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

_POLL_SECONDS = 0.5


@dataclass
class Batch:
    """The state of one `run_all` call.

    Attributes
    ----------
    records : dict
        Known records by key; those that are made or read are added.
    pending : list of RunSpec
        Runs without one, most wanted first.
    begun : dict
        What part of a run was done before this batch, by key; see `RunStore.shares_done`.
    clock, deadline : Clock, float or None
        Expected times, and the monotonic second by which runs should end; needed before `execute`.
    active, elsewhere : dict
        Runs under way here, and in other processes, by key.
    asked, looked : float
        Monotonic seconds when those elsewhere, and the deadline, were last looked at.
    trained, failed, left_out
        As in `BatchReport`.
    """

    store: RunStore
    records: dict[str, Record]
    pending: list[RunSpec]
    begun: dict[str, float]
    on_record: Callable[[Record], None] | None
    claims: Claims
    stop: StopRequest
    bar: ProgressBar
    clock: Clock | None = None
    deadline: float | None = None
    active: dict[str, RunSpec] = field(default_factory=dict)
    elsewhere: dict[str, RunSpec] = field(default_factory=dict)
    asked: float = float("-inf")
    looked: float = float("-inf")
    trained: int = 0
    failed: list[tuple[RunSpec, str]] = field(default_factory=list)
    left_out: list[RunSpec] = field(default_factory=list)

    def execute(self, backend: Backend) -> None:
        """Make the pending runs; those that another batch is making are awaited."""
        queue = deque(self.pending)
        while queue or self.active or self.elsewhere:
            if self.stop.requested:
                self._stop(backend)
                return
            while queue and backend.free() > 0:
                self._start(queue.popleft(), backend)
            self._withdraw_late(backend)
            if self.active or (queue and backend.free() <= 0):
                self._hear(backend.wait(_POLL_SECONDS))
            elif self.elsewhere and not queue:
                self.bar.note(f"waiting for {len(self.elsewhere)} runs that another process makes")
                time.sleep(_POLL_SECONDS)
            queue.extend(self._given_up_elsewhere())

    def progress(self, outcome: Outcome) -> None:
        """Show an epoch of a run in this process; end the run where that was asked for."""
        self.bar.advance(outcome.spec, outcome.share)
        if self.stop.requested and outcome.share < 1:
            raise RunStopped

    def _start(self, spec: RunSpec, backend: Backend) -> None:
        """Start a run unless there is no time, or another process makes it or has made it."""
        if not self._fits(spec):
            self._leave_out(spec)
        elif not self.claims.take(spec.key):
            self.elsewhere[spec.key] = spec
        elif not self._read(spec):
            self.active[spec.key] = spec
            backend.start(spec)

    def _read(self, spec: RunSpec) -> bool:
        """Whether another process has stored the run by now."""
        record = self.store.get(spec)
        if record is not None:
            self.claims.release(spec.key)
            self.records[spec.key] = record
            self.bar.finish(spec, "made by another process")
        return record is not None

    def _given_up_elsewhere(self) -> list[RunSpec]:
        """Runs that another process was making and has given up; those that it has finished are read."""
        if time.monotonic() < self.asked + _POLL_SECONDS:
            return []
        self.asked, again = time.monotonic(), []
        for spec in list(self.elsewhere.values()):
            if self._read(spec):
                del self.elsewhere[spec.key]
            elif not self._fits(spec):
                del self.elsewhere[spec.key]
                self._leave_out(spec)
            elif self.claims.take(spec.key):
                del self.elsewhere[spec.key]
                again.append(spec)
        return again

    def _fits(self, spec: RunSpec) -> bool:
        if self.deadline is None:
            return True
        seconds = self.clock.seconds(spec) * (1 - self.begun.get(spec.key, 0.0))
        return time.monotonic() + seconds <= self.deadline

    def _leave_out(self, spec: RunSpec) -> None:
        self.left_out.append(spec)
        self.bar.drop(spec)

    def _withdraw_late(self, backend: Backend) -> None:
        """Leave out what waits for a slot and would not finish in time any more; looked at now and then."""
        if self.deadline is None or time.monotonic() < self.looked + _POLL_SECONDS:
            return
        self.looked = time.monotonic()
        for spec in list(self.active.values()):
            if not self._fits(spec) and backend.withdraw(spec):
                self._end(spec)
                self._leave_out(spec)

    def _stop(self, backend: Backend) -> None:
        """Let what is under way end after its epoch; the runs that end by that are stored, the others are kept."""
        backend.stop()
        self.bar.note("stopping after the current epochs")
        while self.active:
            self._hear(backend.wait(_POLL_SECONDS))

    def _hear(self, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        if outcome.event == "progress":
            self.bar.advance(outcome.spec, outcome.share)
            return
        self._end(outcome.spec)
        if outcome.event == "unwritable":
            raise StoreError(outcome.text)
        if outcome.event == "stopped":
            self._leave_out(outcome.spec)
        else:
            self._finish(outcome)

    def _end(self, spec: RunSpec) -> None:
        del self.active[spec.key]
        self.claims.release(spec.key)

    def _finish(self, outcome: Outcome) -> None:
        spec = outcome.spec
        record = self.store.get(spec) if outcome.event in ("done", "found") else None
        if record is None:
            self.failed.append((spec, outcome.text or "the record was stored, and has vanished or was damaged since"))
            self.bar.finish(spec, "failed")
            return
        self.trained += outcome.event == "done"
        self.records[spec.key] = record
        self.clock.learn(record)
        self.bar.finish(spec, f"test error {record.metrics.test_error:.2f} %")
        if self.on_record is not None:
            self.on_record(record)
