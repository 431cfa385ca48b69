"""Runs on a Dask cluster: the client's side.

Only specs travel, as tasks named by the run's key; records come back and are stored here, so workers need share no
folder with this process.  A worker that dies is Dask's business: it gives the run to another one, a few times.
"""

from __future__ import annotations

import asyncio
import queue
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from scalestudy.runs.backends.base import Outcome
from scalestudy.runs.backends.dask_connection import Connection
from scalestudy.runs.backends.dask_roster import Roster
from scalestudy.runs.backends.dask_worker import TASK, TOPIC, make_run, versions
from scalestudy.runs.store import RunStore, StoreError
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

if TYPE_CHECKING:
    from distributed import Future

_ANSWER_SECONDS = 30.0

_PER_SLOT = 2
"""Runs that Dask is given per slot, one under way and one waiting: slots do not idle, and adaptive clusters grow."""

_ATTEMPTS = 5
"""Times that a run is handed to Dask before it counts as failed, where the fault is the workers' or is not known."""

_RETRIES = 2
"""Times that Dask tries a task again that ended in an error of its own, such as a worker without this package."""


@dataclass
class _Submitted:
    """A run that Dask has been given: for which time, the workers that may make it (none: all), who has begun it.

    Without a future it waits for a worker that may be used.
    """

    spec: RunSpec
    attempt: int
    allowed: frozenset[str]
    future: Future | None = None
    worker: str = ""


class DaskCluster:
    """Runs on the workers of a Dask cluster, one per slot; see `Roster.slots`.

    Parameters
    ----------
    store : RunStore
    device : {"auto", "cpu", "cuda"}
        "auto" is "cuda" where a worker declares the resource GPU.
    train : str
        Dotted path of the training function, which workers must be able to import.
    scheduler : str
        Address, or the path of a scheduler file.
    note : callable
        Told what is waited for.

    Attributes
    ----------
    device : {"cpu", "cuda"}

    Raises
    ------
    RuntimeError
        If ``distributed`` is not installed.
    WorkersUnavailable
        If the scheduler cannot be reached, or each of its workers is rejected.
    """

    def __init__(self, store: RunStore, device: str, train: str, scheduler: str, note: Callable[[str], None]) -> None:
        self._store, self._train, self._note = store, train, note
        self._stopping = False
        self._news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._runs: dict[str, _Submitted] = {}
        self._connection = Connection(scheduler)
        self._roster = Roster(self._connection.client)
        try:
            with self._connection.held():
                self._roster.refresh()
                self._connection.client.subscribe_topic(TOPIC, lambda event: self._news.put(("progress", event[1])))
            self.device = self._roster.device(device)
        except BaseException:
            self.close()
            raise

    def free(self) -> int:
        """Runs that the cluster can be given so that no slot waits for the next one."""
        return max(1, _PER_SLOT * self._roster.slots(self.device)) - len(self._runs)

    def start(self, spec: RunSpec) -> None:
        """Hand the run to Dask."""
        with self._connection.held():
            self._submit(spec, attempt=1)

    def wait(self, seconds: float) -> Outcome | None:
        """Wait for news of a run; `WorkersUnavailable` where the scheduler or all usable workers are gone."""
        if self._stopping and (waiting := [run for run in self._runs.values() if run.future is None]):
            return self._over(waiting[0], "stopped")
        with self._connection.held():
            self._look_after_workers()
            return self._hear(seconds)

    def withdraw(self, spec: RunSpec) -> bool:
        """Take back a run that no worker has begun."""
        if self._runs[spec.key].worker in self._roster:
            return False
        self._let_go(self._runs.pop(spec.key))
        return True

    def stop(self) -> None:
        """Cancel what has not ended; workers stop it after the current epoch or 30 s, and keep what is done."""
        self._stopping = True
        with self._connection.held():
            self._cancel()

    def close(self) -> None:
        """Cancel all runs and leave the cluster."""
        try:
            if self._connection.is_open:
                self._cancel()
        finally:
            self._runs.clear()
            self._connection.close()

    def _hear(self, seconds: float) -> Outcome | None:
        try:
            kind, news = self._news.get(timeout=seconds)
        except queue.Empty:
            return None
        run = self._runs.get(news["key"] if kind == "progress" else news.key.removeprefix(TASK))
        if run is None or (kind == "ended" and run.future is not news):
            return None  # of another client, or of an attempt that was given up
        if kind == "ended":
            return self._ended(run)
        run.worker = news["worker"]
        return Outcome(run.spec, "progress", share=news["share"])

    def _cancel(self) -> None:
        """Cancel what has not ended; answers that wait to be heard stay."""
        futures = [run.future for run in self._runs.values() if run.future is not None]
        if pending := [future for future in futures if future.status == "pending"]:
            self._connection.client.cancel(pending)

    def _look_after_workers(self) -> None:
        self._roster.refresh()
        if not self._stopping:
            self._move_stranded()
        if self._roster.slots(self.device) == 0:
            wanted = "workers that declare the resource GPU" if self.device == "cuda" else "workers"
            self._note(f"waiting for {wanted} at {self._connection.scheduler}")

    def _ended(self, run: _Submitted) -> Outcome | None:
        """What came of a run; None where it is tried again."""
        try:
            reply = run.future.result(timeout=_ANSWER_SECONDS)
        except CancelledError as error:
            if self._stopping:
                return self._over(run, "stopped")
            if not self._connection.is_open:
                raise self._connection.lost() from error
            return self._again(run, "somebody cancelled it")
        except Exception as error:
            if run.future.status == "pending":  # the worker with the answer left: Dask makes the run again
                self._listen(run.future)
                return None
            return self._broken(run, error)
        return self._answered(run, reply)

    def _broken(self, run: _Submitted, error: Exception) -> Outcome | None:
        """Dask could not execute the task."""
        from distributed import KilledWorker

        text = "".join(traceback.format_exception(error))
        if isinstance(error, KilledWorker):
            return self._over(run, "failed", f"{text}\nif memory is short, let workers have fewer threads")
        self._roster.refresh(at_once=True)  # a worker without this package, or with another one, is found out here
        return self._again(run, text)

    def _answered(self, run: _Submitted, reply: Any) -> Outcome | None:
        event, text = (reply.get("event"), reply.get("text")) if isinstance(reply, dict) else (None, None)
        if event == "failed":
            return self._over(run, "failed", f"on worker {run.worker}:\n{text}")
        if event == "stopped":
            return self._again(run, "it was stopped")
        if event == "rejected":
            return self._fault_of_worker(run, str(text))
        try:
            record = Record.model_validate_json(reply["record"])
        except (ValidationError, LookupError, TypeError) as error:
            return self._fault_of_worker(run, f"it answered {reply!r:.200}, which holds no record: {error}")
        if event not in ("done", "found") or record.key != run.spec.key:
            return self._fault_of_worker(run, f"asked for run {run.spec.key} it answered {event!r} with {record.key}")
        try:
            if self._store.get(run.spec) is None:  # else the worker shares the folder and has stored it
                self._store.put(record)
        except StoreError as error:
            return self._over(run, "unwritable", str(error))
        return self._over(run, event)

    def _fault_of_worker(self, run: _Submitted, reason: str) -> Outcome | None:
        """Use the worker that answered no more, and have another one make the run."""
        for address in self._connection.client.who_has([run.future]).get(run.future.key, ()):
            self._roster.reject(address, reason)
        return self._again(run, reason)

    def _again(self, run: _Submitted, reason: str) -> Outcome | None:
        self._let_go(run)
        if self._stopping:
            return self._over(run, "stopped")
        if run.attempt == _ATTEMPTS:
            return self._over(run, "failed", f"it was given to workers {_ATTEMPTS} times; the last time: {reason}")
        self._submit(run.spec, run.attempt + 1)
        return None

    def _over(self, run: _Submitted, event: str, text: str = "") -> Outcome:
        del self._runs[run.spec.key]
        return Outcome(run.spec, event, text)

    def _submit(self, spec: RunSpec, attempt: int) -> None:
        workers = self._roster.restriction()
        run = self._runs[spec.key] = _Submitted(spec, attempt, frozenset(workers or ()))
        if workers == []:
            return  # until one comes: see `_move_stranded`
        run.future = self._connection.client.submit(
            make_run,
            spec.model_dump_json(),
            self.device,
            self._train,
            versions(),
            key=TASK + spec.key,
            pure=False,
            workers=workers,
            resources={"GPU": 1} if self.device == "cuda" else None,
            retries=_RETRIES,
        )
        self._listen(run.future)

    def _move_stranded(self) -> None:
        """Hand over runs anew that none of the workers which are there now may make."""
        usable = self._roster.usable()
        for run in list(self._runs.values()) if usable else ():
            if run.future is None or (run.allowed and run.allowed.isdisjoint(usable)):
                self._let_go(run)
                self._submit(run.spec, run.attempt)

    def _let_go(self, run: _Submitted) -> None:
        """Free the key of a run, not by a cancellation, whose echo would cancel the next future of the same key."""
        if run.future is not None:
            run.future.release()
            self._connection.client.sync(asyncio.sleep, 0)  # until the client has done so

    def _listen(self, future: Future) -> None:
        future.add_done_callback(lambda ended: self._news.put(("ended", ended)))
