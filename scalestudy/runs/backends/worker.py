"""A worker process: takes run specs from its standard input, trains, stores the records itself.

Started by `TrainingProcess` as ``python -m scalestudy.runs.backends.worker``.  One JSON message per line each way.
The worker ends when its parent does: its input closes, or (where a fork of the parent still holds the pipe) its
parent's process id changes.  On SIGTERM it ends after the current epoch, with a checkpoint to go on from; in the last
one, once the record is stored.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO

from scalestudy.runs.backends.base import RunStopped
from scalestudy.runs.backends.one_run import resolve, train_and_store
from scalestudy.runs.processes import TERMINATED, watch_parent
from scalestudy.runs.store import RunStore
from scalestudy.training.device import keep_freed_memory
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec


def main() -> None:
    """Serve the parent until it closes our input; arguments: store folder, device, train, slot."""
    folder, device, train, slot = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too: the parent decides, and kills us
    stop = _StopOnTerm()
    messages = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not break the protocol
    wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
    busy = threading.Lock()  # held while a record is being stored: a finished run is not thrown away
    threading.Thread(target=_read_input, args=(wanted, busy), daemon=True).start()
    watch_parent(lambda: _leave(busy))
    keep_freed_memory()
    try:
        store = _LockedStore(folder, busy)
        resolve(train)
        if device == "cpu" and "torch" in sys.modules:  # else OMP_NUM_THREADS, which our parent set, does it
            sys.modules["torch"].set_num_threads(1)
        device = own_gpu(device, int(slot))
    except Exception:
        _send(messages, {"event": "broken", "text": traceback.format_exc()})
        return
    _send(messages, {"event": "ready"})
    while True:
        spec = RunSpec.model_validate_json(wanted.get())
        with stop.deferred():
            _send(messages, train_and_store(spec, store, device, train, partial(_report, messages, stop)))


def own_gpu(device: str, slot: int) -> str:
    """Spread processes over the GPUs that they see: slot i takes number i modulo their number."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{slot % torch.cuda.device_count()}" if torch.cuda.device_count() > 1 else device


class _StopOnTerm:
    """SIGTERM ends an idle process at once; while `deferred`, whoever asks `requested` decides when."""

    def __init__(self) -> None:
        self.requested = False
        self._busy = False
        signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame: object) -> None:
        self.requested = True
        if not self._busy:
            os._exit(TERMINATED)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._busy = True
        with suppress(RunStopped):
            yield
        self._busy = False
        if self.requested:
            os._exit(TERMINATED)


def _report(messages: IO[str], stop: _StopOnTerm, done: int, epochs: int) -> None:
    _send(messages, {"event": "progress", "share": done / epochs})
    if stop.requested and done < epochs:
        raise RunStopped


class _LockedStore(RunStore):
    def __init__(self, folder: str, busy: threading.Lock) -> None:
        super().__init__(folder)
        self._busy = busy

    def put(self, record: Record) -> os.PathLike:
        with self._busy:
            return super().put(record)


def _send(messages: IO[str], message: dict[str, object]) -> None:
    try:
        messages.write(json.dumps(message) + "\n")
    except BrokenPipeError:
        os._exit(3)  # nobody listens any more; nothing is being stored while we talk


def _read_input(wanted: queue.SimpleQueue, busy: threading.Lock) -> None:
    for line in sys.stdin:
        wanted.put(line)
    _leave(busy)


def _leave(busy: threading.Lock) -> None:
    busy.acquire()
    os._exit(3)


if __name__ == "__main__":
    main()
