"""How processes end together: on SIGTERM the cleaning up is done, and a child does not outlive its parent."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM."""

_PARENT_POLL_SECONDS = 1.0


@contextmanager
def terminated_as_exit() -> Iterator[None]:
    """Let SIGTERM (batch queues, ``kill``) unwind as an exit with code 143, so that children are stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@dataclass
class StopRequest:
    """Whether this process was asked to end when it can."""

    requested: bool = False


@contextmanager
def stops_on_sigterm() -> Iterator[StopRequest]:
    """Let the first SIGTERM only be noted, so that work can end in an orderly way; a second one ends it at once.

    Where one came, leaving the block is an exit with code 143.  Outside the main thread signals stay as they are.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: object) -> None:
        if stop.requested:
            raise SystemExit(TERMINATED)
        stop.requested = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    if stop.requested:
        raise SystemExit(TERMINATED)


def watch_parent(leave: Callable[[], None]) -> None:
    """Call `leave`, in a thread, once the process that started this one has ended."""
    threading.Thread(target=_watch, args=(os.getppid(), leave), daemon=True).start()


def _watch(parent: int, leave: Callable[[], None]) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_SECONDS)
    leave()
