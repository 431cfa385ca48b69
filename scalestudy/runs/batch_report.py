"""What became of a list of runs."""

from __future__ import annotations

from dataclasses import dataclass

from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec


class IncompleteBatch(RuntimeError):
    """Some of the wanted runs have no record; the message says which and why."""


@dataclass(frozen=True)
class BatchReport:
    """What `run_all` did.

    Attributes
    ----------
    done : tuple of Record
        Records of all wanted runs that have one now, in the order of the specs, each once.
    read, trained : int
        How many of them were in the store (or put there by another process), and how many were made by this call.
    failed : tuple of (RunSpec, str)
        Runs that raised or whose worker died, with the traceback.
    left_out : tuple of RunSpec
        Runs not started, because they were not expected to finish within the time budget.
    seconds : float
        Wall-clock time of the call.
    """

    done: tuple[Record, ...]
    read: int
    trained: int
    failed: tuple[tuple[RunSpec, str], ...]
    left_out: tuple[RunSpec, ...]
    seconds: float

    @property
    def text(self) -> str:
        """One line for people."""
        return (
            f"{len(self.done)} runs: {self.read} read, {self.trained} trained; {len(self.failed)} failed, "
            f"{len(self.left_out)} left out by the time budget; {self.seconds:.0f} s"
        )

    def require_complete(self) -> BatchReport:
        """Return the report, or raise `IncompleteBatch` where a run failed or was left out."""
        if self.failed:
            spec, text = self.failed[0]
            last = text.strip().splitlines()[-1]
            raise IncompleteBatch(f"{len(self.failed)} runs failed; the first is {spec.key} ({spec.label}): {last}")
        if self.left_out:
            raise IncompleteBatch(
                f"{len(self.left_out)} runs were left out by the time budget, the first is {self.left_out[0].label}; "
                "call again to go on"
            )
        return self
