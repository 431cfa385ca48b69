"""The parent's side of `scalestudy.runs.backends.worker`: one training process and the thread that listens to it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading

from scalestudy.training.spec import RunSpec

_END_SECONDS = 5.0


class TrainingProcess:
    """One process that trains runs, one after the other.

    Parameters
    ----------
    folder : str
        Of the run store.
    device, train : str
        As in `scalestudy.runs.execution.run_all`.
    slot : int
        Its number among the processes of this machine: slot i takes GPU i modulo the number of GPUs.
    news : queue
        Receives ``(self, message)`` for each message of the process, and ``(self, None)`` when it has ended.

    Attributes
    ----------
    spec : RunSpec or None
        The run that it was given and has not ended.
    ready : bool
        Whether it has said that it can train.
    slot : int
    """

    def __init__(self, folder: str, device: str, train: str, slot: int, news: queue.SimpleQueue) -> None:
        self.spec: RunSpec | None = None
        self.ready = False
        self.slot = slot
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "scalestudy.runs.backends.worker", folder, device, train, str(slot)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(device),
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, args=(news,), daemon=True)
        self._listener.start()

    def begin(self, spec: RunSpec) -> None:
        """Give it a run."""
        self.spec = spec
        try:
            self._process.stdin.write(spec.model_dump_json() + "\n")
            self._process.stdin.flush()
        except OSError:
            return  # it died just now: the listener reports that

    def stop(self) -> None:
        """Let it end after the current epoch, or at once where it trains nothing."""
        self._process.terminate()

    def kill(self, patience: float = 0.0) -> int:
        """End the process if it has not ended by itself within `patience` seconds; returns its exit code."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL  # it hangs in the system; nothing more can be done to it
        self._listener.join(_END_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                pipe.close()
            except OSError:
                continue  # unsent text for a dead process
        return code

    def _listen(self, news: queue.SimpleQueue) -> None:
        for line in self._process.stdout:
            try:
                news.put((self, json.loads(line)))
            except ValueError:
                break  # cut off in the middle of a line: it is dying
        news.put((self, None))


def ending(code: int) -> str:
    """Say how a process ended: ``signal SIGKILL`` or ``exit code 1``."""
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _environment(device: str) -> dict[str, str]:
    """Our environment with our import path and, on the CPU, one thread per process from the start."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path))
    if device == "cpu":
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return environment
