"""Claims on fixed internal scales: Fig. 3 and Fig. 4 (paper, section 4.1)."""

import re
from itertools import pairwise

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
    effect,
    text,
)


def best_isr_grows_with_width(evidence: Evidence) -> Finding:
    """Criterion: best fixed ISRs never fall with the width and rise from narrowest to widest, beyond noise.

    Beyond noise: swapping the best ISRs of the two distributions costs more than the seed spread on at least one of
    them. A fall between two distributions, or no rise overall, that is beyond noise (or no difference at all) means
    did not hold.
    """
    distributions = evidence.settings.distributions
    best = [evidence.best_fixed(distribution)[0] for distribution in distributions]
    measured = "best fixed ISR: " + ", ".join(
        f"{isr:g} on {name}" for isr, name in zip(best, distributions, strict=True)
    )
    falls = [
        (narrow, wide)
        for (narrow, isr), (wide, wider_isr) in pairwise(zip(distributions, best, strict=True))
        if wider_isr < isr and _swap_costs(evidence, narrow, wide)
    ]
    resolved = _swap_costs(evidence, distributions[0], distributions[-1])
    if falls or best[-1] == best[0] or (best[-1] < best[0] and resolved):
        return Finding(NOT_HELD, measured)
    return Finding(HELD if resolved and best[-1] > best[0] else UNCLEAR, measured)


def _swap_costs(evidence: Evidence, first: str, second: str) -> bool:
    """Whether using the other distribution's best ISR costs more than the spread on either distribution."""
    for here, other in ((first, second), (second, first)):
        table = evidence.fixed_errors(here)
        isr, errors = evidence.best_fixed(here)
        other_isr = evidence.best_fixed(other)[0]
        if other_isr in table and other_isr != isr and effect(table[other_isr].dropna(), errors).sign > 0:
            return True
    return False


def _preferred_half(evidence: Evidence, distribution: str, narrow: bool) -> Finding:
    """Best ISR of each half of the grid (split at its geometric middle), claimed half against the other."""
    table = evidence.fixed_errors(distribution)
    isrs = table.columns.to_numpy(dtype=float)
    middle = np.sqrt(isrs[0] * isrs[-1])
    means = table.mean()
    below, above = means[isrs < middle].idxmin(), means[isrs > middle].idxmin()
    claimed, other, opposite_end = (below, above, isrs[-1]) if narrow else (above, below, isrs[0])
    gap = effect(table[other].dropna(), table[claimed].dropna())
    cost = effect(table[opposite_end].dropna(), table[claimed].dropna())
    measured = (
        f"{distribution}: best below the middle of the grid {text(table[below].dropna())} at ISR {below:g}, above it "
        f"{text(table[above].dropna())} at {above:g}; ISR {opposite_end:g} costs {cost}"
    )
    if gap.difference > 0 and cost.sign > 0:
        return Finding(HELD, measured)
    return Finding(NOT_HELD if gap.sign < 0 or cost.sign < 0 else UNCLEAR, measured)


def narrow_preferred_on_narrow_data(evidence: Evidence) -> Finding:
    """Criterion (narrowest data): the best ISR lies in the lower half of the grid and the largest ISR is worse beyond
    the spread.

    Did not hold: the upper half is better, or the largest ISR is, beyond the spread.
    """
    return _preferred_half(evidence, evidence.settings.narrowest, narrow=True)


def wide_preferred_on_wide_data(evidence: Evidence) -> Finding:
    """Criterion (widest data): the best ISR lies in the upper half of the grid and the smallest ISR is worse beyond
    the spread.
    """
    return _preferred_half(evidence, evidence.settings.widest, narrow=False)


def less_variation_on_narrow_data(evidence: Evidence) -> Finding:
    """Criterion: per seed, the standard deviation of the error over the ISRs; lower on the narrowest data than on each
    wider one.
    """
    variations = []
    for distribution in evidence.settings.distributions:
        table = evidence.fixed_errors(distribution).dropna()
        if table.empty:
            raise NotMeasured(f"no seed with every fixed ISR on {distribution}")
        variations.append(table.std(axis=1, ddof=0).to_numpy())
    effects = [effect(wider, variations[0]) for wider in variations[1:]]
    named = zip(variations, evidence.settings.distributions, strict=True)
    return Finding(
        all_positive(effects), "error variation over ISRs: " + ", ".join(f"{text(v)} on {name}" for v, name in named)
    )


def narrow_isr_worse_at_boundaries_of_wide_data(evidence: Evidence) -> Finding:
    """Criterion (widest data): narrow minus wide ISRs is positive beyond the spread in the lowest and the highest
    third of the range.

    Narrow and wide: the tested ISRs below and above the geometric middle; thirds on the logarithmic axis; averaged per
    seed.
    """
    regions = _narrow_minus_wide(evidence, evidence.settings.widest)
    measured = f"narrow - wide ISR: lowest third {regions['low']}, highest third {regions['high']}"
    return Finding(all_positive([regions["low"], regions["high"]]), measured)


def narrow_isr_fails_at_large_scales_on_wide_data(evidence: Evidence) -> Finding:
    """Criterion (widest data): narrow minus wide ISRs is positive beyond the spread in the highest third of the range
    and larger there than in the rest of the range, beyond the spread.  Groups and thirds as for the boundaries.
    """
    regions = _narrow_minus_wide(evidence, evidence.settings.widest)
    measured = f"narrow - wide ISR: highest third {regions['high']}; excess over the rest {regions['excess']}"
    return Finding(all_positive([regions["high"], regions["excess"]]), measured)


def narrow_slightly_better_on_narrow_data(evidence: Evidence) -> Finding:
    """Criterion (narrowest data): wide minus narrow ISRs, averaged over the range, is positive beyond the spread.

    "Slightly" is reported as the number, not tested.
    """
    regions = _narrow_minus_wide(evidence, evidence.settings.narrowest)
    whole = regions["all"]
    flipped = Effect(-whole.difference, whole.spread, -whole.high, -whole.low)
    return Finding(all_positive([flipped]), f"wide - narrow ISR within the range: {flipped}")


def _narrow_minus_wide(evidence: Evidence, distribution: str) -> dict[str, Effect]:
    """Effects of narrow over wide ISRs in parts of the range: low and high third, all, and the excess of high over the
    rest.
    """
    rows = evidence.scale_test[evidence.scale_test["distribution"] == distribution]
    if rows.empty:
        raise NotMeasured(f"no test error per data scale on {distribution}")
    low, high = _range_of(distribution)
    isrs = np.sort(rows["isr"].astype(float).unique())
    middle = np.sqrt(isrs[0] * isrs[-1])
    position = np.log(rows["data_scale"].astype(float) / low) / np.log(high / low)
    rows = rows.assign(position=position)[(position > -1e-9) & (position < 1 + 1e-9)]
    parts = {
        "low": rows[rows["position"] <= 1 / 3],
        "high": rows[rows["position"] >= 2 / 3],
        "rest": rows[rows["position"] < 2 / 3],
        "all": rows,
    }
    means = {}
    for part, chosen in parts.items():
        for group, member in (("narrow", chosen["isr"] < middle), ("wide", chosen["isr"] > middle)):
            means[part, group] = chosen[member].groupby("seed")["test_error"].mean()
            if means[part, group].empty:
                raise NotMeasured(f"no {group} ISR tested in the {part} part of the data scales of {distribution}")
    effects = {part: effect(means[part, "narrow"], means[part, "wide"]) for part in parts}
    # Per seed, so that the seed's own level cancels; groups without common seeds leave nothing to compare.
    narrow, wide = (means["high", group] - means["rest", group] for group in ("narrow", "wide"))
    if narrow.dropna().empty or wide.dropna().empty:
        raise NotMeasured(f"no seed tested over the whole range of {distribution}")
    return effects | {"excess": effect(narrow.dropna(), wide.dropna())}


def _range_of(distribution: str) -> tuple[float, float]:
    """Limits in a label such as `log-uniform [1, 8]`."""
    match = re.search(r"\[\s*([\d.]+)\s*,\s*([\d.]+)\s*\]", distribution)
    if not match:
        raise NotMeasured(f"the label {distribution!r} names no range such as [1, 8]")
    return float(match[1]), float(match[2])
