"""Getting a list of runs done: read what is stored, have made what is missing, report what came of it."""

from __future__ import annotations

import math
import os
import shutil
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from scalestudy.runs.estimate import Clock, ProgressBar, Run
from scalestudy.runs.store import RunStore, StoreError
from scalestudy.runs.workers import DEFAULT_TRAIN, Answer, Place, RunFailed, WorkersUnavailable, here
from scalestudy.training.device import usable_cores
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

SCHEDULER_VARIABLE = "SCALESTUDY_SCHEDULER"  # names a Dask scheduler, by address or by scheduler file

_DEVICES = ("auto", "cpu", "cuda")
_POLL_SECONDS = 0.5


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
        """The report, or RuntimeError where a run failed."""
        if self.failed:
            spec, text = self.failed[0]
            last = text.strip().splitlines()[-1]
            raise RuntimeError(f"{len(self.failed)} runs failed; the first is {spec.key} ({spec.label}): {last}")
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
    The most wanted comes first; one that another process is making is awaited and read, not made twice.

    `device` is "auto", "cpu" or "cuda"; "auto" is "cuda" where there is one, on a cluster where a worker declares the
    resource GPU.  `workers` are processes of this machine, spread over its GPUs: by default one per usable core, on a
    GPU 1; on the CPU each computes on one thread, so results do not depend on their number.  `scheduler` is the address
    or the scheduler file of a Dask cluster that trains instead, by default what ``SCALESTUDY_SCHEDULER`` names unless
    `workers` are given.  A run that is not expected to end within `time_budget` seconds is not started, a later,
    shorter one may be; where no such run has ended, its first two epochs tell whether it is gone on with.  `on_record`
    gets each newly trained record, in the order of finishing.  `train` names what makes a run, "module:function".

    `StoreError` where the store cannot be written, `WorkersUnavailable` where no worker can be had any more.
    """
    began = time.monotonic()
    _check(device, workers, time_budget)
    scheduler = scheduler_for(scheduler, workers)
    wanted = {spec.key: spec for spec in specs}
    records = {key: record for key, spec in wanted.items() if (record := store.get(spec)) is not None}
    batch = _Batch(store, records, on_record, began + (time_budget or math.inf))
    if pending := [spec for key, spec in wanted.items() if key not in records]:
        store.require_writable()
        shares = store.shares_done()
        runs = [Run(spec, shares.get(spec.key, 0.0)) for spec in pending]
        with _place(store, device, train or DEFAULT_TRAIN, workers, scheduler, len(runs)) as place:
            clock = Clock(place.device, store.records())
            with closing(ProgressBar(runs, clock, progress)) as bar:
                batch.execute(runs, place, clock, bar)
    done = tuple(records[key] for key in wanted if key in records)
    failed, left_out = tuple(batch.failed), tuple(batch.left_out)
    return BatchReport(done, len(done) - batch.trained, batch.trained, failed, left_out, time.monotonic() - began)


def plan(specs: Iterable[RunSpec], store: RunStore, *, device: str = "auto") -> pd.DataFrame:
    """What `run_all` would do, one row per run: key, label, stored, seconds (of what is left), share_done.

    "cuda" may be asked about where there is none.
    """
    import pandas as pd

    _check(device)
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
    """One `run_all` call: what has come of its runs."""

    store: RunStore
    records: dict[str, Record]
    on_record: Callable[[Record], None] | None
    deadline: float
    trained: int = 0
    failed: list[tuple[RunSpec, str]] = field(default_factory=list)
    left_out: list[RunSpec] = field(default_factory=list)

    def execute(self, runs: Sequence[Run], place: Place, clock: Clock, bar: ProgressBar) -> None:
        """Have the runs made."""
        self.place, self.clock, self.bar = place, clock, bar
        self.active: dict[Future[Answer], Run] = {}
        self.elsewhere: list[Run] = []  # another process makes them: asked for again later
        queue, asked = deque(runs), 0.0
        while queue or self.active or self.elsewhere:
            if time.monotonic() >= asked + _POLL_SECONDS:
                queue.extend(self.elsewhere)
                self.elsewhere, asked = [], time.monotonic()
            bar.slots, waits_for = place.look()
            while queue and len(self.active) < max(1, bar.slots) * (1 + place.ahead):
                self._start(queue.popleft())
            done, _ = wait(self.active, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                self._settle(future, self.active.pop(future))
            self._withdraw_late(nobody=bool(waits_for))
            if self.elsewhere and not self.active and not queue:
                waits_for = waits_for or f"waiting for {len(self.elsewhere)} runs that another process makes"
                time.sleep(_POLL_SECONDS)
            bar.draw(waits_for)

    def _start(self, run: Run) -> None:
        if not self._fits(run):
            self._leave_out(run)
        elif (record := self.store.get(run.spec)) is not None:
            self._keep(run, record, trained=False)
        else:
            self.active[self.place.submit(run.spec, partial(self._hear, run))] = run

    def _hear(self, run: Run, done: int, epochs: int) -> bool:
        """Take the progress of a run, in another thread; whether it may go on."""
        run.advance(done, epochs)
        unknown = self.deadline < math.inf and not self.clock.rates(run.spec, run.spec.model)
        if promised := run.promised(epochs) if unknown else None:
            self.clock.foresee(run.spec, promised)
        if (promised or done == 0) and not self._fits(run):
            run.wanted = False
        return run.wanted

    def _fits(self, run: Run) -> bool:
        """Whether a run is expected to end in time; one of which nothing is known is, before the time is over."""
        seconds = 0.0 if self.clock.rate(run.spec) is None else self.clock.left(run)
        return time.monotonic() + seconds <= self.deadline

    def _withdraw_late(self, nobody: bool) -> None:
        """Leave out what waits for a slot, or was found to take too long, and would not end in time."""
        for future, run in list(self.active.items()):
            waits = nobody or not run.heard
            if (not run.wanted or (waits and not self._fits(run))) and future.cancel():
                del self.active[future]
                self._leave_out(run)

    def _leave_out(self, run: Run) -> None:
        self.left_out.append(run.spec)
        self.bar.drop(run)

    def _settle(self, future: Future[Answer], run: Run) -> None:
        try:
            answer = future.result()
        except CancelledError:
            if run.wanted:
                raise  # the cluster is gone
            self._leave_out(run)
        except (StoreError, WorkersUnavailable):
            raise
        except Exception as error:
            text = str(error) if isinstance(error, RunFailed) else "".join(traceback.format_exception(error))
            self.failed.append((run.spec, text))
            self.bar.finish(run, "failed", trained=False)
        else:
            if answer is None:
                self.elsewhere.append(run)
            else:
                self._keep(run, *answer)

    def _keep(self, run: Run, record: Record, trained: bool) -> None:
        if self.store.get(run.spec) is None:  # made on another machine, or gone since
            self.store.put(record)
        self.records[record.key] = record
        self.clock.learn(record)
        self.trained += trained
        self.bar.finish(run, f"test error {record.metrics.test_error:.2f} %", trained)
        if trained and self.on_record is not None:
            self.on_record(record)


def _place(
    store: RunStore, device: str, train: str, workers: int | None, scheduler: str | None, count: int
) -> AbstractContextManager[Place]:
    """Where `count` runs are made."""
    if scheduler is not None:
        from scalestudy.runs.cluster import cluster

        return cluster(scheduler, device, train)
    device = _device(device)
    if workers is None:
        workers = min(usable_cores(), count) if device == "cpu" else 1
    return here(store.folder, device, train, workers)


def _check(device: str, workers: int | None = None, time_budget: float | None = None) -> None:
    if device not in _DEVICES:
        raise ValueError(f"device must be one of {', '.join(_DEVICES)}, got {device!r}; leave it out for auto")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise ValueError(f"workers must be an integer of at least 1, got {workers!r}; leave it out for one per core")
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
