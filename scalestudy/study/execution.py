"""Getting a list of runs done: read what is stored, train what is missing, report what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scalestudy.record import Record
from scalestudy.spec import RunSpec
from scalestudy.study.backends import Backend, InProcess, LocalProcesses, Outcome, WorkersUnavailable
from scalestudy.study.batch_report import BatchReport, IncompleteBatch
from scalestudy.study.estimate import Clock, usable_cores
from scalestudy.study.processes import terminated_as_exit
from scalestudy.study.progress import ProgressBar
from scalestudy.study.store import RunStore, StoreError
from scalestudy.study.worker import resolve

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BatchReport", "IncompleteBatch", "WorkersUnavailable", "plan", "run_all"]

DEVICES = ("auto", "cpu", "cuda")
DEFAULT_TRAIN = "scalestudy.training:train"


def run_all(
    specs: Iterable[RunSpec],
    store: RunStore,
    *,
    device: str = "auto",
    workers: int | None = None,
    time_budget: float | None = None,
    progress: bool = True,
    on_record: Callable[[Record], None] | None = None,
    train: str | None = None,
) -> BatchReport:
    """Bring the records of all runs about: stored ones cost a file read, the others are trained and stored.

    A run is stored by whoever trained it as soon as it is finished, so this call can be killed at any moment and
    called again.  Interrupting it (Ctrl-C, SIGTERM) kills its workers and leaves the store whole.

    Parameters
    ----------
    specs : iterable of RunSpec
        Most wanted first; started in this order.  Runs with equal keys are one run.
    store : RunStore
        May be in use by other processes; a run that another finishes in the meantime is read.
    device : {"auto", "cpu", "cuda"}
        "auto" is "cuda" where there is one.
    workers : int, optional
        0 or 1: in this process; more: that many processes, which share the GPU if there is one.  Default: on the CPU
        one per usable core, at most one per missing run; on a GPU 1.  On the CPU every run computes on one thread,
        wherever it runs, so results do not depend on this number.
    time_budget : float, optional
        Seconds from now, > 0.  A run that is not expected to finish in time is not started, a later, shorter one
        may be.  Runs under way are never cut off, so a wrong estimate can overrun it.
    progress : bool
        Show a progress bar on the standard error; ``TQDM_DISABLE=1`` in the environment turns it off, too.
    on_record : callable, optional
        Called with each newly trained record, in the order of finishing, in this process.
    train : str, optional
        Dotted path ``package.module:function`` of another training function (for experiments and tests) with the
        signature of `scalestudy.training.train`.

    Returns
    -------
    BatchReport

    Raises
    ------
    ValueError
        If an argument is out of its range.
    StoreError
        Before anything is trained, if the store cannot be written; later, if it becomes so.
    WorkersUnavailable
        If worker processes cannot be started.
    """
    began = time.monotonic()
    _check(device, workers, time_budget)
    wanted = list({spec.key: spec for spec in specs}.values())
    records = {spec.key: record for spec in wanted if (record := store.get(spec)) is not None}
    batch = _Batch(store, records, [spec for spec in wanted if spec.key not in records], on_record)
    if batch.pending:
        device = _device(device)
        store.require_writable()
        train = train or DEFAULT_TRAIN
        resolve(train)
        if workers is None:
            workers = min(usable_cores(), len(batch.pending)) if device == "cpu" else 1
        batch.clock = Clock(device, store.records())
        batch.deadline = None if time_budget is None else began + time_budget
        with ProgressBar(batch.pending, shown=progress) as batch.bar, terminated_as_exit():
            batch.execute(_backend(store, device, train, workers, batch))
    done = tuple(records[spec.key] for spec in wanted if spec.key in records)
    return BatchReport(
        done=done,
        read=len(done) - batch.trained,
        trained=batch.trained,
        failed=tuple(batch.failed),
        left_out=tuple(batch.left_out),
        seconds=time.monotonic() - began,
    )


def plan(specs: Iterable[RunSpec], store: RunStore, *, device: str = "auto") -> pd.DataFrame:
    """Say what `run_all` would do, without doing it.

    Parameters
    ----------
    specs, store
        As in `run_all`.
    device : {"auto", "cpu", "cuda"}
        As in `run_all`, but "cuda" may be asked about where there is none.

    Returns
    -------
    pandas.DataFrame
        One row per run, in order: key, label, stored (bool), seconds (expected training time of one run; 0 where
        it is stored).
    """
    import pandas as pd

    _check(device, None, None)
    wanted = list({spec.key: spec for spec in specs}.values())
    clock = Clock(device if device == "cuda" else _device(device), store.records())
    stored = set(store.keys())
    rows = [
        (spec.key, spec.label, spec.key in stored, 0.0 if spec.key in stored else clock.seconds(spec))
        for spec in wanted
    ]
    return pd.DataFrame(rows, columns=["key", "label", "stored", "seconds"])


@dataclass
class _Batch:
    """The state of one `run_all` call."""

    store: RunStore
    records: dict[str, Record]
    pending: list[RunSpec]
    on_record: Callable[[Record], None] | None
    trained: int = 0
    failed: list[tuple[RunSpec, str]] = field(default_factory=list)
    left_out: list[RunSpec] = field(default_factory=list)
    clock: Clock | None = None
    deadline: float | None = None
    bar: ProgressBar | None = None

    def execute(self, backend: Backend) -> None:
        queue, active = list(self.pending), 0
        try:
            while queue or active:
                while queue and backend.free() > 0:
                    active += self._start(queue.pop(0), backend)
                if not active:
                    continue
                outcome = backend.wait()
                if outcome.event == "progress":
                    self.bar.advance(outcome.spec, outcome.share)
                else:
                    active -= 1
                    self._finish(outcome)
        finally:
            backend.close()

    def _start(self, spec: RunSpec, backend: Backend) -> int:
        """Start a run unless another process has made it by now or there is no time; 1 if it was started."""
        record = self.store.get(spec)
        if record is not None:
            self.records[spec.key] = record
            self.bar.finish(spec, "made by another process")
        elif self.deadline is not None and time.monotonic() + self.clock.seconds(spec) > self.deadline:
            self.left_out.append(spec)
            self.bar.drop(spec)
        else:
            backend.start(spec)
            return 1
        return 0

    def _finish(self, outcome: Outcome) -> None:
        spec = outcome.spec
        if outcome.event == "unwritable":
            raise StoreError(outcome.text)
        record = self.store.get(spec) if outcome.event == "done" else None
        if record is None:
            self.failed.append((spec, outcome.text or "the record was stored, and has vanished or was damaged since"))
            self.bar.finish(spec, "failed")
            return
        self.trained += 1
        self.records[spec.key] = record
        self.clock.learn(record)
        self.bar.finish(spec, f"test error {record.metrics.test_error:.2f} %")
        if self.on_record is not None:
            self.on_record(record)


def _backend(store: RunStore, device: str, train: str, workers: int, batch: _Batch) -> Backend:
    if workers <= 1:
        return InProcess(store, device, train, lambda news: batch.bar.advance(news.spec, news.share))
    return LocalProcesses(store, device, train, workers)


def _check(device: str, workers: int | None, time_budget: float | None) -> None:
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {device!r}; leave it out for auto")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
        raise ValueError(f"workers must be an integer of at least 0, got {workers!r}; leave it out for one per core")
    if time_budget is not None and not time_budget > 0:
        raise ValueError(f"time_budget must be more than 0 seconds, got {time_budget!r}; leave it out for no limit")


def _device(device: str) -> str:
    if device == "cpu":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise ValueError("device must be one that torch finds, got 'cuda', and torch finds no GPU; use 'cpu' or 'auto'")
    return "cpu"
