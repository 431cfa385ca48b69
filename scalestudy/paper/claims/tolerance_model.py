"""Claims on the internal scale tolerance model: Fig. 5 (paper, section 4.1).  Deterministic, so there is no spread."""

from itertools import pairwise

import numpy as np

from scalestudy.paper import reported
from scalestudy.paper.claims.evidence import HELD, NOT_HELD, UNCLEAR, Evidence, Finding, NotMeasured
from scalestudy.tolerance import ToleranceFit

PAPER_TAU = 0.459
"""As printed in section 4.1, octaves."""


def _fit(evidence: Evidence) -> ToleranceFit:
    if evidence.tolerance_fit is None:
        raise NotMeasured("no fit of the tolerance model")
    return evidence.tolerance_fit


def _by_width(fit: ToleranceFit, values: tuple[float, ...]) -> list[float]:
    """Values ordered from the narrowest to the widest data range; at least two."""
    if len(values) < 2:
        raise NotMeasured("the tolerance model was fitted to one distribution only")
    order = np.argsort([high / low for low, high in fit.ranges])
    return [values[i] for i in order]


def tolerance_tau(evidence: Evidence) -> Finding:
    """Criterion: tau agrees with 0.459 in all printed digits (half a unit of the last one)."""
    tau = _fit(evidence).tau
    return Finding(HELD if abs(tau - PAPER_TAU) <= 5e-4 else NOT_HELD, f"tau = {tau:.5f} octaves, printed {PAPER_TAU}")


def tolerance_isr_grows(evidence: Evidence) -> Finding:
    """Criterion: fitted ISRs rise strictly with the width."""
    fit = _fit(evidence)
    isrs = _by_width(fit, fit.isrs)
    grows = all(wide > narrow for narrow, wide in pairwise(isrs))
    return Finding(HELD if grows else NOT_HELD, "fitted ISR by width: " + ", ".join(f"{isr:.2f}" for isr in isrs))


def tolerance_gaps_grow(evidence: Evidence) -> Finding:
    """Criterion: the deepest dip between neighbouring centres never shrinks with the width and is deepest on the
    widest data.
    """
    fit = _fit(evidence)
    dips = _by_width(fit, fit.dips)
    grows = all(wide >= narrow for narrow, wide in pairwise(dips)) and dips[-1] > dips[0]
    return Finding(
        HELD if grows else NOT_HELD, "dip between scales by width: " + ", ".join(f"{dip:.0%}" for dip in dips)
    )


def tolerance_isr_similar_to_best(evidence: Evidence) -> Finding:
    """Criterion: fitted and our best fixed ISR differ by at most half an octave (a factor 1.41) on every distribution.

    Reason: half an octave around its minimum the published error curve has risen by about 0.1, no more than the seeds
    vary. Did not hold: more than one octave on some distribution.  Not measured unless we have fixed runs on every
    distribution; the distance to the paper's best fixed ISRs (Fig. 3) is told beside, but is no part of the verdict.
    """
    fit = _fit(evidence)
    best = [evidence.best_fixed(label)[0] for label in fit.labels]
    worst = _most_octaves(fit, best)
    verdict = HELD if worst <= 0.5 else NOT_HELD if worst > 1.0 else UNCLEAR
    pairs = zip(fit.isrs, best, fit.labels, strict=True)
    parts = "; ".join(f"{isr:.2f} against {ours:.2f} on {label}" for isr, ours, label in pairs)
    measured = f"fitted against our best fixed ISR: {parts}; at most {worst:.2f} octaves apart"
    published = [_paper_best_fixed(label) for label in fit.labels]
    if None not in published:
        told = ", ".join(f"{isr:.2f}" for isr in published)
        apart = _most_octaves(fit, published)
        measured += f" (from the paper's best fixed ISRs {told}: at most {apart:.2f}, no part of the verdict)"
    return Finding(verdict, measured)


def _most_octaves(fit: ToleranceFit, isrs: list[float]) -> float:
    return float(np.abs(np.log2(np.divide(fit.isrs, isrs))).max())


def _paper_best_fixed(label: str) -> float | None:
    """ISR of the lowest published error of Fig. 3; None for a distribution that the paper does not have."""
    table = reported.table("fig3")
    table = table[table["distribution"] == label]
    return None if table.empty else float(table.loc[table["test_error_mean"].idxmin(), "isr"])
