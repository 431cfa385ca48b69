"""How long runs take, from those that are done; and the bar that shows how much is left of a batch."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
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

    def left(self, run: Run) -> float:
        """Expected seconds of what is left of a run."""
        return self.seconds(run.spec) * (1 - run.share)


@dataclass(eq=False)
class Run:
    """A run that a batch has to make, and what was heard of it; `share` is the part that is done, tests included."""

    spec: RunSpec
    begun: float = 0.0  # the part that was done before
    heard: list[float] = field(default_factory=list)  # when it began here, then when each of its epochs ended
    wanted: bool = True

    def __post_init__(self) -> None:
        self.share = self.begun

    def advance(self, done: int, epochs: int) -> None:
        """It has made so many of its epochs (0: it begins); the tests count as one more.  From any thread."""
        if self.share < 1:  # else late news
            self.heard = [*(self.heard if done else ()), time.monotonic()]
            self.share = max(self.share, done / (epochs + 1))

    def promised(self, epochs: int) -> float | None:
        """Seconds of the whole run at the pace of its first epochs, when the last of these has just ended."""
        times = self.heard[1:]
        return (times[1] - times[0]) * (epochs + 1) if len(times) == ENOUGH_EPOCHS else None


class ProgressBar:
    """One bar on the standard error, in seconds that the clock expects; its time left is theirs at the pace seen here.

    It is about what was not begun before.
    """

    def __init__(self, runs: Iterable[Run], clock: Clock, shown: bool) -> None:
        self._runs, self._clock = list(runs), clock
        self._due, self._said, self._waits_for = 0.0, "", ""
        self.slots = 1  # runs that are made at a time
        hidden = not shown or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
        self._interval = 0.5 if sys.stderr.isatty() else 15.0  # seconds; a log file needs fewer lines than a terminal
        self._bar = tqdm(total=1.0, bar_format=_FORMAT, disable=hidden)

    def left(self) -> float | None:
        """Seconds until the batch ends, at the pace of the runs that it has made; None while too little is known."""
        heard = [(run, times) for run in self._runs if (times := run.heard)]
        running = [times for run, times in heard if run.share < 1]
        enough = len(heard) - len(running) >= ENOUGH_RUNS or min(map(len, running), default=0) > ENOUGH_EPOCHS
        expected = self._spent()
        if not enough or expected <= 0:
            return None
        spent = sum(times[-1] - times[0] for _, times in heard)
        since = sum(time.monotonic() - times[-1] for times in running)
        pending = [run for run in self._runs if run.share < 1]
        left = sum(map(self._clock.left, pending)) * spent / expected - since
        return max(left, 0.0) / max(1, min(self.slots, len(pending)))

    def finish(self, run: Run, result: str, trained: bool) -> None:
        """A run is over, and how it went; one that was not trained says nothing about the pace."""
        run.share = 1.0
        if trained and run.heard:
            run.heard.append(time.monotonic())
        else:
            run.begun, run.heard = 1.0, []
        self._said = f"{run.spec.label}: {result}"

    def drop(self, run: Run) -> None:
        """A run will not be made."""
        self._runs.remove(run)

    def draw(self, waits_for: str = "") -> None:
        """Show all of it, where that is due: with what the batch waits for in the place of the last result."""
        news, self._waits_for = waits_for != self._waits_for, waits_for
        if self._bar.disable or (time.monotonic() < self._due and not news):
            return
        self._due = time.monotonic() + self._interval
        left, spent = self.left(), self._spent()
        self._bar.total = max(spent + sum(map(self._clock.left, self._runs)), 1e-9)
        self._bar.n = min(spent, self._bar.total)
        ended = sum(run.share == 1 for run in self._runs)
        self._bar.set_description_str(f"{ended}/{len(self._runs)} runs", refresh=False)
        told = [f"{tqdm.format_interval(left)} left" if left is not None else "", waits_for or self._said]
        self._bar.set_postfix_str(", ".join(filter(None, told)), refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        """Show the end of it."""
        self._due = 0.0
        self.draw(self._waits_for)
        self._bar.close()

    def _spent(self) -> float:
        """What was done here, in the seconds that the clock expects for it."""
        return sum(self._clock.seconds(run.spec) * (run.share - run.begun) for run in self._runs)


def _device_type(name: str) -> str:
    return "cuda" if any(word in name.lower() for word in ("cuda", "nvidia")) else "cpu"
