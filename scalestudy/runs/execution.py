"""Getting a list of runs done: read what is stored, train what is missing, report what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from scalestudy.runs.backends import Backend, InProcess, LocalProcesses, WorkersUnavailable
from scalestudy.runs.backends.one_run import resolve
from scalestudy.runs.batch import Batch
from scalestudy.runs.batch_report import BatchReport, IncompleteBatch
from scalestudy.runs.claims import Claims
from scalestudy.runs.estimate import Clock
from scalestudy.runs.processes import stops_on_sigterm
from scalestudy.runs.progress import ProgressBar
from scalestudy.runs.store import RunStore
from scalestudy.training.device import usable_cores
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BatchReport", "IncompleteBatch", "WorkersUnavailable", "plan", "run_all"]

DEVICES = ("auto", "cpu", "cuda")
DEFAULT_TRAIN = "scalestudy.training.train:train"
SCHEDULER_VARIABLE = "SCALESTUDY_SCHEDULER"
"""Environment variable that names a Dask scheduler, by address or by scheduler file."""


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

    A run is stored as soon as it is finished, and kept about once a minute while it is under way, so this call can be
    killed at any moment and called again: it goes on from there.  Ctrl-C kills its workers.  On SIGTERM the runs under
    way end after their current epoch and are kept as they are then (one in its last epoch is finished and stored), then
    the call exits with code 143; a second SIGTERM ends it at once.  The store is whole in any case.

    Parameters
    ----------
    specs : iterable of RunSpec
        Most wanted first; started in this order.  Runs with equal keys are one run.
    store : RunStore
        May be in use by other processes; a run that another one is making is awaited and read, not made twice.
    device : {"auto", "cpu", "cuda"}
        "auto" is "cuda" where there is one; on a cluster, where a worker declares the resource GPU.
    workers : int, optional
        0 or 1: in this process; more: that many processes of this machine, spread over its GPUs if there are any.
        Default: on the CPU one per usable core, at most one per missing run; on a GPU 1.  On the CPU every run
        computes on one thread, wherever it runs, so results do not depend on this number.
    scheduler : str, optional
        Address (``tcp://host:port``) or scheduler file of a Dask cluster that trains instead; see
        `scalestudy.runs.backends.dask_cluster`.  Default: what ``SCALESTUDY_SCHEDULER`` names, unless `workers` is
        given; else no cluster.
    time_budget : float, optional
        Seconds from now, > 0.  A run that is not expected to finish in time is not started or gone on with, a later,
        shorter one may be.  Runs under way are never cut off, so a wrong estimate can overrun it.
    progress : bool
        Show a progress bar on the standard error; ``TQDM_DISABLE=1`` in the environment turns it off, too.
    on_record : callable, optional
        Called with each newly trained record, in the order of finishing, in this process.
    train : str, optional
        Dotted path ``package.module:function`` of another training function (for experiments and tests) with the
        signature of `scalestudy.training.train.train`.

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
        If worker processes cannot be started, or the cluster cannot be reached, is lost or has no worker to be used.
    """
    began = time.monotonic()
    _check(device, workers, time_budget)
    scheduler = scheduler_for(scheduler, workers)
    wanted = list({spec.key: spec for spec in specs}.values())
    records = {spec.key: record for spec in wanted if (record := store.get(spec)) is not None}
    pending = [spec for spec in wanted if spec.key not in records]
    trained, failed, left_out = 0, (), ()
    if pending:
        if scheduler is None:
            device = _device(device)
        store.require_writable()
        train = train or DEFAULT_TRAIN
        resolve(train)
        with ExitStack() as stack:
            claims = Claims(store.folder)
            stack.callback(claims.release_all)
            begun = store.shares_done()
            bar = stack.enter_context(ProgressBar(pending, shown=progress, begun=begun))
            stop = stack.enter_context(stops_on_sigterm())
            batch = Batch(store, records, pending, begun, on_record, claims, stop, bar)
            backend, device = _backend(store, device, train, workers, scheduler, batch)
            stack.callback(backend.close)
            batch.clock = Clock(device, store.records())
            batch.deadline = None if time_budget is None else began + time_budget
            batch.execute(backend)
        trained, failed, left_out = batch.trained, tuple(batch.failed), tuple(batch.left_out)
    done = tuple(records[spec.key] for spec in wanted if spec.key in records)
    return BatchReport(
        done=done,
        read=len(done) - trained,
        trained=trained,
        failed=failed,
        left_out=left_out,
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
        One row per run, in order: key, label, stored (bool), seconds (expected training time of what is left of the
        run; 0 where it is stored), share_done (1 where it is stored, else by its checkpoint).
    """
    import pandas as pd

    _check(device, None, None)
    wanted = list({spec.key: spec for spec in specs}.values())
    records = store.records()
    clock = Clock(device if device == "cuda" else _device(device), records)
    shares = dict.fromkeys((record.key for record in records), 1.0) | store.shares_done()
    rows = [
        (spec.key, spec.label, share == 1.0, clock.seconds(spec) * (1 - share), share)
        for spec in wanted
        for share in (shares.get(spec.key, 0.0),)
    ]
    return pd.DataFrame(rows, columns=["key", "label", "stored", "seconds", "share_done"])


def _backend(
    store: RunStore, device: str, train: str, workers: int | None, scheduler: str | None, batch: Batch
) -> tuple[Backend, str]:
    """The place that executes runs, and its type of device."""
    if scheduler is not None:
        from scalestudy.runs.backends.dask_cluster import DaskCluster

        cluster = DaskCluster(store, device, train, scheduler, batch.bar.note)
        return cluster, cluster.device
    if workers is None:
        workers = min(usable_cores(), len(batch.pending)) if device == "cpu" else 1
    if workers <= 1:
        return InProcess(store, device, train, batch.progress), device
    return LocalProcesses(store, device, train, workers), device


def scheduler_for(scheduler: str | None, workers: int | None) -> str | None:
    """Return the Dask scheduler that `run_all` uses when it is given these, or None.

    Raises
    ------
    ValueError
        If both are given.
    """
    if scheduler and workers is not None:
        raise ValueError(
            f"workers must be left out with a scheduler, got {workers} and {scheduler!r}; a cluster has its own workers"
        )
    return scheduler or (os.environ.get(SCHEDULER_VARIABLE) if workers is None else None) or None


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
