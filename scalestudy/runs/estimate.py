"""How long runs take, from those that are done; and the bar that shows how much is left of a batch."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable
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
    """Expected seconds of runs on a "cpu" or "cuda", by finished ones of the same model, else of the same data set."""

    def __init__(self, device: str, records: Iterable[Record] = ()) -> None:
        self._device = device
        self._known: dict[str, list[tuple[float, float]]] = defaultdict(list)  # work and seconds per unit of work
        for record in records:
            self.learn(record)

    def learn(self, record: Record) -> None:
        if record.provenance.device.startswith(self._device):
            for kind in (record.spec.model, record.spec.dataset):
                self.foresee(record.spec, record.provenance.seconds, kind)

    def rates(self, spec: RunSpec, kind: str) -> list[float]:
        """Seconds per unit of work of the ended runs of a network or data set that tell something about this run."""
        return [rate for work, rate in self._known[kind] if work * COMPARABLE >= spec.work]

    def foresee(self, spec: RunSpec, seconds: float, kind: str) -> None:
        """Expect that runs of a network or data set take as long as this one took, or as its first epochs promise."""
        self._known[kind].append((spec.work, seconds / spec.work))

    def rate(self, spec: RunSpec) -> float | None:
        """Seconds per unit of work as far as is known."""
        rates = self.rates(spec, spec.model) or self.rates(spec, spec.dataset)
        return median(rates) if rates else None

    def seconds(self, spec: RunSpec) -> float:
        return RESERVE * (self.rate(spec) or SECONDS_PER_WORK[self._device]) * spec.work


class Run:
    """A run that a batch has to make, and what was heard of it."""

    def __init__(self, spec: RunSpec, share: float = 0.0) -> None:
        self.spec, self.wanted = spec, True
        self.share = self.begun = share  # the part that is done, tests included; and that was done before
        self.heard: list[float] = []  # when it began here, then when each of its epochs ended

    def advance(self, done: int, epochs: int) -> None:
        """It has made so many of its epochs (0: it begins); the tests count as one more.  From any thread."""
        if self.share < 1:  # else late news
            self.heard = [*(self.heard if done else ()), time.monotonic()]
            self.share = max(self.share, done / (epochs + 1))

    def promised(self, epochs: int) -> float | None:
        """Seconds of the whole run at the pace of its first epochs, when the last of these has just ended."""
        times = self.heard[1:]
        return (times[1] - times[0]) * (epochs + 1) if len(times) == ENOUGH_EPOCHS else None

    def left(self, clock: Clock) -> float:
        return clock.seconds(self.spec) * (1 - self.share)


class ProgressBar:
    """One bar on the standard error, in expected seconds of what was not begun before; time left at the pace here."""

    def __init__(self, runs: Iterable[Run], clock: Clock, shown: bool = True) -> None:
        self._runs, self._clock = list(runs), clock
        self._due, self.said, self._waits_for = 0.0, "", ""
        self.slots = 1  # runs that are made at a time
        self._interval = 0.5 if sys.stderr.isatty() else 15.0  # seconds; a log file needs fewer lines than a terminal
        hidden = {} if shown else {"disable": True}  # else as TQDM_DISABLE says
        self._bar = tqdm(total=1.0, bar_format=_FORMAT, **hidden)

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
        left = sum(run.left(self._clock) for run in pending) * spent / expected - since
        return max(left, 0.0) / max(1, min(self.slots, len(pending)))

    def finish(self, run: Run, result: str, trained: bool) -> None:
        """A run is over, or left out; one that was not trained says nothing about the pace."""
        run.share = 1.0
        if trained and run.heard:
            run.heard.append(time.monotonic())
        else:
            run.begun, run.heard = 1.0, []
        self.said = f"{run.spec.label}: {result}"

    def draw(self, waits_for: str = "") -> None:
        """Show all of it, where that is due: with what the batch waits for in the place of the last result."""
        self._waits_for = waits_for
        if self._bar.disable or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._interval
        left, spent = self.left(), self._spent()
        self._bar.total = max(spent + sum(run.left(self._clock) for run in self._runs), 1e-9)
        self._bar.n = min(spent, self._bar.total)
        ended = sum(run.share == 1 for run in self._runs)
        self._bar.set_description_str(f"{ended}/{len(self._runs)} runs", refresh=False)
        told = [f"{tqdm.format_interval(left)} left" if left is not None else "", waits_for or self.said]
        self._bar.set_postfix_str(", ".join(filter(None, told)))

    def close(self) -> None:
        self._due = 0.0
        self.draw(self._waits_for)
        self._bar.close()

    def _spent(self) -> float:
        """What was done here, in the seconds that the clock expects for it."""
        return sum(self._clock.seconds(run.spec) * (run.share - run.begun) for run in self._runs)
