"""Runs on a Dask cluster: specs travel there, records come back; each slot of a worker makes its runs in a child."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalestudy import files
from scalestudy.runs.store import RunStore, StoreError
from scalestudy.runs.workers import Answer, Children, Hear, Place, RunFailed, WorkersUnavailable
from scalestudy.training.spec import RunSpec

if TYPE_CHECKING:
    from distributed import Client

_TOPIC = "scalestudy"
_CONNECT_SECONDS, _ANSWER_SECONDS, _CLOSE_SECONDS, _LOOK_SECONDS = 10.0, 30.0, 5.0, 2.0
_AHEAD = 1  # runs that wait for each slot: it does not idle, and adaptive clusters grow

_children, _one_at_a_time = cache(Children), threading.Lock()
_CLIENT_LOG = logging.getLogger("distributed.client")


def versions() -> str:
    """What all machines of a batch must share: the recipe, and torch's major.minor."""
    return f"recipe {RunSpec.model_fields['recipe'].default}, torch {'.'.join(version('torch').split('.')[:2])}"


def make_run_there(spec: RunSpec, device: str, train: str, wanted: str) -> Answer:
    """`make_run` on a worker, in a child and in that machine's store; called by Dask in a thread of the worker."""
    from distributed import get_worker

    worker = get_worker()
    task = worker.get_current_task()

    def hear(*epochs: int) -> bool:
        worker.log_event(_TOPIC, (spec.key, *epochs))
        state = worker.state.tasks.get(task)
        return state is not None and state.state == "executing"

    try:
        if versions() != wanted:
            raise WorkersUnavailable(f"it has {versions()}, the client has {wanted}; install the same on both")
        RunStore(files.runs()).require_writable()
        with _one_at_a_time:  # the slots of a worker are numbered together
            children = _children(files.runs(), device, train)
        return children.make(spec, hear)
    except (StoreError, WorkersUnavailable) as error:  # of this worker: no reason for the client to give up
        raise RunFailed(f"worker {worker.address}: {error}") from None


@contextmanager
def cluster(scheduler: str, device: str, train: str) -> Iterator[Place]:
    """The workers of a Dask cluster; what they were given and have not done is forgotten when the block ends."""
    client, level = _connect(scheduler), _CLIENT_LOG.level
    _CLIENT_LOG.setLevel(logging.CRITICAL)  # it tells a lost connection by tracebacks; we do in one sentence
    try:
        _refuse_other_versions(client)
        roster = _Roster(client, scheduler, device)
        resources = {"GPU": 1} if roster.device == "cuda" else None
        executor, attempts, hearers = client.get_executor(retries=0, pure=False, resources=resources), Counter(), {}

        def submit(spec: RunSpec, hear: Hear) -> Future[Answer]:
            attempts[spec.key] += 1
            hearers[spec.key] = hear
            # equal for all clients, so a run is made once; Dask tells kinds of tasks apart by what is before the hyphen
            key = f"run-{spec.key}-{attempts[spec.key]}"
            return executor.submit(make_run_there, spec, roster.device, train, versions(), key=key)

        def pass_on(event: Any) -> None:
            key, *epochs = event[1]
            if key in hearers:  # else of another client
                hearers[key](*epochs)

        client.subscribe_topic(_TOPIC, pass_on)
        yield Place(roster.device, roster.look, submit, _AHEAD)
    except StoreError:
        raise
    except (OSError, CancelledError) as error:
        raise WorkersUnavailable(
            f"the connection to the Dask scheduler {scheduler} was lost; every run that came back is stored. "
            "Start the scheduler and its workers again, then call again to go on. What workers finished meanwhile lies "
            "in their own run stores: `scalestudy merge` them unless they share the folder"
        ) from error
    finally:
        client.close(timeout=_CLOSE_SECONDS)
        _CLIENT_LOG.setLevel(level)


class _Roster:
    """The workers that are there, looked up every few seconds."""

    def __init__(self, client: Client, scheduler: str, device: str) -> None:
        self._client, self._scheduler, self._next = client, scheduler, 0.0
        self.device = "cuda" if device == "auto" else device
        slots, _ = self.look()
        if device == "auto":
            if not self._workers:
                told = "while the cluster has no workers, got 'auto'; name one of them"
                raise ValueError(f"device must be cpu or cuda {told}")
            self.device = "cuda" if slots else "cpu"

    def look(self) -> tuple[int, str]:
        """Runs that the workers make at a time: their threads, or units of the resource GPU; and why none is begun."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOOK_SECONDS
            # not scheduler_info(): the client's own periodic update, which leaves workers out, can get into its answer
            identity = self._client.scheduler.identity
            found = self._client.sync(identity, n_workers=-1, callback_timeout=_ANSWER_SECONDS)
            self._workers = list(found["workers"].values())
        of_gpus = self.device == "cuda"
        slots = sum(int(one["resources"].get("GPU", 0)) if of_gpus else one["nthreads"] for one in self._workers)
        if slots == 0:
            wanted = "workers that declare the resource GPU" if of_gpus else "workers"
            return slots, f"waiting for {wanted} at {self._scheduler}"
        paused = all(one["status"] == "paused" for one in self._workers)
        return slots, "waiting: workers are paused (memory)" if paused else ""


def _refuse_other_versions(client: Client) -> None:
    answers: dict[str, Any] = {}
    with suppress(TimeoutError):  # one of them is silent: `make_run_there` looks, too
        answers = client.run(versions, on_error="return", callback_timeout=_ANSWER_SECONDS)
    asked = {address: theirs for address, theirs in answers.items() if not isinstance(theirs, OSError)}  # those left
    if refused := [f"{address}: {theirs}" for address, theirs in asked.items() if theirs != versions()]:
        raise WorkersUnavailable(
            f"{len(refused)} of the cluster's {len(asked)} workers do not have what this client has, {versions()}; "
            "install the same on both:\n" + "\n".join(refused)
        )


def _connect(scheduler: str) -> Client:
    try:
        from distributed import Client
    except ImportError as error:
        raise RuntimeError("a Dask cluster needs distributed; pip install 'scalestudy[cluster]'") from error
    file = Path(scheduler).expanduser()
    if ":" not in scheduler and not file.is_file():
        raise ValueError(
            f"scheduler must be an address such as tcp://host:8786 or a scheduler file, got {scheduler!r}, which is no "
            "file; start one with `dask scheduler --scheduler-file FILE`"
        )
    try:
        address = json.loads(file.read_text())["address"] if file.is_file() else scheduler
        return Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, name="scalestudy")
    except (OSError, ValueError, LookupError, TypeError, AssertionError) as error:
        # the file is empty or cut off; or Dask asserts that its thread has started in ten seconds
        raise WorkersUnavailable(
            f"cannot reach a Dask scheduler at {scheduler} within {_CONNECT_SECONDS:.0f} s; start one with "
            "`dask scheduler`, or name its address"
        ) from error
