"""What a place to execute runs offers, and the news that come from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from scalestudy.training.spec import RunSpec


class WorkersUnavailable(RuntimeError):
    """Nothing is there that could execute runs, or it went away."""


class RunStopped(BaseException):
    """Raised by a progress callback to end a run after the epoch; it has no record, and goes on from there later."""


@dataclass(frozen=True)
class Outcome:
    """News of one run.

    Attributes
    ----------
    spec : RunSpec
    event : {"progress", "done", "found", "failed", "stopped", "unwritable"}
        "done": it was trained, and its record is in the store.  "found": its record is in the store and was made
        before.  "stopped": it ended early because it was asked to.  "unwritable": the store cannot take records.
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

    `start` is called only while `free()` is positive, `wait` only while a run is under way.  The record of a run is
    in the store before "done" or "found" is reported.
    """

    def free(self) -> int:
        """How many more runs can be given away now."""

    def start(self, spec: RunSpec) -> None:
        """Begin a run, or queue it for the next free slot."""

    def wait(self, seconds: float) -> Outcome | None:
        """Wait for news; None where there are none for that long."""

    def withdraw(self, spec: RunSpec) -> bool:
        """Take back a run that waits for a free slot; False where it is under way."""

    def stop(self) -> None:
        """End the runs under way after their current epoch; `wait` then tells how each of them ended."""

    def close(self) -> None:
        """Stop everything at once; runs under way are given up."""
