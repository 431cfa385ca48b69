"""Getting a list of runs done: read what is stored, have made what is missing, report what came of it."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scalestudy.runs.estimate import Clock, ProgressBar
from scalestudy.runs.store import RunStore, StoreError
from scalestudy.runs.workers import DEFAULT_TRAIN, Answer, Hear, Place, RunFailed, WorkersUnavailable, here
from scalestudy.training.device import usable_cores
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

SCHEDULER_VARIABLE = "SCALESTUDY_SCHEDULER"  # names a Dask scheduler, by address or by scheduler file

_DEVICES = ("auto", "cpu", "cuda")
_POLL_SECONDS = 0.5


class IncompleteBatch(RuntimeError):
    """Some of the wanted runs have no record; the message says which and why."""


@dataclass(frozen=True)
class BatchReport:
    """What `run_all` did: the records there are now, in the order of the specs; runs that failed, with traceback."""

    done: tuple[Record, ...]
    read: int  # were stored, or made by another process
    trained: int
    failed: tuple[tuple[RunSpec, str], ...]
    left_out: tuple[RunSpec, ...]  # were not expected to end within the time budget
    seconds: float

    @property
    def text(self) -> str:
        """One line for people."""
        return (
            f"{len(self.done)} runs: {self.read} read, {self.trained} trained; {len(self.failed)} failed, "
            f"{len(self.left_out)} left out by the time budget; {self.seconds:.0f} s"
        )

    def require_complete(self) -> BatchReport:
        """The report, or `IncompleteBatch` where a run failed or was left out."""
        if self.failed:
            spec, text = self.failed[0]
            last = text.strip().splitlines()[-1]
            raise IncompleteBatch(f"{len(self.failed)} runs failed; the first is {spec.key} ({spec.label}): {last}")
        if self.left_out:
            told = f"{len(self.left_out)} runs were left out by the time budget, the first is {self.left_out[0].label}"
            raise IncompleteBatch(f"{told}; call again to go on")
        return self


def run_all(
    specs: Iterable[RunSpec],
    store: RunStore,
    *,
    device: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    time_budget: float | None = None,
    progress: bool = True,
    on_record: Callable[[Record], None] | None = None,
    train: str | None = None,
) -> BatchReport:
    """Bring the records of all runs about: stored ones cost a file read, the others are trained and stored.

    A run is stored when it is finished, and kept about once a minute until then: killed, this call goes on from there.

    Parameters
    ----------
    specs : iterable of RunSpec
        Most wanted first; started in this order.  Runs with equal keys are one run.
    store : RunStore
        May be in use by other processes; a run that another one is making is awaited and read, not made twice.
    device : {"auto", "cpu", "cuda"}
        "auto" is "cuda" where there is one; on a cluster, where a worker declares the resource GPU.
    workers : int, optional
        Processes of this machine, at least 1, spread over its GPUs.  Default: one per usable core, at most one per
        missing run; on a GPU 1.  On the CPU each computes on one thread, so results do not depend on this number.
    scheduler : str, optional
        Address (``tcp://host:port``) or scheduler file of a Dask cluster that trains instead.  Default: what
        ``SCALESTUDY_SCHEDULER`` names, unless `workers` is given; else no cluster.
    time_budget : float, optional
        Seconds, > 0.  A run that is not expected to finish in time is not started, a later, shorter one may be.  Where
        no such run has ended, its first two epochs tell whether it is gone on with.  Others are never cut off.
    progress : bool
        Show a progress bar on the standard error; ``TQDM_DISABLE=1`` in the environment turns it off, too.
    on_record : callable, optional
        Called with each newly trained record, in the order of finishing, in this process.
    train : str, optional
        ``package.module:function`` with the signature of `scalestudy.training.train.train`, to be called instead.

    Returns
    -------
    BatchReport

    Raises
    ------
    ValueError, StoreError, WorkersUnavailable
        If an argument is out of its range, the store cannot be written, or no worker can be had any more.
    """
    began = time.monotonic()
    _check(device, workers, time_budget, train)
    scheduler = scheduler_for(scheduler, workers)
    wanted = {spec.key: spec for spec in specs}
    records = {key: record for key, spec in wanted.items() if (record := store.get(spec)) is not None}
    batch = _Batch(store, records, on_record, None if time_budget is None else began + time_budget)
    if pending := [spec for key, spec in wanted.items() if key not in records]:
        store.require_writable()
        with _place(store, device, train or DEFAULT_TRAIN, workers, scheduler, batch.hear, len(pending)) as place:
            clock = Clock(place.device, store.records())
            with closing(ProgressBar(pending, clock, store.shares_done(), progress)) as bar:
                batch.execute(pending, place, clock, bar)
    done = tuple(records[key] for key in wanted if key in records)
    failed, left_out = tuple(batch.failed), tuple(batch.left_out)
    return BatchReport(done, len(done) - batch.trained, batch.trained, failed, left_out, time.monotonic() - began)


def plan(specs: Iterable[RunSpec], store: RunStore, *, device: str = "auto") -> pd.DataFrame:
    """What `run_all` would do, one row per run: key, label, stored, seconds (of what is left), share_done.

    "cuda" may be asked about where there is none.
    """
    import pandas as pd

    _check(device, None, None, None)
    if device == "auto":  # torch, which takes seconds to import, is asked only where a GPU is likely
        device = _device(device) if shutil.which("nvidia-smi") else "cpu"
    records = store.records()
    clock = Clock(device, records)
    shares = dict.fromkeys((record.key for record in records), 1.0) | store.shares_done()
    wanted = {spec.key: (spec, shares.get(spec.key, 0.0)) for spec in specs}.items()
    rows = [(key, spec.label, done == 1, clock.seconds(spec) * (1 - done), done) for key, (spec, done) in wanted]
    return pd.DataFrame(rows, columns=["key", "label", "stored", "seconds", "share_done"])


def scheduler_for(scheduler: str | None, workers: int | None) -> str | None:
    """The Dask scheduler that `run_all` uses when it is given these, or None."""
    if scheduler and workers is not None:
        got = f"got {workers} and {scheduler!r}"
        raise ValueError(f"workers must be left out with a scheduler, {got}; a cluster has its own workers")
    return scheduler or (os.environ.get(SCHEDULER_VARIABLE) if workers is None else None) or None


@dataclass
class _Batch:
    """One `run_all` call: what waits, what is under way, what has come of each run."""

    store: RunStore
    records: dict[str, Record]
    on_record: Callable[[Record], None] | None
    deadline: float | None
    pending: dict[str, RunSpec] = field(default_factory=dict)
    active: dict[Future[Answer], RunSpec] = field(default_factory=dict)
    elsewhere: list[RunSpec] = field(default_factory=list)  # another process makes them: asked for again later
    unwanted: set[str] = field(default_factory=set)  # found to take too long
    trained: int = 0
    failed: list[tuple[RunSpec, str]] = field(default_factory=list)
    left_out: list[RunSpec] = field(default_factory=list)

    def execute(self, pending: list[RunSpec], place: Place, clock: Clock, bar: ProgressBar) -> None:
        """Have the pending runs made."""
        self.clock, self.bar, self.queue = clock, bar, deque(pending)
        self.pending, asked = {spec.key: spec for spec in pending}, 0.0
        while self.queue or self.active or self.elsewhere:
            if time.monotonic() >= asked + _POLL_SECONDS:
                self.queue.extend(self.elsewhere)
                self.elsewhere, asked = [], time.monotonic()
            bar.slots = place.slots()
            while self.queue and len(self.active) < max(1, bar.slots) * (1 + place.ahead):
                self._start(self.queue.popleft(), place)
            done, _ = wait(self.active, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                self._settle(future, self.active.pop(future))
            self._withdraw_late(nobody=bool(text := place.waits_for()))
            if self.elsewhere and not self.active and not self.queue:
                text = text or f"waiting for {len(self.elsewhere)} runs that another process makes"
                time.sleep(_POLL_SECONDS)
            bar.draw(text)

    def hear(self, key: str, done: int, epochs: int) -> bool:
        """Take the progress of a run; whether it may go on.  Called from other threads, and about other batches."""
        if (spec := self.pending.get(key)) is not None:
            self.bar.advance(key, done, epochs)
            known = self.deadline is None or self.clock.rates(spec, spec.model)
            if promised := None if known else self.bar.promised(key, epochs):
                self.clock.foresee(spec, promised)
            if (promised or done == 0) and not self._fits(spec):
                self.unwanted.add(key)
        return key not in self.unwanted

    def _start(self, spec: RunSpec, place: Place) -> None:
        if not self._fits(spec):
            self._leave_out(spec)
        elif (record := self.store.get(spec)) is not None:
            self._keep(spec, record, trained=False)
        else:
            self.active[place.submit(spec)] = spec

    def _fits(self, spec: RunSpec) -> bool:
        """Whether a run is expected to end in time; one of which nothing is known is, before the time is over."""
        if self.deadline is None:
            return True
        seconds = 0.0 if self.clock.rate(spec) is None else self.bar.left_of(spec)
        return time.monotonic() + seconds <= self.deadline

    def _withdraw_late(self, nobody: bool) -> None:
        """Leave out what waits for a slot, or was found to take too long, and would not end in time."""
        for future, spec in list(self.active.items()):
            waits = nobody or not self.bar.begun(spec)
            if (spec.key in self.unwanted or (waits and not self._fits(spec))) and future.cancel():
                del self.active[future]
                self._leave_out(spec)

    def _leave_out(self, spec: RunSpec) -> None:
        self.left_out.append(spec)
        self.bar.drop(spec)

    def _settle(self, future: Future[Answer], spec: RunSpec) -> None:
        try:
            answer = future.result()
        except CancelledError:
            if spec.key not in self.unwanted:
                raise  # the cluster is gone
            self._leave_out(spec)
        except (StoreError, WorkersUnavailable):
            raise
        except Exception as error:
            text = str(error) if isinstance(error, RunFailed) else "".join(traceback.format_exception(error))
            self.failed.append((spec, text))
            self.bar.finish(spec, "failed", trained=False)
        else:
            if answer is None:
                self.elsewhere.append(spec)
            else:
                self._keep(spec, *answer)

    def _keep(self, spec: RunSpec, record: Record, trained: bool) -> None:
        if self.store.get(spec) is None:  # made on another machine, or gone since
            self.store.put(record)
        self.records[spec.key] = record
        self.clock.learn(record)
        self.trained += trained
        self.bar.finish(spec, f"test error {record.metrics.test_error:.2f} %", trained)
        if trained and self.on_record is not None:
            self.on_record(record)


def _place(
    store: RunStore, device: str, train: str, workers: int | None, scheduler: str | None, hear: Hear, count: int
) -> AbstractContextManager[Place]:
    """Where `count` runs are made."""
    if scheduler is not None:
        from scalestudy.runs.cluster import cluster

        return cluster(scheduler, device, train, hear)
    device = _device(device)
    if workers is None:
        workers = min(usable_cores(), count) if device == "cpu" else 1
    return here(store.folder, device, train, workers, hear)


def _check(device: str, workers: int | None, time_budget: float | None, train: str | None) -> None:
    if device not in _DEVICES:
        raise ValueError(f"device must be one of {', '.join(_DEVICES)}, got {device!r}; leave it out for auto")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise ValueError(f"workers must be an integer of at least 1, got {workers!r}; leave it out for one per core")
    if time_budget is not None and not time_budget > 0:
        raise ValueError(f"time_budget must be more than 0 seconds, got {time_budget!r}; leave it out for no limit")
    if train is not None and ":" not in train:
        raise ValueError(f"train must be a dotted path 'package.module:function', got {train!r}; put a colon between")


def _device(device: str) -> str:
    if device == "cpu":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise ValueError("device must be one that torch finds, got 'cuda', and torch finds no GPU; use 'cpu' or 'auto'")
    return "cpu"
