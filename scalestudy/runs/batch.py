"""Getting a list of runs done: read what is stored, have made what is missing, report what came of it."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from scalestudy.runs.estimate import Clock, ProgressBar, Run
from scalestudy.runs.store import RunStore, StoreError
from scalestudy.runs.workers import DEFAULT_TRAIN, Answer, Place, here
from scalestudy.training.device import usable_cores
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

SCHEDULER_VARIABLE = "SCALESTUDY_SCHEDULER"  # names a Dask scheduler, by address or by scheduler file

_POLL_SECONDS = 0.5

OnRecord = Callable[[Record], None] | None


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
    on_record: OnRecord = None,
    train: str | None = None,
) -> BatchReport:
    """Bring the records of all runs about: stored ones cost a file read, the others are trained and stored.

    The most wanted comes first; killed, this call goes on from the last checkpoints.  A run that another process is
    making is awaited and read, not made twice.

    `device` "auto" is "cuda" where there is one, on a cluster where a worker declares the resource GPU.  `workers` are
    processes of this machine, spread over its GPUs: by default one per usable core, on a GPU 1; on the CPU each has one
    thread, so results do not depend on their number.  `scheduler` is the address or file of a Dask cluster that trains
    instead, by default what ``SCALESTUDY_SCHEDULER`` names unless `workers` are given.  A run that is not expected to
    end within `time_budget` seconds is not started, a later, shorter one may be; where no such run has ended, its first
    two epochs tell.  `on_record` gets each new record.  `train` names what makes a run, "module:function".

    `StoreError` where the store cannot be written, `cluster.WorkersUnavailable`.
    """
    for name, given in {"workers": workers, "time_budget": time_budget}.items():
        if given is not None and given <= 0:
            raise ValueError(f"{name} must be more than 0, got {given!r}; leave it out for the default")
    began = time.monotonic()
    scheduler = scheduler_for(scheduler, workers)
    batch = _Batch(specs, store, on_record, began + (math.inf if time_budget is None else time_budget))
    if batch.queue:
        store.require_writable()
        with _place(store, device, train or DEFAULT_TRAIN, workers, scheduler, len(batch.queue)) as place:
            batch.execute(place, progress)
    done = tuple(batch.records[key] for key in batch.specs if key in batch.records)
    failed, left_out = tuple(batch.failed), tuple(batch.left_out)
    return BatchReport(done, len(done) - batch.trained, batch.trained, failed, left_out, time.monotonic() - began)


def plan(specs: Iterable[RunSpec], store: RunStore, *, device: str = "auto") -> pd.DataFrame:
    """What `run_all` would do, a row per run; `seconds` are of what is left.  "cuda" need not be there."""
    import pandas as pd

    if device != "cuda":  # torch, which takes seconds to import, is asked only where a GPU is likely
        device = _device(device) if device != "auto" or shutil.which("nvidia-smi") else "cpu"
    records = store.records()
    clock = Clock(device, records)
    shares = dict.fromkeys((record.key for record in records), 1.0) | store.shares_done()
    runs = {spec.key: Run(spec, shares.get(spec.key, 0.0)) for spec in specs}
    rows = [(key, run.spec.label, run.share == 1, run.left(clock), run.share) for key, run in runs.items()]
    return pd.DataFrame(rows, columns=["key", "label", "stored", "seconds", "share_done"])


def scheduler_for(scheduler: str | None, workers: int | None) -> str | None:
    """The Dask scheduler that `run_all` uses when it is given these, or None."""
    if scheduler and workers is not None:
        got = f"got {workers} and {scheduler!r}"
        raise ValueError(f"workers must be left out with a scheduler, {got}; a cluster has its own workers")
    return scheduler or (os.environ.get(SCHEDULER_VARIABLE) if workers is None else None) or None


class _Batch:
    """One `run_all` call: its runs, and what has come of them."""

    def __init__(self, specs: Iterable[RunSpec], store: RunStore, on_record: OnRecord, deadline: float) -> None:
        self.store, self.on_record, self.deadline = store, on_record, deadline
        self.specs = {spec.key: spec for spec in specs}
        self.records = {key: record for key, spec in self.specs.items() if (record := store.get(spec)) is not None}
        missing, shares = [key for key in self.specs if key not in self.records], store.shares_done()
        self.queue = deque(Run(self.specs[key], shares.get(key, 0.0)) for key in missing)
        self.active: dict[Future[Answer], Run] = {}
        self.trained = 0
        self.failed: list[tuple[RunSpec, str]] = []
        self.left_out: list[RunSpec] = []

    def execute(self, place: Place, progress: bool) -> None:
        self.place, self.clock = place, Clock(place.device, self.store.records())
        with closing(ProgressBar(self.queue, self.clock, progress)) as self.bar:
            while self.queue or self.active:
                self.bar.slots, waits_for = place.look()
                while self.queue and len(self.active) < max(1, self.bar.slots) * (1 + place.ahead):
                    self._start(self.queue.popleft())
                for future in wait(self.active, _POLL_SECONDS, FIRST_COMPLETED).done:
                    self._settle(future, self.active.pop(future))
                self._withdraw_late(nobody=bool(waits_for))
                self.bar.draw(waits_for)

    def _start(self, run: Run) -> None:
        if not self._fits(run):
            self._leave_out(run)
        elif (record := self.store.get(run.spec)) is not None:
            self._keep(run, record, trained=False)
        else:
            self.active[self.place.submit(run.spec, partial(self._hear, run))] = run

    def _hear(self, run: Run, done: int, epochs: int) -> None:
        """Take the progress of a run, in another thread; CancelledError where it is not gone on with."""
        run.advance(done, epochs)
        unknown = not self.clock.rates(run.spec, run.spec.model)
        if promised := run.promised(epochs) if unknown else None:
            self.clock.foresee(run.spec, promised, run.spec.model)
        if (promised or done == 0) and not self._fits(run):
            run.wanted = False
        if not run.wanted:
            raise CancelledError

    def _fits(self, run: Run) -> bool:
        """Whether a run is expected to end in time; one of which nothing is known is, before the time is over."""
        seconds = 0.0 if self.clock.rate(run.spec) is None else run.left(self.clock)
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
        self.bar.finish(run, "left out by the time budget", trained=False)

    def _settle(self, future: Future[Answer], run: Run) -> None:
        try:
            answer = future.result()
        except CancelledError:
            if run.wanted:
                raise  # the cluster is gone
            self._leave_out(run)
        except StoreError:
            raise
        except Exception as error:
            self.failed.append((run.spec, str(error) or repr(error)))
            self.bar.finish(run, "failed", trained=False)
        else:
            if answer is not None:
                self._keep(run, *answer)
            else:
                self.queue.append(run)
                self.bar.said = f"{run.spec.label}: another process makes it"

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


def _device(device: str) -> str:
    if device == "cpu":
        return device
    if device not in ("auto", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {device!r}")
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise ValueError("device must be one that torch finds, got 'cuda', and torch finds no GPU; use 'cpu' or 'auto'")
    return "cpu"
