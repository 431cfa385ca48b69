"""Which workers of a Dask cluster can be used, and how many runs they take at a time."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

from scalestudy.runs.backends.base import WorkersUnavailable
from scalestudy.runs.backends.dask_worker import mismatch, versions

if TYPE_CHECKING:
    from distributed import Client

_REFRESH_SECONDS = 2.0
_ASK_SECONDS = 10.0
_SCHEDULER_SECONDS = 30.0


class RejectedWorkerWarning(UserWarning):
    """A worker of the cluster is not used; the message says which and why."""


class Roster:
    """The workers of a cluster, looked up every few seconds; new ones are asked for their versions.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._present: dict[str, dict[str, Any]] = {}
        self._asked: set[str] = set()
        self._rejected: dict[str, str] = {}
        self._next = float("-inf")

    def __contains__(self, address: str) -> bool:
        """Whether this worker is there."""
        return address in self._present

    def device(self, wanted: str) -> str:
        """Return "cuda" for "auto" where a usable worker declares the resource GPU, else "cpu"; others unchanged.

        Raises
        ------
        ValueError
            On "auto" while no worker is there: a queue may be about to start ones with a GPU.
        """
        if wanted == "auto" and not self._present:
            raise ValueError(
                "device must be cpu or cuda while the cluster has no workers, got 'auto'; name one of them"
            )
        if wanted == "auto":
            return "cuda" if self.slots("cuda") > 0 else "cpu"
        return wanted

    def slots(self, device: str) -> int:
        """Runs that the usable workers take at a time: their threads, for "cuda" their units of the resource GPU."""
        workers = [self._present[address] for address in self.usable()]
        if device == "cuda":
            return sum(int(worker["resources"].get("GPU", 0)) for worker in workers)
        return sum(worker["nthreads"] for worker in workers)

    def usable(self) -> list[str]:
        """Addresses of the workers that are there and not rejected."""
        return [address for address in self._present if address not in self._rejected]

    def restriction(self) -> list[str] | None:
        """The workers that may be used, or None where all may."""
        return self.usable() if self._rejected else None

    def refresh(self, at_once: bool = False) -> None:
        """Look again if that is due.

        Raises
        ------
        WorkersUnavailable
            If a new worker is rejected and no other one is there.
        OSError
            If the scheduler does not answer.
        """
        if not at_once and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _REFRESH_SECONDS
        # not scheduler_info(): the client's own periodic update, which leaves workers out, can get into its answer
        info = self._client.sync(self._client.scheduler.identity, n_workers=-1, callback_timeout=_SCHEDULER_SECONDS)
        self._present = info["workers"]
        self._asked &= self._present.keys()
        self._rejected = {address: why for address, why in self._rejected.items() if address in self._present}
        if new := [address for address in self._present if address not in self._asked | self._rejected.keys()]:
            self._ask(new)

    def reject(self, address: str, reason: str) -> None:
        """Use a worker no more while it is there, and warn of it once.

        Raises
        ------
        WorkersUnavailable
            If no other one is there.
        """
        if address not in self._rejected:
            self._rejected[address] = reason
            warnings.warn(f"worker {address} is not used: {reason}", RejectedWorkerWarning, stacklevel=2)
        if self._present and self._present.keys() <= self._rejected.keys():
            reasons = "\n".join(f"{address}: {self._rejected[address]}" for address in self._present)
            raise WorkersUnavailable(f"none of the cluster's {len(self._present)} workers can be used:\n{reasons}")

    def _ask(self, addresses: list[str]) -> None:
        ours = versions()
        try:
            answers = self._client.run(versions, workers=addresses, on_error="return", callback_timeout=_ASK_SECONDS)
        except TimeoutError:
            answers = {}  # one of them is silent; `make_run` looks at the versions, too
        for address in addresses:
            answer = answers.get(address)
            if isinstance(answer, OSError):
                continue  # it has just left; if it comes back, it is asked then
            self._asked.add(address)
            if answer is None:
                continue
            if not isinstance(answer, dict):
                self.reject(address, f"it cannot say its versions: {answer!r}; install this scalestudy there")
            elif differing := mismatch(answer, ours):
                self.reject(address, f"{differing}; install the same on both")
