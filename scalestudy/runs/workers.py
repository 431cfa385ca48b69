"""Where runs are made: child processes of this machine, or the workers of a Dask cluster, which have such children."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

from filelock import Timeout

from scalestudy.runs.store import RunStore, StoreError
from scalestudy.training.device import keep_freed_memory
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

DEFAULT_TRAIN = "scalestudy.training.train:train"

_ATTEMPTS = 2
_END_SECONDS = 5.0

Answer = tuple[Record, bool] | None  # the record, and whether it was made now; None: another process makes it
Hear = Callable[[int, int], None]  # told the epochs that a run has made, and all; CancelledError where it is unwanted


class RunFailed(RuntimeError):
    """A run that raised, with its traceback as the message, or whose worker died again."""


class Place(NamedTuple):
    """Where a batch makes its runs; `look` tells how many at a time, and what it waits for, or ""."""

    device: str
    look: Callable[[], tuple[int, str]]
    submit: Callable[[RunSpec, Hear], Future[Answer]]
    ahead: int = 0  # runs that may wait for each slot


def make_run(spec: RunSpec, folder: Path | str, device: str, train: str, progress: Callable[..., None]) -> Answer:
    """Lock, look, train, store."""
    store = RunStore(folder)
    try:
        with store.lock(spec.key):
            if (record := store.get(spec)) is not None:
                return record, False
            progress(0, spec.training.epochs)
            record = resolve_name(train)(spec, device=device, progress=progress, checkpoint=store.checkpoint(spec.key))
            store.put(record)
            return record, True
    except Timeout:
        return None


class Slot:
    """Makes one run at a time in a child process, which is kept for the next; on the i-th of several GPUs."""

    def __init__(self, number: int, folder: Path | str, device: str, train: str) -> None:
        self._settings, self._environment = (str(folder), device, train), _environment(device, number)
        self._process: subprocess.Popen | None = None
        self._closed = False

    def make(self, spec: RunSpec, hear: Hear) -> Answer:
        """`make_run` in the child; one that dies is replaced once, and the run goes on."""
        for _ in range(_ATTEMPTS):
            if self._process is None:
                self._start()
            try:
                self._pipe.send(spec)
                while (message := self._pipe.recv())[0] != "over":
                    hear(*message[1:])
            except CancelledError:
                self._process.kill()
                self.end()
                raise
            except (EOFError, OSError):
                ending = self.end()
                continue
            if isinstance(message[1], Exception):
                raise message[1]
            return message[1]
        told = f"ended with {ending}, {_ATTEMPTS} times, perhaps with a message on the standard error"
        raise RunFailed(f"the worker process of this run {told}; if memory is short, use fewer workers")

    def close(self) -> None:
        self._closed = True
        if process := self._process:
            process.kill()

    def end(self) -> str:
        """How the child ended that is about to, or is made to; "" where there is none."""
        process, self._process = self._process, None
        if process is None:
            return ""
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        process.kill()
        code = process.wait()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _start(self) -> None:
        if self._closed:
            raise CancelledError
        self._pipe, theirs = Pipe()
        with theirs:
            # by import: what it pickles then has the names that we know; what a library prints goes to the errors
            code = f"from {__name__} import main; main({theirs.fileno()}, *{self._settings})"
            streams = {"stdin": subprocess.DEVNULL, "stdout": 2, "pass_fds": [theirs.fileno()]}
            self._process = subprocess.Popen([sys.executable, "-P", "-c", code], env=self._environment, **streams)
        if self._closed:  # just now
            self._process.kill()


@contextmanager
def here(folder: Path, device: str, train: str, workers: int) -> Iterator[Place]:
    """Child processes of this machine; they are gone when the block ends."""
    slots = [Slot(number, folder, device, train) for number in range(workers)]
    pool, unowned, mine = ThreadPoolExecutor(workers), [*slots], threading.local()

    def make(spec: RunSpec, hear: Hear) -> Answer:
        if not hasattr(mine, "slot"):
            mine.slot = unowned.pop()
        return mine.slot.make(spec, hear)

    try:
        yield Place(device, lambda: (workers, ""), partial(pool.submit, make))
    finally:
        for slot in slots:
            slot.close()
        pool.shutdown(cancel_futures=True)
        for slot in slots:
            slot.end()


def _environment(device: str, slot: int) -> dict[str, str]:
    """Ours with our import path; on the CPU one thread from the start, else one of several GPUs."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path))
    if device == "cpu":
        return environment | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    import torch

    if (count := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[slot % count]
    return environment


def main(pipe: int, folder: str, device: str, train: str) -> None:
    """Make what comes through a pipe, until that closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too: the parent decides, and kills us
    parent, wanted = Connection(pipe), queue.SimpleQueue()
    keep_freed_memory()
    resolve_name(train)
    threading.Thread(target=_listen, args=(parent, wanted), daemon=True).start()
    while True:
        try:
            answer = make_run(wanted.get(), folder, device, train, lambda *epochs: parent.send(("epochs", *epochs)))
        except StoreError as error:
            answer = error
        except Exception:
            answer = RunFailed(traceback.format_exc())
        parent.send(("over", answer))


def _listen(parent: Connection, wanted: queue.SimpleQueue) -> None:
    with suppress(EOFError, OSError):
        while True:
            wanted.put(parent.recv())
    os._exit(3)  # nobody waits for us any more
