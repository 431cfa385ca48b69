"""Does each claim that the paper makes in words hold in our runs?  Pure functions on frames of runs."""

from collections.abc import Callable

import pandas as pd

from scalestudy.paper import reported
from scalestudy.paper.claims import baselines as _baselines
from scalestudy.paper.claims import fixed_scales as _fixed
from scalestudy.paper.claims import learned_scales as _learned
from scalestudy.paper.claims import parameterisations as _parameterisations
from scalestudy.paper.claims import tolerance_model as _tolerance
from scalestudy.paper.claims.evidence import (
    HELD,
    NOT_HELD,
    NOT_MEASURED,
    UNCLEAR,
    ClaimSettings,
    Evidence,
    Finding,
    NotMeasured,
)
from scalestudy.tolerance import ToleranceFit

__all__ = ["CHECKS", "VERDICTS", "ClaimSettings", "Evidence", "Finding", "claim_verdicts"]

VERDICTS = (HELD, NOT_HELD, UNCLEAR, NOT_MEASURED)
"""All verdicts of `claim_verdicts`.

Unclear: the runs do not decide by the criterion, because the effect lies within the spread over seeds, there are too
few seeds for a spread, or the value lies between the criterion's two thresholds.  Not measured: runs are missing.
"""

RUN_COLUMNS = (
    "distribution", "seed", "scale_learning", "init_sigma_basis", "init_isr", "sigma_basis", "isr", "internal_scales",
    "test_error", "isr_history",
)  # fmt: skip
SCALE_TEST_COLUMNS = ("distribution", "isr", "seed", "data_scale", "test_error")
BASELINE_COLUMNS = ("model", "augmented", "seed", "test_error", "internal_scales")

CHECKS: dict[str, Callable[[Evidence], Finding]] = {
    check.__name__: check
    for check in (
        _fixed.best_isr_grows_with_width,
        _fixed.narrow_preferred_on_narrow_data,
        _fixed.wide_preferred_on_wide_data,
        _fixed.less_variation_on_narrow_data,
        _fixed.narrow_isr_worse_at_boundaries_of_wide_data,
        _fixed.narrow_isr_fails_at_large_scales_on_wide_data,
        _fixed.narrow_slightly_better_on_narrow_data,
        _tolerance.tolerance_tau,
        _tolerance.tolerance_isr_similar_to_best,
        _tolerance.tolerance_isr_grows,
        _tolerance.tolerance_gaps_grow,
        _learned.learned_isr_grows_except_narrowest,
        _learned.learned_follows_best_fixed_pattern,
        _learned.learned_comparable_to_best_fixed,
        _learned.scales_adapt_to_data,
        _learned.init_matters,
        _learned.init_matters_for_test_error,
        _learned.wide_init_helps_on_wide_data,
        _learned.isr_stabilises_after_20_epochs,
        _learned.best_model_has_larger_isr_than_others,
        _parameterisations.direct_does_not_collapse,
        _parameterisations.narrow_equal_parameterisations,
        _parameterisations.parameterisations_differ_on_wide_data,
        _parameterisations.all_parameterisations_adapt,
        _parameterisations.isr_more_stable_on_wide,
        _parameterisations.isr_best_on_wide,
        _baselines.learned_on_par_with_sesn,
        _baselines.learned_scales_wider_than_sesn,
        _baselines.augmentation_widens_learned_scales,
    )
}
"""Check of each claim of `scalestudy.paper.reported.claims`; its docstring states the criterion."""


def claim_verdicts(
    runs: pd.DataFrame | None = None,
    scale_test: pd.DataFrame | None = None,
    tolerance_fit: ToleranceFit | None = None,
    baselines: pd.DataFrame | None = None,
    settings: ClaimSettings | None = None,
) -> pd.DataFrame:
    """Judge every claim of `scalestudy.paper.reported.claims` by our runs.

    Not in the paper: our choice; every criterion stands in the docstring of its check (see `CHECKS`).

    Parameters
    ----------
    runs : pandas.DataFrame or None
        One row per run: distribution (label such as `log-uniform [1, 8]`), seed, scale_learning (`fixed`, `isr`,
        `step_ratio`, `spacing`, `direct`), init_sigma_basis (pixels), init_isr (for `fixed`: the fixed values),
        sigma_basis (pixels), isr, internal_scales (list, pixels; all at the selected epoch), test_error (percent),
        isr_history (list, one ISR per epoch).  Further columns are ignored.
    scale_test : pandas.DataFrame or None
        Fig. 4, long: distribution, isr (fixed), seed, data_scale (factor), test_error (percent).
    tolerance_fit : ToleranceFit or None
        Joint fit to the data scale distributions.
    baselines : pandas.DataFrame or None
        One row per run on MNIST-Scale: model (name of Table 5), augmented (bool), seed, test_error (percent),
        internal_scales (list, pixels, at the selected epoch).
    settings : ClaimSettings or None
        Which runs stand for the paper's; None: `ClaimSettings()`, where learned ISRs are those of Eq. 5 as printed
        (the scorecard passes `learned="step_ratio"`, the paper's released code).

    Returns
    -------
    pandas.DataFrame
        A row per claim in the order of `reported.claims`: id, section, item, claim, notebook, measured (a sentence with
        numbers), verdict (`held`, `did not hold`, `unclear`, `not measured`; see `VERDICTS`).  Missing runs never
        raise: the claim is `not measured` and `measured` says what is missing.

    Raises
    ------
    ValueError
        If a frame that is given lacks a column.
    """
    evidence = Evidence(
        runs=_checked("runs", runs, RUN_COLUMNS),
        scale_test=_checked("scale_test", scale_test, SCALE_TEST_COLUMNS),
        baselines=_checked("baselines", baselines, BASELINE_COLUMNS),
        tolerance_fit=tolerance_fit,
        settings=settings or ClaimSettings(),
    )
    frame = reported.claims()
    findings = [_judge(CHECKS[claim], evidence) for claim in frame["id"]]
    return frame.assign(
        measured=[finding.measured for finding in findings], verdict=[finding.verdict for finding in findings]
    )


def _judge(check: Callable[[Evidence], Finding], evidence: Evidence) -> Finding:
    try:
        return check(evidence)
    except NotMeasured as missing:
        return Finding(NOT_MEASURED, f"missing: {missing}")


def _checked(name: str, frame: pd.DataFrame | None, columns: tuple[str, ...]) -> pd.DataFrame:
    """The frame without runs that have no test error, or an empty one of the same columns."""
    if frame is None or not len(frame.columns):
        return pd.DataFrame(columns=list(columns))
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{name} lacks the columns {missing}: it has {list(frame.columns)}; rename or add them.")
    return frame[frame["test_error"].notna()]
