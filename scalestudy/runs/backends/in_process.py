"""Runs in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from scalestudy.runs.backends.base import Outcome, RunStopped
from scalestudy.runs.backends.one_run import train_and_store
from scalestudy.runs.store import RunStore
from scalestudy.training.spec import RunSpec


class InProcess:
    """Runs in this process, one after the other, on one CPU thread as in the workers.

    Parameters
    ----------
    store : RunStore
    device : str
    train : str
        Dotted path of the training function.
    on_progress : callable
        Called with an `Outcome` after each epoch.  It may raise `RunStopped`.
    """

    def __init__(self, store: RunStore, device: str, train: str, on_progress: Callable[[Outcome], None]) -> None:
        self._store, self._device, self._train, self._on_progress = store, device, train, on_progress
        self._spec: RunSpec | None = None

    def free(self) -> int:
        """1 while no run waits to be made, else 0."""
        return int(self._spec is None)

    def start(self, spec: RunSpec) -> None:
        """Remember the run: `wait` makes it."""
        self._spec = spec

    def wait(self, seconds: float) -> Outcome:
        """Make the run, however long that takes."""
        spec, self._spec = self._spec, None
        assert spec is not None, "wait() without start()"

        def report(done: int, epochs: int) -> None:
            self._on_progress(Outcome(spec, "progress", share=done / epochs))

        from scalestudy.layers.precision import one_thread

        try:
            with one_thread() if self._device == "cpu" else nullcontext():
                reply = train_and_store(spec, self._store, self._device, self._train, report)
        except RunStopped:
            return Outcome(spec, "stopped")
        return Outcome(spec, reply["event"], reply.get("text", ""))

    def withdraw(self, spec: RunSpec) -> bool:
        """False: a run that was started is made."""
        return False

    def stop(self) -> None:
        """Nothing to do between runs; within one, `on_progress` stops it."""

    def close(self) -> None:
        """Forget the run."""
        self._spec = None
