"""The progress bar of a batch of runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from scalestudy.training.spec import RunSpec

_FORMAT = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed}, {remaining} left{postfix}"


class ProgressBar:
    """One bar on the standard error, measured in work, so that the time left is right for runs of all sizes.

    Parameters
    ----------
    specs : sequence of RunSpec
        The runs to be made.
    shown : bool
        ``TQDM_DISABLE=1`` in the environment hides it, too.
    begun : mapping
        What part of a run, by key, was done before; the bar is about the rest.
    """

    def __init__(self, specs: Sequence[RunSpec], shown: bool, begun: Mapping[str, float] | None = None) -> None:
        hidden = not shown or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
        self._count, self._finished, self._noted = len(specs), 0, ""
        self._shares = dict(begun or {})
        self._bar = tqdm(
            total=sum(self._left(spec) for spec in specs),
            bar_format=_FORMAT,
            disable=hidden,
            mininterval=0.5 if sys.stderr.isatty() else 15.0,  # seconds; a log file needs fewer lines than a terminal
        )
        self._describe()

    def advance(self, spec: RunSpec, share: float) -> None:
        """Show that `share` (0 to 1) of a run is done."""
        if share > self._shares.get(spec.key, 0.0):
            step = (share - self._shares.get(spec.key, 0.0)) * spec.work
            self._shares[spec.key] = share
            if not self._bar.disable:
                self._bar.n = min(self._bar.n + step, self._bar.total)  # the shares add up to a little more or less
                self._bar.update(0)

    def finish(self, spec: RunSpec, result: str) -> None:
        """Show that a run is over, and how it went."""
        self.advance(spec, 1.0)
        self._finished += 1
        self._noted = ""
        self._describe()
        self._bar.set_postfix_str(f"{spec.label}: {result}", refresh=False)

    def drop(self, spec: RunSpec) -> None:
        """Show that a run will not be made."""
        self._count -= 1
        if not self._bar.disable:
            self._bar.total = max(self._bar.total - self._left(spec), self._bar.n)
        self._describe()

    def note(self, text: str) -> None:
        """Show what the batch waits for or does, in the place of the last result; the same again writes nothing."""
        if text != self._noted:
            self._noted = text
            self._bar.set_postfix_str(text)

    def _left(self, spec: RunSpec) -> float:
        return (1 - self._shares.get(spec.key, 0.0)) * spec.work

    def _describe(self) -> None:
        self._bar.set_description_str(f"{self._finished}/{self._count} runs", refresh=False)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
