"""Where runs are made: child processes of this machine, or the workers of a Dask cluster, which have such children."""

from __future__ import annotations

import importlib
import itertools
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalestudy.runs.store import RunStore, StoreError
from scalestudy.training.device import keep_freed_memory
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

DEFAULT_TRAIN = "scalestudy.training.train:train"

_ATTEMPTS = 2
_DIED = (EOFError, BrokenPipeError, pickle.UnpicklingError)
_END_SECONDS = 5.0

Answer = tuple[Record, bool] | None
Hear = Callable[[str, int, int], bool]  # told a run's key, epochs done and all: whether the run is still wanted


class WorkersUnavailable(RuntimeError):
    """Nothing is there that could make runs, or it went away."""


class RunFailed(RuntimeError):
    """A run that raised, with its traceback as the message, or whose worker died again."""


@dataclass(frozen=True)
class Place:
    """Where a batch makes its runs: how many at a time and how many more it may be given; what it waits for, or ""."""

    device: str
    slots: Callable[[], int]
    submit: Callable[[RunSpec], Future[Answer]]
    waits_for: Callable[[], str] = str
    ahead: int = 0


def make_run(spec: RunSpec, folder: Path | str, device: str, train: str, progress: Callable[..., None]) -> Answer:
    """Lock, look, train, store: the record, and whether it was made here; None while another process makes it."""
    store = RunStore(folder)
    with store.lock(spec.key) as ours:
        if not ours:
            return None
        if (record := store.get(spec)) is not None:
            return record, False
        progress(0, spec.training.epochs)
        try:
            record = resolve(train)(spec, device=device, progress=progress, checkpoint=store.checkpoint(spec.key))
            if not isinstance(record, Record) or record.key != spec.key:
                raise TypeError(f"{train} must return the Record of {spec.key}, got {record!r:.200}")
            store.put(record)
        except StoreError:
            raise
        except Exception:
            raise RunFailed(traceback.format_exc()) from None
    return record, True


def resolve(path: str) -> Callable[..., Record]:
    """The function that a dotted path ``package.module:function`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


class Children:
    """Child processes, one for each thread that asks; slot i takes GPU i where there are several."""

    def __init__(self, folder: Path | str, device: str, train: str) -> None:
        self._settings = (str(folder), device, train)
        self._mine, self._slots = threading.local(), itertools.count()
        self._lock, self._closed = threading.Lock(), False
        self._processes: dict[int, subprocess.Popen] = {}

    def make(self, spec: RunSpec, hear: Hear) -> Answer:
        """`make_run` in the child of this thread; one that dies is replaced once, and the run goes on."""
        for _ in range(_ATTEMPTS):
            try:
                answer = self._ask(getattr(self._mine, "process", None) or self._start(), spec, hear)
            except _DIED:
                process, self._mine.process = self._mine.process, None
                ending = _ending(process)
                continue
            if isinstance(answer, Exception):
                raise answer
            return answer
        times = f"ended with {ending}, {_ATTEMPTS} times"
        raise RunFailed(f"the worker process of this run {times}; if memory is short, use fewer workers")

    def kill(self) -> None:
        """End all children at once, and let no new one begin."""
        with self._lock:
            self._closed = True
            for process in self._processes.values():
                process.kill()

    def close(self) -> None:
        """Tidy up after `kill`, when no thread asks any more."""
        for process in self._processes.values():
            _ending(process)

    def _ask(self, process: subprocess.Popen, spec: RunSpec, hear: Hear) -> Any:
        pickle.dump(spec, process.stdin)
        process.stdin.flush()
        while (message := pickle.load(process.stdout))[0] == "epochs":
            if not hear(spec.key, *message[1:]):
                process.kill()
                _ending(process)
                self._mine.process = None
                raise CancelledError
        return message[1]

    def _start(self) -> subprocess.Popen:
        if not hasattr(self._mine, "slot"):
            self._mine.slot = next(self._slots)
        command = [sys.executable, "-P", "-m", "scalestudy.runs.workers", *self._settings]
        environment = _environment(self._settings[1], self._mine.slot)
        with self._lock:
            if self._closed:
                raise CancelledError
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            self._mine.process = self._processes[self._mine.slot] = process
        try:
            pickle.load(process.stdout)  # it is ready
        except _DIED:
            if (ending := _ending(process)) in ("signal SIGKILL", "signal SIGTERM"):
                raise  # from outside
            why = "before it was ready; its message is on the standard error"
            raise WorkersUnavailable(f"a worker process ended with {ending} {why}") from None
        return process


@contextmanager
def here(folder: Path, device: str, train: str, workers: int, hear: Hear) -> Iterator[Place]:
    """Child processes of this machine; they are gone when the block ends."""
    children, pool = Children(folder, device, train), ThreadPoolExecutor(workers)
    try:
        yield Place(device, lambda: workers, lambda spec: pool.submit(children.make, spec, hear))
    finally:
        children.kill()
        pool.shutdown(cancel_futures=True)
        children.close()


def _environment(device: str, slot: int) -> dict[str, str]:
    """Ours with our import path; on the CPU one thread from the start, else one of several GPUs."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path))
    if device == "cpu":
        return environment | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    import torch

    if (count := torch.cuda.device_count()) > 1:
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = named.split(",") if named else [str(number) for number in range(count)]
        environment["CUDA_VISIBLE_DEVICES"] = visible[slot % count]
    return environment


def _ending(process: subprocess.Popen) -> str:
    """How a process ended that is about to, or is made to."""
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # unsent text for a dead process
            pipe.close()
    code = process.returncode
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def main() -> None:
    """Make what comes in by the standard input, until that closes; arguments: store folder, device, train."""
    folder, device, train = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too: the parent decides, and kills us
    answers, wanted = os.fdopen(os.dup(1), "wb"), queue.SimpleQueue()
    os.dup2(2, 1)  # whatever a library prints must not get in between

    def tell(*message: object) -> None:
        pickle.dump(message, answers)
        answers.flush()

    keep_freed_memory()
    resolve(train)
    threading.Thread(target=_listen, args=(wanted,), daemon=True).start()
    tell("ready")
    while True:
        try:
            tell("over", make_run(wanted.get(), folder, device, train, lambda *epochs: tell("epochs", *epochs)))
        except (RunFailed, StoreError) as error:
            tell("over", error)


def _listen(wanted: queue.SimpleQueue) -> None:
    with suppress(*_DIED):
        while True:
            wanted.put(pickle.load(sys.stdin.buffer))
    os._exit(3)  # nobody waits for us any more


if __name__ == "__main__":
    importlib.import_module("scalestudy.runs.workers").main()  # what is pickled here has the name that others know
