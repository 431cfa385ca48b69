"""A worker process: takes run specs from its standard input, trains, stores the records itself.

Started by `scalestudy.study.backends` as ``python -m scalestudy.study.worker``.  One JSON message per line each
way.  The worker ends when its parent does: its input closes, or (where a fork of the parent still holds the pipe)
its parent's process id changes.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import IO

from scalestudy.memory import keep_freed_memory
from scalestudy.record import Record
from scalestudy.spec import RunSpec
from scalestudy.study.processes import watch_parent
from scalestudy.study.store import RunStore, StoreError

Progress = Callable[[int, int], None]


def train_and_store(spec: RunSpec, store: RunStore, device: str, train: str, progress: Progress) -> dict[str, str]:
    """Make one run and store its record.

    Parameters
    ----------
    spec : RunSpec
    store : RunStore
    device : str
        Given on to the training function.
    train : str
        Dotted path ``package.module:function`` of the training function.
    progress : callable
        Called with the epochs done and the epochs of the run.

    Returns
    -------
    dict
        ``{"event": "done"}``; ``"failed"`` with the traceback as ``"text"`` where the run raised; ``"unwritable"``
        with the message where the store cannot take the record, which will not get better for other runs.
    """
    try:
        record = resolve(train)(spec, device=device, progress=progress)
        if not isinstance(record, Record) or record.key != spec.key:
            raise TypeError(f"{train} must return the Record of {spec.key}, got {record!r:.200}")
        store.put(record)
    except StoreError as error:
        return {"event": "unwritable", "text": str(error)}
    except Exception:
        return {"event": "failed", "text": traceback.format_exc()}
    return {"event": "done"}


def resolve(path: str) -> Callable[..., Record]:
    """Return the function that a dotted path ``package.module:function`` names."""
    module, colon, name = path.partition(":")
    if not colon:
        raise ValueError(f"train must be a dotted path 'package.module:function', got {path!r}; put a colon between")
    return getattr(importlib.import_module(module), name)


def main() -> None:
    """Serve the parent until it closes our input; arguments: store folder, device, train."""
    folder, device, train = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too: the parent decides, and kills us
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
    except Exception:
        _send(messages, {"event": "broken", "text": traceback.format_exc()})
        return
    _send(messages, {"event": "ready"})
    while True:
        spec = RunSpec.model_validate_json(wanted.get())

        def report(done: int, epochs: int, key: str = spec.key) -> None:
            _send(messages, {"event": "progress", "share": done / epochs})

        _send(messages, train_and_store(spec, store, device, train, report))


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
