"""Runs in worker processes of this machine."""

from __future__ import annotations

import queue
import signal

from scalestudy.runs.backends.base import Outcome, WorkersUnavailable
from scalestudy.runs.backends.training_process import TrainingProcess, ending
from scalestudy.runs.store import RunStore
from scalestudy.training.spec import RunSpec

_ATTEMPTS = 2
_STOP_SECONDS = 5.0
_KILLED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a process that did not fail by itself."""


class LocalProcesses:
    """Runs in worker processes of this machine, each isolated: a killed worker loses its own run at most.

    A run whose worker dies is tried once more in a new worker, then reported as failed.  The workers do not
    import the caller's main module, so they work from notebooks and from scripts without a main guard.

    Parameters
    ----------
    store : RunStore
    device, train : str
        As in `scalestudy.runs.execution.run_all`.
    workers : int
        Processes at a time.
    first_slot : int
        Number of the first of them; see `TrainingProcess`.
    """

    def __init__(self, store: RunStore, device: str, train: str, workers: int, first_slot: int = 0) -> None:
        self._store, self._device, self._train = store, device, train
        self._slots = range(first_slot, first_slot + workers)
        self._news: queue.SimpleQueue[tuple[TrainingProcess, dict | None]] = queue.SimpleQueue()
        self._workers: list[TrainingProcess] = []
        self._attempts: dict[str, int] = {}
        self._stopping = False

    def free(self) -> int:
        """Workers that may still be given a run."""
        return len(self._slots) - sum(worker.spec is not None for worker in self._workers)

    def start(self, spec: RunSpec) -> None:
        """Give the run to an idle worker, or to a new one."""
        worker = next((worker for worker in self._workers if worker.spec is None), None)
        if worker is None:
            taken = {worker.slot for worker in self._workers}
            slot = next(slot for slot in self._slots if slot not in taken)
            worker = TrainingProcess(str(self._store.folder), self._device, self._train, slot, self._news)
            self._workers.append(worker)
        self._attempts[spec.key] = self._attempts.get(spec.key, 0) + 1
        worker.begin(spec)

    def wait(self, seconds: float) -> Outcome | None:
        """Wait for news of a worker; `WorkersUnavailable` where one cannot start."""
        try:
            worker, message = self._news.get(timeout=seconds)
        except queue.Empty:
            return None
        if message is None:
            return self._died(worker)
        if message["event"] == "broken":
            raise WorkersUnavailable(f"a worker process could not start:\n{message['text']}")
        if message["event"] == "ready":
            worker.ready = True
            return None
        if message["event"] == "progress":
            return Outcome(worker.spec, "progress", share=message["share"])
        spec, worker.spec = worker.spec, None
        self._attempts.pop(spec.key)
        return Outcome(spec, message["event"], message.get("text", ""))

    def withdraw(self, spec: RunSpec) -> bool:
        """False: workers begin at once."""
        return False

    def stop(self) -> None:
        """Let the workers end after their current epoch."""
        self._stopping = True
        for worker in self._workers:
            worker.stop()

    def close(self) -> None:
        """Kill all workers."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def _died(self, worker: TrainingProcess) -> Outcome | None:
        self._workers.remove(worker)
        code, spec = worker.kill(patience=_STOP_SECONDS), worker.spec
        if not (worker.ready or self._stopping or code in _KILLED_FROM_OUTSIDE):
            raise WorkersUnavailable(
                f"a worker process ended with {ending(code)} before it was ready; its message is on the standard "
                "error. Run in this process instead (workers=1) to see more"
            )
        if spec is None:
            return None
        attempts = self._attempts.pop(spec.key)
        if self._store.get(spec) is not None:
            return Outcome(spec, "done")  # it died between storing and telling
        if self._stopping:
            return Outcome(spec, "stopped")
        if attempts < _ATTEMPTS:
            self._attempts[spec.key] = attempts
            self.start(spec)
            return None
        return Outcome(
            spec,
            "failed",
            f"the worker process of this run ended with {ending(code)}, {_ATTEMPTS} times; if memory is short, use "
            "fewer workers",
        )
