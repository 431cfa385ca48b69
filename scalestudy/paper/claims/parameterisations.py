"""Claims on the parameterisation of learnable scales: Table 4 (paper, section 4.2)."""

from itertools import combinations

import numpy as np

from scalestudy.paper.claims.evidence import (
    HELD,
    NOT_HELD,
    UNCLEAR,
    Effect,
    Evidence,
    Finding,
    NotMeasured,
    all_positive,
    all_similar,
    effect,
    text,
)

SEPARATE, COLLAPSED = 1.2, 1.05
"""Ratio of neighbouring scales: from the first on clearly separate, below the second one value for all purposes."""


def _modes(evidence: Evidence) -> tuple[str, str, str]:
    return evidence.settings.learned, "spacing", "direct"


def _errors(evidence: Evidence, distribution: str) -> dict[str, np.ndarray]:
    return {mode: evidence.learned(distribution, mode)["test_error"].to_numpy(dtype=float) for mode in _modes(evidence)}


def _scales(evidence: Evidence, distribution: str, mode: str) -> np.ndarray:
    """Learned internal scales in pixels, ascending, shape (runs, num_scales)."""
    scales = evidence.learned(distribution, mode)["internal_scales"].tolist()
    lengths = {len(one) if isinstance(one, (list, tuple, np.ndarray)) else 0 for one in scales}
    if len(lengths) != 1 or min(lengths) < 2:
        raise NotMeasured(f"no list of at least 2 internal scales for '{mode}' on {distribution}")
    return np.sort(np.abs(np.array([list(one) for one in scales], dtype=float)), axis=1)


def _pairs(errors: dict[str, np.ndarray]) -> dict[str, Effect]:
    return {f"{first} - {second}": effect(errors[first], errors[second]) for first, second in combinations(errors, 2)}


def direct_does_not_collapse(evidence: Evidence) -> Finding:
    """Criterion: neighbouring scales learned directly keep a ratio of at least 1.2 in every run on every distribution.

    Did not hold: a ratio below 1.05 in some run (at the paper's start the ratio is 1.73).
    """
    ratios = []
    for distribution in evidence.settings.distributions:
        scales = _scales(evidence, distribution, "direct")
        ratios.append((scales[:, 1:] / np.maximum(scales[:, :-1], 1e-12)).min())
    smallest = float(min(ratios))
    verdict = HELD if smallest >= SEPARATE else NOT_HELD if smallest < COLLAPSED else UNCLEAR
    return Finding(verdict, f"smallest ratio of neighbouring scales over all direct runs {smallest:.2f}")


def narrow_equal_parameterisations(evidence: Evidence) -> Finding:
    """Criterion (all but the widest data): every two parameterisations differ by at most the margin of `ClaimSettings`.

    Did not hold: some pair differs beyond margin and spread.
    """
    effects = {}
    for distribution in evidence.settings.distributions[:-1]:
        effects |= {f"{pair} on {distribution}": one for pair, one in _pairs(_errors(evidence, distribution)).items()}
    name, worst = max(effects.items(), key=lambda item: abs(item[1].difference))
    return Finding(all_similar(effects.values(), evidence.settings.margin), f"largest difference: {name} {worst}")


def parameterisations_differ_on_wide_data(evidence: Evidence) -> Finding:
    """Criterion (widest data): some pair differs beyond margin and spread.  Did not hold: all differ by at most the
    margin.
    """
    effects = _pairs(_errors(evidence, evidence.settings.widest))
    name, worst = max(effects.items(), key=lambda item: abs(item[1].difference))
    opposite = {HELD: NOT_HELD, NOT_HELD: HELD, UNCLEAR: UNCLEAR}
    return Finding(
        opposite[all_similar(effects.values(), evidence.settings.margin)], f"largest difference: {name} {worst}"
    )


def all_parameterisations_adapt(evidence: Evidence) -> Finding:
    """Criterion: for each parameterisation the largest scale is larger on the widest than on the narrowest data,
    beyond the spread.
    """
    effects = {}
    for mode in _modes(evidence):
        largest = [
            _scales(evidence, name, mode)[:, -1] for name in (evidence.settings.widest, evidence.settings.narrowest)
        ]
        effects[mode] = effect(*largest)
    measured = "largest scale (pixels), widest - narrowest data: " + ", ".join(f"{m} {e}" for m, e in effects.items())
    return Finding(all_positive(effects.values()), measured)


def isr_more_stable_on_wide(evidence: Evidence) -> Finding:
    """Criterion (widest data): the standard deviation over seeds of ln(scale), averaged over the scales, is smaller
    for the ISR than for both others by more than its own sampling error, a factor exp(1 / sqrt(n - 1)) for n seeds
    (2.0 for 3 seeds).

    Did not hold: larger than one of them by that factor.  The sampling error is that of a ratio of two standard
    deviations.
    """
    widest = evidence.settings.widest
    spreads, seeds = {}, []
    for mode in _modes(evidence):
        scales = np.maximum(_scales(evidence, widest, mode), 1e-12)
        if len(scales) < 2:
            raise NotMeasured(f"needs two seeds of '{mode}' on {widest}")
        spreads[mode] = max(float(np.log(scales).std(axis=0, ddof=1).mean()), 1e-12)
        seeds.append(len(scales))
    factor = float(np.exp(1.0 / np.sqrt(min(seeds) - 1)))
    own, *others = spreads.values()
    measured = "relative seed spread of the scales: " + ", ".join(f"{m} {s:.1%}" for m, s in spreads.items())
    if all(other > factor * own for other in others):
        return Finding(HELD, measured)
    return Finding(NOT_HELD if any(own > factor * other for other in others) else UNCLEAR, measured)


def isr_best_on_wide(evidence: Evidence) -> Finding:
    """Criterion (widest data): both other parameterisations have a higher error than the ISR, beyond the spread."""
    errors = _errors(evidence, evidence.settings.widest)
    own, *others = errors
    effects = [effect(errors[other], errors[own]) for other in others]
    measured = ", ".join(f"{mode} {text(values)}" for mode, values in errors.items())
    differences = ", ".join(f"{mode} - {own} {one}" for mode, one in zip(others, effects, strict=True))
    return Finding(all_positive(effects), f"test error: {measured}; {differences}")
