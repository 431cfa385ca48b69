"""How long runs take, from those that are done; and the bar that shows how much is left of a batch."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from tqdm import tqdm

from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

# per unit of `RunSpec.work` where no run is known; ours: on the CPU a 56 x 56 run on a server's core, on a GPU a guess
SECONDS_PER_WORK = {"cpu": 1.5e-7, "cuda": 1e-9}
RESERVE = 1.1  # our choice: half of all runs take longer than the median
COMPARABLE = 100  # runs of less work than this part tell what starting costs, not how fast a larger one is
# no time left is told before so many runs have ended, or each that is under way has made so many epochs
ENOUGH_RUNS, ENOUGH_EPOCHS = 3, 2
_FORMAT = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed}{postfix}"


class Clock:
    """Expected seconds of runs on one type of device, by finished ones of the same model, else of the same data set."""

    def __init__(self, device: str, records: Iterable[Record] = ()) -> None:
        self._type = _device_type(device)
        self._known: dict[str, list[tuple[float, float]]] = {}  # work and seconds per unit of work
        self._promised: dict[str, list[float]] = {}
        for record in records:
            self.learn(record)

    def learn(self, record: Record) -> None:
        """Take one more finished run into account."""
        if _device_type(record.provenance.device) == self._type:
            for kind in (record.spec.model, record.spec.dataset):
                work = record.spec.work
                self._known.setdefault(kind, []).append((work, record.provenance.seconds / work))

    def rates(self, spec: RunSpec, kind: str) -> list[float]:
        """Seconds per unit of work of the ended runs of a network or data set that tell something about this run."""
        return [rate for work, rate in self._known.get(kind, ()) if work * COMPARABLE >= spec.work]

    def foresee(self, spec: RunSpec, seconds: float) -> None:
        """Take what the first epochs of a run promise, until one like it has ended."""
        self._promised[spec.model] = [seconds / spec.work]

    def rate(self, spec: RunSpec) -> float | None:
        """Seconds per unit of work as far as is known."""
        rates = self.rates(spec, spec.model) or self._promised.get(spec.model) or self.rates(spec, spec.dataset)
        return median(rates) if rates else None

    def seconds(self, spec: RunSpec) -> float:
        """Expected seconds of a run."""
        return RESERVE * (self.rate(spec) or SECONDS_PER_WORK[self._type]) * spec.work


class ProgressBar:
    """One bar on the standard error, in seconds that the clock expects; its time left is theirs at the pace seen here.

    It is about what was not `begun` before, as a part of each run, by key.
    """

    def __init__(self, specs: Sequence[RunSpec], clock: Clock, begun: Mapping[str, float], shown: bool) -> None:
        self._specs, self._clock = {spec.key: spec for spec in specs}, clock
        self._begun = {key: begun.get(key, 0.0) for key in self._specs}
        self._shares = dict(self._begun)
        self._heard: dict[str, list[float]] = {key: [] for key in self._specs}
        self._due, self._said, self._waits_for = 0.0, "", ""
        self.slots = 1  # runs that are made at a time
        hidden = not shown or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
        self._interval = 0.5 if sys.stderr.isatty() else 15.0  # seconds; a log file needs fewer lines than a terminal
        self._bar = tqdm(total=1.0, bar_format=_FORMAT, disable=hidden)

    def advance(self, key: str, done: int, epochs: int) -> None:
        """A run has made so many of its epochs (0: it begins); the tests count as one more.  From any thread."""
        if key not in self._specs or self._shares[key] == 1:
            return  # late news of a run that is over
        self._heard[key] = [*(self._heard[key] if done else ()), time.monotonic()]
        self._shares[key] = max(self._shares[key], done / (epochs + 1))

    def begun(self, spec: RunSpec) -> bool:
        """Whether a run has been heard of."""
        return bool(self._heard[spec.key])

    def promised(self, key: str, epochs: int) -> float | None:
        """Seconds of a whole run at the pace of its first epochs, when the last of these has just ended."""
        times = self._heard[key][1:]
        if len(times) != ENOUGH_EPOCHS:
            return None
        return (times[-1] - times[0]) / (len(times) - 1) * (epochs + 1)

    def left_of(self, spec: RunSpec) -> float:
        """Expected seconds of what is left of a run."""
        return self._clock.seconds(spec) * (1 - self._shares[spec.key])

    def left(self) -> float | None:
        """Seconds until the batch ends, at the pace of the runs that it has made; None while too little is known."""
        heard = {key: times for key, times in tuple(self._heard.items()) if times}
        running = [times for key, times in heard.items() if self._shares[key] < 1]
        enough = len(heard) - len(running) >= ENOUGH_RUNS or min(map(len, running), default=0) > ENOUGH_EPOCHS
        expected = self._spent()
        if not enough or expected <= 0:
            return None
        spent = sum(times[-1] - times[0] for times in heard.values())
        since = sum(time.monotonic() - times[-1] for times in running)
        pending = [spec for key, spec in self._specs.items() if self._shares[key] < 1]
        left = sum(map(self.left_of, pending)) * spent / expected - since
        return max(left, 0.0) / max(1, min(self.slots, len(pending)))

    def finish(self, spec: RunSpec, result: str, trained: bool) -> None:
        """A run is over, and how it went; one that was not trained says nothing about the pace."""
        self._shares[spec.key] = 1.0
        if trained and self._heard[spec.key]:
            self._heard[spec.key].append(time.monotonic())
        else:
            self._begun[spec.key], self._heard[spec.key] = 1.0, []
        self._said = f"{spec.label}: {result}"

    def drop(self, spec: RunSpec) -> None:
        """A run will not be made."""
        del self._specs[spec.key]
        self._heard[spec.key] = []

    def draw(self, waits_for: str = "") -> None:
        """Show all of it, where that is due: with what the batch waits for in the place of the last result."""
        news, self._waits_for = waits_for != self._waits_for, waits_for
        if self._bar.disable or (time.monotonic() < self._due and not news):
            return
        self._due = time.monotonic() + self._interval
        left, spent = self.left(), self._spent()
        self._bar.total = max(spent + sum(map(self.left_of, self._specs.values())), 1e-9)
        self._bar.n = min(spent, self._bar.total)
        ended = sum(self._shares[key] == 1 for key in self._specs)
        self._bar.set_description_str(f"{ended}/{len(self._specs)} runs", refresh=False)
        told = [f"{tqdm.format_interval(left)} left" if left is not None else "", waits_for or self._said]
        self._bar.set_postfix_str(", ".join(filter(None, told)), refresh=False)
        self._bar.refresh()

    def _spent(self) -> float:
        """What was done here, in the seconds that the clock expects for it."""
        specs = self._specs.items()
        return sum(self._clock.seconds(spec) * (self._shares[key] - self._begun[key]) for key, spec in specs)

    def close(self) -> None:
        """Show the end of it."""
        self._due = 0.0
        self.draw(self._waits_for)
        self._bar.close()


def _device_type(name: str) -> str:
    return "cuda" if any(word in name.lower() for word in ("cuda", "nvidia")) else "cpu"
