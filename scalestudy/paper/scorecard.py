"""The scorecard: every number and every claim of the paper that the study covers, with a verdict each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from scalestudy.paper import baseline_tables, reported, tables
from scalestudy.paper.claims import ClaimSettings, claim_verdicts
from scalestudy.paper.compare import MARGIN_TEST_ERROR, compare_table
from scalestudy.paper.frames import baseline_frame, frame, scale_test_frame
from scalestudy.paper.grids import Study
from scalestudy.tolerance import ToleranceFit, fit_tolerance
from scalestudy.training.record import Record

SETTINGS = ClaimSettings(learned="step_ratio")
"""The paper's "learned ISR" was produced by its released code, which learns the step ratio."""

PRINTED_TAU = 0.459
"""tau of the joint tolerance fit as printed in Section 4.1."""


@dataclass(frozen=True)
class Scorecard:
    """Verdicts on numbers and claims.

    Attributes
    ----------
    numbers : pandas.DataFrame
        A row per reported number: item, configuration, quantity, ours, paper, difference, verdict.
    claims : pandas.DataFrame
        A row per claim in words, see `scalestudy.paper.claims.claim_verdicts`.
    """

    numbers: pd.DataFrame
    claims: pd.DataFrame

    def counts(self) -> pd.DataFrame:
        """How often each verdict was given: columns kind, verdict, count."""
        counted = [
            (kind, verdict, count)
            for kind, verdicts in (("number", self.numbers["verdict"]), ("claim", self.claims["verdict"]))
            for verdict, count in verdicts.value_counts(sort=True).items()
        ]
        return pd.DataFrame(counted, columns=["kind", "verdict", "count"])

    def text(self) -> str:
        """A summary for a terminal: counts, then each claim with its verdict."""
        lines = ["Claims of the paper:"]
        width = max(len(verdict) for verdict in self.claims["verdict"])
        lines += [f"  {row.verdict:<{width}}  {row.item}: {row.claim}" for row in self.claims.itertuples(index=False)]
        lines.append("Numbers of the paper:")
        counted = self.counts().query("kind == 'number'")
        lines += [f"  {row.count:4d} {row.verdict}" for row in counted.itertuples(index=False)]
        return "\n".join(lines)


def scorecard(study: Study, records: Iterable[Record], fit: ToleranceFit | None = None) -> Scorecard:
    """Judge everything that the records of a study allow.

    Parameters
    ----------
    study : Study
        Says which runs belong to which table.
    records : iterable of Record
        Runs that are there; missing ones make verdicts "not measured".
    fit : ToleranceFit, optional
        The joint fit; computed where it is not given.
    """
    by_key = {record.key: record for record in records}
    groups = {
        name: frame([by_key[spec.key] for spec in specs if spec.key in by_key])
        for name, specs in study.groups().items()
    }
    runs, baselines = frame(by_key.values()), baseline_frame(by_key.values())
    table5 = baseline_frame([by_key[spec.key] for spec in study.table5() if spec.key in by_key])
    fit = fit or fit_tolerance()
    numbers = pd.concat([_numbers(groups), _baseline_numbers(table5), _tolerance_numbers(fit)], ignore_index=True)
    claims = claim_verdicts(runs, scale_test_frame(by_key.values()), fit, baselines, settings=SETTINGS)
    return Scorecard(numbers, claims)


def _numbers(groups: dict[str, pd.DataFrame]) -> pd.DataFrame:
    fixed = groups["figure3"]
    fixed_by_isr = fixed.drop(columns="isr").rename(columns={"init_isr": "isr"})
    table2 = pd.concat(
        [
            groups["table2"].assign(scale_learning="learned"),
            tables.best_fixed(fixed).assign(scale_learning="fixed"),
        ]
    )
    parts = [
        ("Figure 3", fixed_by_isr, "fig3", ["distribution", "isr"], {"test_error": MARGIN_TEST_ERROR}),
        ("Table 2", table2, "table2", ["distribution", "scale_learning"], tables.LEARNED_VALUES),
        (
            "Table 3",
            groups["table3"],
            "table3",
            ["distribution", "init_sigma_basis", "init_isr"],
            tables.LEARNED_VALUES,
        ),
        (
            "Table 4",
            tables.with_table4_columns(groups["table4"]),
            "table4",
            ["distribution", "parameterisation"],
            tables.TABLE4_VALUES,
        ),
    ]
    return pd.concat([_rows(*part) for part in parts], ignore_index=True)


def _rows(item: str, ours: pd.DataFrame, name: str, keys: list[str], values: dict[str, float]) -> pd.DataFrame:
    same_size = tables.is_paper_size(ours)
    return _verdicts(
        item,
        keys,
        {
            value: compare_table(ours, reported.table(name), keys, value, margin, same_size=same_size)
            for value, margin in values.items()
        },
    )


def _baseline_numbers(runs: pd.DataFrame) -> pd.DataFrame:
    """Tables 5 and 6, from the runs of one study on MNIST-Scale; without settings, which are no results."""
    same_size = tables.is_paper_size(runs)
    parts = [
        ("Table 5", runs, baseline_tables.paper_table5(), baseline_tables.TABLE5_VALUES),
        (
            "Table 6",
            baseline_tables.with_table6_columns(runs),
            baseline_tables.paper_table6(),
            baseline_tables.TABLE6_VALUES,
        ),
    ]
    numbers = pd.concat(
        [
            _verdicts(
                item,
                baseline_tables.KEYS,
                {
                    value: baseline_tables.compare_baselines(ours, paper, value, margin, same_size)
                    for value, margin in values.items()
                },
            )
            for item, ours, paper, values in parts
        ],
        ignore_index=True,
    )
    return numbers[numbers["verdict"] != baseline_tables.SETTING]


def _verdicts(item: str, keys: Sequence[str], compared: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row per comparison, the quantities after each other, for people."""
    rows = []
    for value, comparisons in compared.items():
        for _, row in comparisons.iterrows():
            configuration = ", ".join(told for key in keys if (told := _told(key, row[key])))
            difference = "-" if row["verdict"] == "not comparable" else row["difference_with_interval"]
            quantity = value.replace("_", " ")
            rows.append((item, configuration, quantity, row["ours"], row["paper"], difference, row["verdict"]))
    columns = ["item", "configuration", "quantity", "ours", "paper", "difference", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _told(key: str, value: object) -> str:
    if key == "augmented":
        return "with random rescaling (+)" if value else ""
    if isinstance(value, float):
        return f"{key.replace('_', ' ')} {value:g}"
    return str(value)


def _tolerance_numbers(fit: ToleranceFit) -> pd.DataFrame:
    """Tau is printed to three digits; there is no noise in it, so it is reproduced if it rounds to the same."""
    verdict = "reproduced" if round(fit.tau, 3) == PRINTED_TAU else "different"
    return pd.DataFrame(
        [("Section 4.1", "joint tolerance fit", "tau", f"{fit.tau:.3f}", f"{PRINTED_TAU:.3f}",
          f"{fit.tau - PRINTED_TAU:+.4f}", verdict)],
        columns=["item", "configuration", "quantity", "ours", "paper", "difference", "verdict"],
    )  # fmt: skip


def notebook_claims(
    notebook: str,
    runs: pd.DataFrame | None = None,
    scale_test: pd.DataFrame | None = None,
    tolerance_fit: ToleranceFit | None = None,
    baselines: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The claims that a notebook is about: item, claim, measured, verdict.

    Parameters
    ----------
    notebook : str
        Name without ending, such as ``04_internal_scale_range``.
    runs, scale_test, tolerance_fit, baselines
        See `scalestudy.paper.claims.claim_verdicts`.
    """
    verdicts = claim_verdicts(runs, scale_test, tolerance_fit, baselines, settings=SETTINGS)
    chosen = verdicts[verdicts["notebook"] == notebook]
    if chosen.empty:
        raise ValueError(f"notebook must be one of {sorted(set(verdicts['notebook']))}, got {notebook!r}")
    return chosen[["item", "claim", "measured", "verdict"]].reset_index(drop=True)
