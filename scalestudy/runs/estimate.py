"""How long runs take, from those that are done."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

SECONDS_PER_WORK = {"cpu": 1.5e-7, "cuda": 1e-9}
"""Seconds per unit of `RunSpec.work` where no run of this type of device is known.

Our choice: on the CPU what a 56 x 56 run took on one core of a server; on a GPU a guess.  One finished run of a like
network replaces it.
"""

RESERVE = 1.1
"""Expected times are this much longer than the median, our choice: half of all runs take longer than the median."""


class Clock:
    """Expected seconds of runs on one type of device.

    Parameters
    ----------
    device : str
        Such as "cpu" or "cuda:0".
    records : iterable of Record
        Finished runs of any device; those of the same type of device count.

    Notes
    -----
    Devices differ in how costs of networks relate, so rates are not mixed: a run is foreseen from runs of the same
    model; a system of Table 5 that was never run, from the other ones on that data set.
    """

    def __init__(self, device: str, records: Iterable[Record] = ()) -> None:
        self._type = device_type(device)
        self._rates: dict[str, list[float]] = {}
        self._medians: dict[str, float] = {}
        for record in records:
            self.learn(record)

    def learn(self, record: Record) -> None:
        """Take one more finished run into account."""
        if device_type(record.provenance.device) == self._type:
            rate = record.provenance.seconds / record.spec.work
            for kind in (record.spec.model, record.spec.dataset):
                self._rates.setdefault(kind, []).append(rate)
                self._medians.pop(kind, None)

    def seconds(self, spec: RunSpec) -> float:
        """Expected seconds of a run: its work times the median rate, with `RESERVE`."""
        kind = spec.model if spec.model in self._rates else spec.dataset
        if kind not in self._medians:
            self._medians[kind] = median(self._rates.get(kind, [SECONDS_PER_WORK[self._type]]))
        return RESERVE * self._medians[kind] * spec.work


def device_type(device: str) -> str:
    """Return "cuda" for the name of any GPU in a record, else "cpu".

    Examples
    --------
    >>> device_type("cuda:0"), device_type("cpu (x86_64)"), device_type("NVIDIA H100")
    ('cuda', 'cpu', 'cuda')
    """
    return "cuda" if any(word in device.lower() for word in ("cuda", "nvidia")) else "cpu"
