"""Claims on the systems compared on MNIST-Scale: Tables 5 and 6 (paper, section 4.3)."""

import numpy as np
import pandas as pd

from scalestudy.paper.claims.evidence import Evidence, Finding, NotMeasured, all_positive, all_similar, effect

LEARNED_MODELS = ("Ours (Learn ISR)", "Ours (Learn Spacings)", "Ours (Learn Scales Directly)")
"""Names as in Table 5."""
FIXED_MODEL = "SESN (Hermite)"
"""Name as in Table 5."""
SESN_SPREAD = 2.0
"""Largest over smallest fixed scale of SESN (Table 6: 3 / 1.5)."""


def _errors(evidence: Evidence, model: str, augmented: bool) -> np.ndarray:
    rows = _rows(evidence, model, augmented)
    return rows["test_error"].to_numpy(dtype=float)


def _rows(evidence: Evidence, model: str, augmented: bool) -> pd.DataFrame:
    frame = evidence.baselines
    rows = frame[(frame["model"] == model) & (frame["augmented"].astype(bool) == augmented)]
    if rows.empty:
        raise NotMeasured(f"no runs of {model}{'+' if augmented else ''}")
    return rows


def _log_spreads(evidence: Evidence, model: str, augmented: bool) -> np.ndarray:
    """ln(largest / smallest learned scale) per run."""
    scales = _rows(evidence, model, augmented)["internal_scales"].tolist()
    if not all(isinstance(one, (list, tuple, np.ndarray)) and len(one) > 1 for one in scales):
        raise NotMeasured(f"no internal scales of {model}{'+' if augmented else ''}")
    return np.array([np.log(max(np.abs(one)) / min(np.abs(one))) for one in scales])


def learned_on_par_with_sesn(evidence: Evidence) -> Finding:
    """Criterion: with and without augmentation, each learned model differs from SESN by at most the margin of
    `ClaimSettings`.

    Did not hold: one differs beyond margin and spread.
    """
    effects = {}
    for augmented in (False, True):
        fixed = _errors(evidence, FIXED_MODEL, augmented)
        for model in LEARNED_MODELS:
            effects[model + "+" * augmented] = effect(_errors(evidence, model, augmented), fixed)
    name, worst = max(effects.items(), key=lambda item: abs(item[1].difference))
    return Finding(
        all_similar(effects.values(), evidence.settings.margin), f"largest difference from SESN: {name} {worst}"
    )


def learned_scales_wider_than_sesn(evidence: Evidence) -> Finding:
    """Criterion: the ratio of largest to smallest scale of each learned model, with and without augmentation, is above
    SESN's 2, beyond the spread (on logarithms).
    """
    spreads = {
        model + "+" * augmented: _log_spreads(evidence, model, augmented)
        for augmented in (False, True)
        for model in LEARNED_MODELS
    }
    effects = [effect(values, [np.log(SESN_SPREAD)]) for values in spreads.values()]
    measured = "largest / smallest scale: " + ", ".join(f"{np.exp(v.mean()):.2f} {m}" for m, v in spreads.items())
    return Finding(all_positive(effects), f"{measured}; SESN {SESN_SPREAD:.2f}")


def augmentation_widens_learned_scales(evidence: Evidence) -> Finding:
    """Criterion: for each learned model the ratio of largest to smallest scale is larger with augmentation, beyond the
    spread.
    """
    parts, effects = [], []
    for model in LEARNED_MODELS:
        plain, augmented = (_log_spreads(evidence, model, flag) for flag in (False, True))
        effects.append(effect(augmented, plain))
        parts.append(f"{np.exp(plain.mean()):.2f} to {np.exp(augmented.mean()):.2f} {model}")
    return Finding(all_positive(effects), "largest / smallest scale by augmentation: " + ", ".join(parts))
