"""Where runs are executed.  The one seam between `scalestudy.study.execution` and processes or machines."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from scalestudy.spec import RunSpec
from scalestudy.study.store import RunStore
from scalestudy.study.worker import train_and_store

_ATTEMPTS = 2
_STOP_SECONDS = 5.0


class WorkersUnavailable(RuntimeError):
    """Worker processes cannot be started here."""


@dataclass(frozen=True)
class Outcome:
    """News of one run.

    Attributes
    ----------
    spec : RunSpec
    event : {"progress", "done", "failed", "unwritable"}
        "done": its record is in the store.  "unwritable": the store cannot take records.
    text : str
        Traceback or message of "failed" and "unwritable".
    share : float
        Share of the epochs done, for "progress".
    """

    spec: RunSpec
    event: str
    text: str = ""
    share: float = 0.0


class Backend(Protocol):
    """What `run_all` needs from a place to execute runs.

    `start` is called only while `free()` is positive, `wait` only while a run is under way.  Whatever executes
    a run writes its record to the store before "done" is reported.
    """

    def free(self) -> int:
        """How many more runs can be started now."""

    def start(self, spec: RunSpec) -> None:
        """Begin a run."""

    def wait(self) -> Outcome:
        """Block until there is news."""

    def close(self) -> None:
        """Stop everything at once; runs under way are given up."""


class InProcess:
    """Runs in this process, one after the other, on one CPU thread as in the workers."""

    def __init__(self, store: RunStore, device: str, train: str, on_progress: Callable[[Outcome], None]) -> None:
        self._store, self._device, self._train, self._on_progress = store, device, train, on_progress
        self._spec: RunSpec | None = None

    def free(self) -> int:
        """1 while no run waits to be made, else 0."""
        return int(self._spec is None)

    def start(self, spec: RunSpec) -> None:
        """Remember the run: `wait` makes it."""
        self._spec = spec

    def wait(self) -> Outcome:
        """Make the run."""
        spec, self._spec = self._spec, None
        assert spec is not None, "wait() without start()"

        def report(done: int, epochs: int) -> None:
            self._on_progress(Outcome(spec, "progress", share=done / epochs))

        with _one_thread(self._device):
            reply = train_and_store(spec, self._store, self._device, self._train, report)
        return Outcome(spec, reply["event"], reply.get("text", ""))

    def close(self) -> None:
        """Forget the run."""
        self._spec = None


class LocalProcesses:
    """Runs in worker processes of this machine, each isolated: a killed worker loses its own run at most.

    A run whose worker dies is tried once more in a new worker, then reported as failed.  The workers do not
    import the caller's main module, so they work from notebooks and from scripts without a main guard.
    """

    def __init__(self, store: RunStore, device: str, train: str, workers: int) -> None:
        self._store = store
        self._arguments = [str(store.folder), device, train]
        self._environment = _worker_environment(device)
        self._limit = workers
        self._news: queue.SimpleQueue[tuple[_Worker, dict | None]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._attempts: dict[str, int] = {}

    def free(self) -> int:
        """Workers that may still be given a run."""
        return self._limit - sum(worker.spec is not None for worker in self._workers)

    def start(self, spec: RunSpec) -> None:
        """Give the run to an idle worker, or to a new one."""
        worker = next((worker for worker in self._workers if worker.spec is None), None)
        if worker is None:
            worker = _Worker(self._arguments, self._environment, self._news)
            self._workers.append(worker)
        self._attempts[spec.key] = self._attempts.get(spec.key, 0) + 1
        worker.begin(spec)

    def wait(self) -> Outcome:
        """Block until a worker has news, or cannot start (`WorkersUnavailable`)."""
        while True:
            worker, message = self._news.get()
            if message is None:
                if (outcome := self._died(worker)) is not None:
                    return outcome
            elif message["event"] == "broken":
                raise WorkersUnavailable(f"a worker process could not start:\n{message['text']}")
            elif message["event"] == "ready":
                worker.ready = True
            elif message["event"] == "progress":
                return Outcome(worker.spec, "progress", share=message["share"])
            else:
                spec, worker.spec = worker.spec, None
                return Outcome(spec, message["event"], message.get("text", ""))

    def close(self) -> None:
        """Kill all workers."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def _died(self, worker: _Worker) -> Outcome | None:
        self._workers.remove(worker)
        code, spec = worker.kill(patience=_STOP_SECONDS), worker.spec
        if not worker.ready and code >= 0:  # killed from outside is no reason to give up
            raise WorkersUnavailable(
                f"a worker process ended with {_ending(code)} before it was ready; its message is on the standard "
                "error. Run in this process instead (workers=1) to see more"
            )
        if spec is None:
            return None
        if self._store.get(spec) is not None:
            return Outcome(spec, "done")  # it died between storing and telling
        if self._attempts[spec.key] < _ATTEMPTS:
            self.start(spec)
            return None
        ending = f"ended with {_ending(code)}, {_ATTEMPTS} times"
        return Outcome(
            spec, "failed", f"the worker process of this run {ending}; if memory is short, use fewer workers"
        )


class _Worker:
    """One worker process and the thread that listens to it."""

    def __init__(self, arguments: list[str], environment: dict[str, str], news: queue.SimpleQueue) -> None:
        self.spec: RunSpec | None = None
        self.ready = False
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "scalestudy.study.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, args=(news,), daemon=True)
        self._listener.start()

    def begin(self, spec: RunSpec) -> None:
        self.spec = spec
        try:
            self.process.stdin.write(spec.model_dump_json() + "\n")
            self.process.stdin.flush()
        except OSError:
            return  # it died just now: the listener reports that

    def kill(self, patience: float = 0.0) -> int:
        """End the process if it has not ended by itself within `patience` seconds; returns its exit code."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
        code = self.process.wait(_STOP_SECONDS)
        self._listener.join(_STOP_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                continue  # unsent text for a dead process
        return code

    def _listen(self, news: queue.SimpleQueue) -> None:
        for line in self.process.stdout:
            try:
                news.put((self, json.loads(line)))
            except ValueError:
                break  # cut off in the middle of a line: it is dying
        news.put((self, None))


def _worker_environment(device: str) -> dict[str, str]:
    """Our environment with our import path and, on the CPU, one thread per process from the start."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path))
    if device == "cpu":
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return environment


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """Compute on one CPU thread, so that results do not depend on the number of workers."""
    import torch

    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ending(code: int) -> str:
    """Say how a process ended: ``signal SIGKILL`` or ``exit code 1``."""
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
