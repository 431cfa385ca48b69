"""Runs on a Dask cluster: specs travel there, records come back; each slot of a worker makes its runs in a child."""

from __future__ import annotations

import itertools
import json
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalestudy import files
from scalestudy.runs.store import RunStore, StoreError
from scalestudy.runs.workers import Answer, Hear, Place, RunFailed, Slot
from scalestudy.training.spec import RunSpec

if TYPE_CHECKING:
    from distributed import Client

_TOPIC = "scalestudy"
_CONNECT_SECONDS, _ANSWER_SECONDS, _CLOSE_SECONDS = 10.0, 30.0, 5.0
_AHEAD = 1  # runs that wait for each slot: it does not idle, and adaptive clusters grow

_NUMBERS = itertools.count()  # of the slots of a worker


class WorkersUnavailable(RuntimeError):
    """No cluster is there that could make runs, or it went away."""


def versions() -> str:
    """What all machines of a batch must share: the recipe, and torch's major.minor."""
    return f"recipe {RunSpec.model_fields['recipe'].default}, torch {'.'.join(version('torch').split('.')[:2])}"


@cache
def _slot(thread: int, device: str, train: str) -> Slot:
    return Slot(next(_NUMBERS), files.runs(), device, train)


def make_run_there(spec: RunSpec, device: str, train: str, wanted: str) -> Answer:
    """`make_run` on a worker, in a child and in that machine's store; called by Dask in a thread of the worker."""
    from distributed import get_worker

    worker = get_worker()
    task = worker.get_current_task()

    def hear(*epochs: int) -> None:
        worker.log_event(_TOPIC, (spec.key, *epochs))
        state = worker.state.tasks.get(task)
        if state is None or state.state != "executing":
            raise CancelledError

    here = f"worker {worker.address}: "
    if versions() != wanted:
        raise RunFailed(f"{here}it has {versions()}, the client has {wanted}; install the same on both")
    try:
        RunStore(files.runs()).require_writable()
        return _slot(threading.get_ident(), device, train).make(spec, hear)
    except StoreError as error:  # of this worker: no reason for the client to give up
        raise RunFailed(f"{here}{error}") from None


@contextmanager
def cluster(scheduler: str, device: str, train: str) -> Iterator[Place]:
    """The workers of a Dask cluster; what they were given and have not done is forgotten when the block ends."""
    client, attempts, hearers = _connect(scheduler), Counter(), {}
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a lost connection is told below, in a sentence
    try:
        _refuse_other_versions(client)
        look = partial(_look, client, scheduler)
        if device == "auto":
            if look("cpu")[0] == 0:
                told = "while the cluster has no workers, got 'auto'; name one of them"
                raise ValueError(f"device must be cpu or cuda {told}")
            device = "cuda" if look("cuda")[0] else "cpu"
        resources = {"GPU": 1} if device == "cuda" else None
        executor = client.get_executor(retries=0, pure=False, resources=resources)

        def submit(spec: RunSpec, hear: Hear) -> Future[Answer]:
            attempts[spec.key] += 1
            hearers[spec.key] = hear
            # equal for all clients, so a run is made once; Dask tells kinds of tasks apart by what is before the hyphen
            key = f"run-{spec.key}-{attempts[spec.key]}"
            return executor.submit(make_run_there, spec, device, train, versions(), key=key)

        def pass_on(event: Any) -> None:
            key, *epochs = event[1]
            if key in hearers:  # else of another client
                with suppress(CancelledError):  # the batch cancels what it does not want, and the worker looks
                    hearers[key](*epochs)

        client.subscribe_topic(_TOPIC, pass_on)
        yield Place(device, partial(look, device), submit, _AHEAD)
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


def _look(client: Client, scheduler: str, device: str) -> tuple[int, str]:
    """Runs that the workers make at a time: their threads, or units of the resource GPU; and why none is begun."""
    # not scheduler_info(): the client's own periodic update, which leaves workers out, can get into its answer
    found = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=_ANSWER_SECONDS)
    workers, of_gpus = found["workers"].values(), device == "cuda"
    slots = sum(int(one["resources"].get("GPU", 0)) if of_gpus else one["nthreads"] for one in workers)
    if slots == 0:
        return slots, f"waiting for workers{' that declare the resource GPU' * of_gpus} at {scheduler}"
    paused = all(one["status"] == "paused" for one in workers)
    return slots, "waiting: workers are paused (memory)" if paused else ""


def _refuse_other_versions(client: Client) -> None:
    answers: dict[str, Any] = {}
    with suppress(TimeoutError):  # one of them is silent: `make_run_there` looks, too
        answers = client.run(versions, on_error="return", callback_timeout=_ANSWER_SECONDS)
    if refused := [f"{address}: {theirs}" for address, theirs in answers.items() if theirs != versions()]:
        raise WorkersUnavailable(
            f"{len(refused)} of the cluster's {len(answers)} workers do not have what this client has, {versions()}; "
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
