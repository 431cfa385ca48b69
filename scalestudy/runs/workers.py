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
from functools import partial
from pathlib import Path

from scalestudy.runs.store import RunStore, StoreError
from scalestudy.training.device import keep_freed_memory
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

DEFAULT_TRAIN = "scalestudy.training.train:train"

_ATTEMPTS = 2
_DIED = (EOFError, BrokenPipeError, pickle.UnpicklingError)
_END_SECONDS = 5.0

Answer = tuple[Record, bool] | None  # the record, and whether it was made now; None: another process makes it
Hear = Callable[[int, int], bool]  # told the epochs that a run has made, and all of them: whether it is still wanted


class WorkersUnavailable(RuntimeError):
    """Nothing is there that could make runs, or it went away."""


class RunFailed(RuntimeError):
    """A run that raised, with its traceback as the message, or whose worker died again."""


@dataclass(frozen=True)
class Place:
    """Where a batch makes its runs; `look` tells how many at a time, and what it waits for, or ""."""

    device: str
    look: Callable[[], tuple[int, str]]
    submit: Callable[[RunSpec, Hear], Future[Answer]]
    ahead: int = 0  # runs that may wait for each slot


def make_run(spec: RunSpec, folder: Path | str, device: str, train: str, progress: Callable[..., None]) -> Answer:
    """Lock, look, train, store."""
    store = RunStore(folder)
    with store.lock(spec.key) as ours:
        if not ours:
            return None
        if (record := store.get(spec)) is not None:
            return record, False
        progress(0, spec.training.epochs)
        try:
            record = resolve(train)(spec, device=device, progress=progress, checkpoint=store.checkpoint(spec.key))
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
        self._mine, self._count = threading.local(), itertools.count()
        self._lock, self._closed = threading.Lock(), False
        self._processes: dict[int, subprocess.Popen] = {}  # by slot

    def make(self, spec: RunSpec, hear: Hear) -> Answer:
        """`make_run` in the child of this thread; one that dies is replaced once, and the run goes on."""
        if not hasattr(self._mine, "slot"):
            self._mine.slot = next(self._count)
        for _ in range(_ATTEMPTS):
            started = self._processes.get(self._mine.slot)
            process = started or self._start()
            try:
                pickle.dump(spec, process.stdin)
                process.stdin.flush()
                while (message := pickle.load(process.stdout))[0] != "over":
                    started = True
                    if message[0] == "epochs" and not hear(*message[1:]):
                        process.kill()
                        self._end()
                        raise CancelledError
            except _DIED:
                ending = self._end()
                if not started and ending not in ("signal SIGKILL", "signal SIGTERM"):  # those come from outside
                    why = "before it was ready; its message is on the standard error"
                    raise WorkersUnavailable(f"a worker process ended with {ending} {why}") from None
                continue
            if isinstance(message[1], Exception):
                raise message[1]
            return message[1]
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

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, "-P", "-m", "scalestudy.runs.workers", *self._settings]
        environment = _environment(self._settings[1], self._mine.slot)
        with self._lock:
            if self._closed:
                raise CancelledError
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            self._processes[self._mine.slot] = process
        return process

    def _end(self) -> str:
        with self._lock:
            process = self._processes.pop(self._mine.slot)
        return _ending(process)


@contextmanager
def here(folder: Path, device: str, train: str, workers: int) -> Iterator[Place]:
    """Child processes of this machine; they are gone when the block ends."""
    children, pool = Children(folder, device, train), ThreadPoolExecutor(workers)
    try:
        yield Place(device, lambda: (workers, ""), partial(pool.submit, children.make))
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
