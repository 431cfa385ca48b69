"""Claim checks: each must be able to say that a claim holds and that it does not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scalestudy.paper import reported
from scalestudy.paper.claims import CHECKS, VERDICTS, ClaimSettings, claim_verdicts
from scalestudy.paper.claims.evidence import Effect, effect, majority_positive
from scalestudy.tolerance import PAPER_RANGES, fit_tolerance

NARROW, MIDDLE, WIDE = reported.DISTRIBUTIONS
SEEDS = (-1.0, 0.0, 1.0)
FIXED_ISRS = (1.5, 2.38, 4.76, 7.56)


def run(distribution, mode, init, isr, error, spread=0.02, isr_spread=0.05, sigma=2.0):
    """Three runs with the given means and seed standard deviations."""
    rows = []
    for seed, unit in enumerate(SEEDS):
        end = isr + isr_spread * unit
        rows.append(
            {
                "distribution": distribution,
                "seed": seed,
                "scale_learning": mode,
                "init_sigma_basis": init[0],
                "init_isr": init[1],
                "sigma_basis": sigma,
                "isr": end,
                "internal_scales": [sigma, sigma * end**0.5, sigma * end],
                "test_error": error + spread * unit,
                "selected_epoch": 50,
                "epochs": 60,
                "isr_history": [init[1] + (end - init[1]) * min(epoch / 15, 1.0) for epoch in range(60)],
            }
        )
    return rows


def held_runs():
    """Runs for which every claim on Tables 2 to 4 and Fig. 3 and 6 holds."""
    rows = []
    errors = {NARROW: (2.5, 2.2, 2.35, 2.5), MIDDLE: (3.2, 2.9, 2.5, 2.7), WIDE: (3.9, 3.4, 2.9, 2.8)}
    for distribution, values in errors.items():
        for isr, error in zip(FIXED_ISRS, values, strict=True):
            rows += run(distribution, "fixed", (2.0, isr), isr, error, isr_spread=0.0)
    for i, distribution in enumerate(reported.DISTRIBUTIONS):
        best = min(errors[distribution])
        for sigma in (1.0, 2.0, 4.0):
            for isr in (1.5, 3.0, 6.0):
                error = best + 0.05 + 0.15 * abs(np.log2(sigma / 2)) + 0.1 * i * (isr < 2) - 0.03 * (i == 2) * (isr > 5)
                rows += run(distribution, "isr", (sigma, isr), 2.2 + 0.5 * i + isr / 3, error, sigma=0.9 * sigma + 0.2)
        for mode in ("spacing", "direct"):
            worse = 0.3 if distribution == WIDE else 0.0
            rows += run(distribution, mode, (2.0, 3.0), 3.1 + 0.6 * i, best + 0.05 + worse, isr_spread=0.2)
    return pd.DataFrame(rows)


def scale_test(extra_large=1.0, extra_small=0.4, narrow_gain=0.2):
    """Errors per data scale: narrow ISRs fail at the ends of the widest range and gain a little on the narrowest."""
    rows = []
    for distribution, high in zip(reported.DISTRIBUTIONS, (2.83, 4.76, 8.0), strict=True):
        for isr in (1.5, 7.56):
            for seed, unit in enumerate(SEEDS):
                for data_scale in np.geomspace(0.5, 11.3, 46):
                    position = np.log(data_scale) / np.log(high)
                    error = 3.0 + 0.05 * unit
                    if distribution == WIDE and isr == 1.5:
                        error += extra_large * (position >= 2 / 3) + extra_small * (position <= 1 / 3)
                    if distribution == NARROW and isr == 1.5:
                        error -= narrow_gain
                    rows.append((distribution, isr, seed, data_scale, error))
    return pd.DataFrame(rows, columns=["distribution", "isr", "seed", "data_scale", "test_error"])


def baselines(learned_error=1.70, top=3.5, augmented_top=4.6):
    """Runs on MNIST-Scale."""
    rows = []
    for augmented in (False, True):
        for model in ("SESN (Hermite)", "Ours (Learn ISR)", "Ours (Learn Spacings)", "Ours (Learn Scales Directly)"):
            ours = model.startswith("Ours")
            for seed, unit in enumerate(SEEDS):
                scales = [1.4, 1.9, 2.6, (augmented_top if augmented else top) + 0.1 * unit] if ours else None
                error = (learned_error if ours else 1.68) + 0.05 * unit
                rows.append((model, augmented, seed, error, scales))
    return pd.DataFrame(rows, columns=["model", "augmented", "seed", "test_error", "internal_scales"])


@pytest.fixture(scope="module")
def fit():
    return fit_tolerance()


def verdicts(*args, **settings):
    return claim_verdicts(*args, **settings).set_index("id")["verdict"]


def changed(frame, distribution, mode, column, change):
    """A copy in which `change` is applied to one column of one distribution (None: all) and learning mode."""
    frame = frame.copy()
    chosen = frame["scale_learning"] == mode
    if distribution:
        chosen &= frame["distribution"] == distribution
    frame.loc[chosen, column] = pd.Series(
        [change(row) for _, row in frame[chosen].iterrows()], index=frame.index[chosen]
    )
    return frame


def test_every_claim_has_a_check_with_a_criterion():
    assert list(CHECKS) == reported.claims()["id"].tolist()
    assert all("Criterion" in check.__doc__ for check in CHECKS.values())


def test_every_claim_can_hold(fit):
    frame = claim_verdicts(held_runs(), scale_test(), fit, baselines())
    wrong = frame[frame["verdict"] != "held"]
    assert wrong.empty, wrong[["id", "measured", "verdict"]].to_string()
    assert frame["measured"].str.contains(r"\d").all()


def learned_falls(row):
    return 5.0 - row["isr"] / 2 if row["distribution"] == WIDE else row["isr"]


FIXED_FALLS = {NARROW: (3.9, 3.4, 2.9, 2.6), MIDDLE: (3.2, 2.5, 2.9, 3.0), WIDE: (2.2, 2.3, 2.31, 2.32)}


def fixed_falls(row):
    values = FIXED_FALLS[row["distribution"]]
    return values[FIXED_ISRS.index(row["init_isr"])] + 0.02 * SEEDS[row["seed"]]


BREAK_RUNS = {
    "best_isr_grows_with_width": lambda r: changed(r, None, "fixed", "test_error", fixed_falls),
    "narrow_preferred_on_narrow_data": lambda r: changed(r, None, "fixed", "test_error", fixed_falls),
    "wide_preferred_on_wide_data": lambda r: changed(r, None, "fixed", "test_error", fixed_falls),
    "less_variation_on_narrow_data": lambda r: changed(r, None, "fixed", "test_error", fixed_falls),
    "learned_isr_grows_except_narrowest": lambda r: changed(r, None, "isr", "isr", learned_falls),
    "learned_follows_best_fixed_pattern": lambda r: changed(r, None, "isr", "isr", learned_falls),
    "learned_comparable_to_best_fixed": lambda r: changed(r, WIDE, "isr", "test_error", lambda x: x["test_error"] + 1),
    "scales_adapt_to_data": lambda r: changed(r, WIDE, "isr", "isr", lambda x: x["isr"] - 2),
    "init_matters": lambda r: changed(
        changed(r, None, "isr", "isr", lambda x: x["isr"] - x["init_isr"]),
        None, "isr", "sigma_basis", lambda x: 5.0 - x["init_sigma_basis"],
    ),
    "init_matters_for_test_error": lambda r: changed(
        r, None, "isr", "test_error", lambda x: 2.5 + 0.1 * SEEDS[x["seed"]]
    ),
    "wide_init_helps_on_wide_data": lambda r: changed(
        r, WIDE, "isr", "test_error", lambda x: x["test_error"] + 0.2 * x["init_isr"]
    ),
    "isr_stabilises_after_20_epochs": lambda r: changed(
        r, WIDE, "isr", "isr_history", lambda x: np.linspace(1, 6, 60).tolist()
    ),
    "best_model_has_larger_isr_than_others": lambda r: changed(
        changed(r, WIDE, "isr", "isr", lambda x: 12 + 0.1 * x["seed"] - x["init_isr"] / 3),
        WIDE, "fixed", "test_error", lambda x: x["test_error"] + x["init_isr"],
    ),
    "direct_does_not_collapse": lambda r: changed(r, WIDE, "direct", "internal_scales", lambda x: [2.0, 2.02, 6.0]),
    "narrow_equal_parameterisations": lambda r: changed(
        r, MIDDLE, "direct", "test_error", lambda x: x["test_error"] + 0.5
    ),
    "parameterisations_differ_on_wide_data": lambda r: changed(
        changed(r, WIDE, "direct", "test_error", lambda x: 2.85 + 0.02 * SEEDS[x["seed"]]),
        WIDE, "spacing", "test_error", lambda x: 2.85 + 0.02 * SEEDS[x["seed"]],
    ),
    "all_parameterisations_adapt": lambda r: changed(
        r, WIDE, "direct", "internal_scales", lambda x: [1.0, 2.0, 3.0 + 0.1 * x["seed"]]
    ),
    "isr_more_stable_on_wide": lambda r: changed(
        r, WIDE, "isr", "internal_scales", lambda x: [2.0 + x["seed"], 4.0 + 2 * x["seed"], 8.0 + 4 * x["seed"]]
    ),
    "isr_best_on_wide": lambda r: changed(r, WIDE, "direct", "test_error", lambda x: x["test_error"] - 1),
}  # fmt: skip

BREAK_SCALE_TEST = {
    "narrow_isr_worse_at_boundaries_of_wide_data": {"extra_small": -0.4},
    "narrow_isr_fails_at_large_scales_on_wide_data": {"extra_large": -0.5},
    "narrow_slightly_better_on_narrow_data": {"narrow_gain": -0.2},
}

BREAK_BASELINES = {
    "learned_on_par_with_sesn": {"learned_error": 2.2},
    "learned_scales_wider_than_sesn": {"top": 2.65, "augmented_top": 2.66},
    "augmentation_widens_learned_scales": {"augmented_top": 2.8},
}

TOLERANCE_CLAIMS = ("tolerance_tau", "tolerance_isr_similar_to_best", "tolerance_isr_grows", "tolerance_gaps_grow")


def test_every_claim_is_broken_by_some_test():
    assert {*BREAK_RUNS, *BREAK_SCALE_TEST, *BREAK_BASELINES, *TOLERANCE_CLAIMS} == set(CHECKS)


@pytest.mark.parametrize("claim", BREAK_RUNS)
def test_runs_against_a_claim(claim):
    assert verdicts(BREAK_RUNS[claim](held_runs()))[claim] == "did not hold"


@pytest.mark.parametrize("claim", BREAK_SCALE_TEST)
def test_scale_test_against_a_claim(claim):
    assert verdicts(None, scale_test(**BREAK_SCALE_TEST[claim]))[claim] == "did not hold"


@pytest.mark.parametrize("claim", BREAK_BASELINES)
def test_baselines_against_a_claim(claim):
    assert verdicts(None, None, None, baselines(**BREAK_BASELINES[claim]))[claim] == "did not hold"


@pytest.mark.parametrize("claim", TOLERANCE_CLAIMS)
def test_tolerance_fit_against_a_claim(fit, claim):
    broken = replace(fit, tau=0.3, isrs=(12.0, 5.0, 1.6), ranges=PAPER_RANGES)
    assert verdicts(held_runs(), None, broken)[claim] == "did not hold"


def test_similar_isr_is_judged_by_our_fixed_runs_only(fit):
    claim = "tolerance_isr_similar_to_best"
    runs = held_runs()
    measured = claim_verdicts(runs, None, fit).set_index("id")["measured"][claim]
    assert "our best fixed ISR: 2.89 against 2.38" in measured
    assert "the paper's best fixed ISRs 2.38, 4.76, 5.35: at most 0.28, no part of the verdict" in measured
    assert verdicts(None, None, fit)[claim] == "not measured"
    assert verdicts(runs[runs["distribution"] != MIDDLE], None, fit)[claim] == "not measured"
    narrow_best = changed(runs, WIDE, "fixed", "test_error", lambda x: x["init_isr"])
    assert verdicts(narrow_best, None, fit)[claim] == "did not hold"
    other = replace(fit, ranges=((1.0, 2.0), (1.0, 3.0), (1.0, 4.0)))
    names = dict(zip(fit.labels, other.labels, strict=True))
    renamed = claim_verdicts(runs.assign(distribution=runs["distribution"].map(names)), None, other).set_index("id")
    assert renamed.loc[claim, "verdict"] == "held" and "paper" not in renamed.loc[claim, "measured"]


def some_effects(up, down, within=0, unknown=0):
    return [
        *[Effect(1.0, 0.5, 0.0, 2.0)] * up,
        *[Effect(-1.0, 0.5, -2.0, 0.0)] * down,
        *[Effect(-0.1, 0.5, -1.0, 1.0)] * within,
        *[Effect(-1.0, float("nan"), float("nan"), float("nan"))] * unknown,
    ]


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ((5, 4), "held"),
        ((4, 5), "did not hold"),
        ((2, 2), "unclear"),
        ((1, 0, 0, 8), "unclear"),
        ((0, 1, 0, 8), "unclear"),
        ((0, 4, 5, 0), "unclear"),
        ((0, 5, 4, 0), "did not hold"),
        ((5, 0, 0, 4), "held"),
    ],
)
def test_majority_is_symmetric_and_counts_all_effects(counts, verdict):
    assert majority_positive(some_effects(*counts)) == verdict


def keep_seeds(runs, mode, init, seeds):
    """Without the runs of one start (None: all other starts than the default) at other seeds than the given."""
    default = (runs["init_sigma_basis"] == 2.0) & (runs["init_isr"] == 3.0)
    start = ~default if init is None else (runs["init_sigma_basis"] == init[0]) & (runs["init_isr"] == init[1])
    return runs[~((runs["scale_learning"] == mode) & start & ~runs["seed"].isin(seeds))]


@pytest.mark.parametrize("claim", ["scales_adapt_to_data", "init_matters"])
def test_one_start_with_seeds_never_decides_table_3(claim):
    runs = keep_seeds(BREAK_RUNS[claim](held_runs()), "isr", None, [0])
    found = claim_verdicts(runs).set_index("id").loc[claim]
    assert found["verdict"] == "unclear"
    assert "have one seed, so no spread" in found["measured"] and "smaller" in found["measured"]


def test_starts_are_compared_at_common_seeds():
    claim = "init_matters_for_test_error"
    # The error depends on the seed alone, so that starts with other seeds seem to differ.
    runs = changed(held_runs(), None, "isr", "test_error", lambda x: 2.5 + 0.1 * x["seed"] ** 2)
    assert verdicts(runs)[claim] == "did not hold"
    assert verdicts(keep_seeds(runs, "isr", (1.0, 1.5), [0, 1]))[claim] == "did not hold"
    few = claim_verdicts(keep_seeds(runs, "isr", (1.0, 1.5), [0])).set_index("id").loc[claim]
    assert few["verdict"] == "not measured" and "needs two seeds with every start" in few["measured"]
    apart = keep_seeds(keep_seeds(held_runs(), "isr", (1.0, 1.5), [0]), "isr", (4.0, 6.0), [1, 2])
    assert "there are 0" in claim_verdicts(apart).set_index("id").loc[claim, "measured"]


def test_best_start_is_chosen_at_common_seeds():
    runs = changed(held_runs(), WIDE, "isr", "test_error", lambda x: x["test_error"] - x["seed"])
    # Without its bad seed 0, the start (1, 1.5) would seem to be the best one.
    apart = runs[~((runs["init_isr"] == 1.5) & (runs["init_sigma_basis"] == 1.0) & (runs["seed"] == 0))]
    measured = claim_verdicts(apart).set_index("id").loc["best_model_has_larger_isr_than_others", "measured"]
    assert "best start (2, 6)" in measured


def test_large_spread_makes_claims_unclear():
    runs = held_runs()
    noisy = verdicts(runs.assign(test_error=runs["test_error"] + 30 * (runs["seed"] - 1)))
    for claim in ("wide_init_helps_on_wide_data", "isr_best_on_wide", "init_matters_for_test_error"):
        assert noisy[claim] == "unclear", claim


def test_one_seed_never_confirms_an_effect():
    runs = held_runs().query("seed == 0")
    single = verdicts(runs, scale_test().query("seed == 0"))
    for claim in ("best_isr_grows_with_width", "isr_best_on_wide", "narrow_slightly_better_on_narrow_data"):
        assert single[claim] == "unclear", claim
    assert single["isr_more_stable_on_wide"] == "not measured"


def test_without_runs_nothing_is_measured_and_nothing_fails():
    frame = claim_verdicts()
    assert set(frame["verdict"]) == {"not measured"}
    assert frame["measured"].str.startswith("missing: ").all()


@pytest.mark.parametrize("distribution", reported.DISTRIBUTIONS)
@pytest.mark.parametrize("mode", ["fixed", "isr", "spacing", "direct"])
def test_missing_cells_are_named_not_raised(distribution, mode, fit):
    runs = held_runs()
    runs = runs[(runs["distribution"] != distribution) | (runs["scale_learning"] != mode)]
    tests = scale_test()
    frame = claim_verdicts(runs, tests[tests["distribution"] != distribution], fit)
    assert set(frame["verdict"]) <= set(VERDICTS)
    missing = frame.loc[frame["verdict"] == "not measured", "measured"]
    assert missing.str.contains(distribution, regex=False).any()


@pytest.mark.parametrize("drop", range(0, 40, 3))
def test_any_subset_of_rows_is_judged_without_error(drop, fit):
    runs = held_runs().sample(frac=0.15 + drop / 50, random_state=drop)
    tests = scale_test().sample(frac=0.1, random_state=drop)
    assert set(claim_verdicts(runs, tests, fit)["verdict"]) <= set(VERDICTS)


def test_other_labels_and_learning_mode_by_settings(fit):
    names = {label: f"uniform [1, {i + 2}]" for i, label in enumerate(reported.DISTRIBUTIONS)}
    runs = held_runs().assign(
        distribution=lambda f: f["distribution"].map(names),
        scale_learning=lambda f: f["scale_learning"].replace("isr", "step_ratio"),
    )
    settings = ClaimSettings(distributions=tuple(names.values()), learned="step_ratio")
    by_runs = verdicts(runs, settings=settings)[list(BREAK_RUNS)]
    assert set(by_runs) == {"held"}


def test_runs_without_a_result_do_not_count():
    runs = held_runs()
    extra = runs.iloc[:3].assign(test_error=np.nan)
    pd.testing.assert_series_equal(verdicts(pd.concat([runs, extra], ignore_index=True)), verdicts(runs))


def test_fixed_runs_may_leave_the_initial_values_empty():
    runs = held_runs()
    runs.loc[runs["scale_learning"] == "fixed", ["init_sigma_basis", "init_isr"]] = np.nan
    assert verdicts(runs)["best_isr_grows_with_width"] == "held"


def test_effect_is_set_against_the_pooled_spread():
    one = effect([1.0, 2.0, 3.0], [5.0, 6.0, 7.0])
    assert (one.difference, one.spread, one.sign) == (-4.0, 1.0, -1)
    assert effect([1.0, 2.0, 3.0], [1.5, 2.5, 3.5]).sign == 0
    assert effect([1.0], [5.0]).sign == 0 and "unknown" in str(effect([1.0], [5.0]))
    assert effect([1.0, 1.2], [5.0]).sign == -1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: claim_verdicts(pd.DataFrame({"seed": [0]})), r"runs lacks the columns \['distribution'"),
        (lambda: claim_verdicts(None, pd.DataFrame({"seed": [0]})), "scale_test lacks"),
        (lambda: claim_verdicts(baselines=pd.DataFrame({"seed": [0]})), "baselines lacks"),
        (lambda: ClaimSettings(distributions=("x",)), "at least 2 labels"),
        (lambda: ClaimSettings(margin=0.0), r"margin=0\.0"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
