"""What the scale convolution costs: the measurements of ``benchmarks/scale_convolution.py``, read and tabled.

Times cannot be reproduced to the digit, so they are measured by one command on a quiet machine, kept in
``results/benchmarks``, and only read elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scalestudy import files

FILE_NAME = "scale_convolution.json"
"""In `scalestudy.files.benchmarks`."""

CASE_COLUMNS = ("algorithm", "parameterisation", "isr", "num_scales", "image_size", "batch")
"""What says which network ran: "ours" or "dense", "fixed" or "learned" scales, and sizes."""

ROW_COLUMNS = (
    "sweep", *CASE_COLUMNS, "phase", "median_ms", "least_ms", "most_ms", "rounds", "kernel_size", "multiplications",
    "share_of_products", "floor_ms",
)  # fmt: skip
"""Columns of `Costs.rows`."""

RATIO_COLUMNS = ("sweep", "ratio", *CASE_COLUMNS, "phase", "median", "least", "most", "rounds")
"""Columns of `Costs.ratios`."""

MEMORY_COLUMNS = (*CASE_COLUMNS, "mebibytes", "response_mebibytes")
"""Columns of `Costs.memory`."""

_MACHINE_FIELDS = {
    "torch", "machine", "instructions", "threads", "gigaflops", "copied_gigabytes_per_second",
}  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """One call of the benchmark.

    Attributes
    ----------
    machine : mapping
        Version of torch, kind of processor, threads, and the rates measured in the same process: matrix products in
        Gflop/s and copies in GB/s.
    rows : pandas.DataFrame
        `ROW_COLUMNS`: milliseconds per image of a training step ("step") or of a forward pass without gradients
        ("eval"), median, least and most of so many rounds; multiplications that the algorithm needs in the scale
        convolution, per image; `share_of_products`, their rate over that of matrix products; `floor_ms`, the time per
        image that they would take at that rate, or that of the planes which the layers hand on at the rate of copies,
        whichever is longer.  A sweep is the set of cases that ran in turn.
    ratios : pandas.DataFrame
        `RATIO_COLUMNS`: ratios of times per image within a round, so that drift of the machine cancels.  The case is
        that of the numerator.
    memory : pandas.DataFrame
        `MEMORY_COLUMNS`: MiB that a training step adds at its peak, and MiB of the responses at all scales.
    """

    machine: Mapping[str, Any]
    rows: pd.DataFrame
    ratios: pd.DataFrame
    memory: pd.DataFrame

    @property
    def description(self) -> str:
        """Where it was measured, in one sentence."""
        machine = self.machine
        return (
            f"Measured on {_plural(machine['threads'], 'thread')} of a processor of kind {machine['machine']} with "
            f"{machine['instructions']}, torch {machine['torch']}, in float32; in the same process it multiplied "
            f"matrices at {machine['gigaflops']:.0f} Gflop/s and copied {machine['copied_gigabytes_per_second']:.1f} "
            "GB/s."
        )


def read_costs(path: Path | None = None) -> Costs:
    """Read the measurements.

    Parameters
    ----------
    path : Path, optional
        The file; without it, the committed one in `scalestudy.files.benchmarks`.

    Raises
    ------
    FileNotFoundError
        If nothing has been measured.
    ValueError
        If the file is not what the present benchmark writes.
    """
    path = files.benchmarks() / FILE_NAME if path is None else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no measurements of cost in {path}; run `make bench` to make them") from error
    except ValueError as error:
        raise ValueError(f"the measurements of cost in {path} are no JSON; run `make bench` to renew them") from error
    return as_costs(content, str(path))


def as_costs(content: Any, source: str) -> Costs:
    """Check what a benchmark wrote and make frames of it; `source` names it in error messages.

    Raises
    ------
    ValueError
        If a part or a field is missing, or unknown.
    """
    expected = {"machine", "rows", "ratios", "memory"}
    if not isinstance(content, dict) or set(content) != expected:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{source} must hold {sorted(expected)}, got {found}; run `make bench` to renew it")
    if not set(content["machine"]) >= _MACHINE_FIELDS:
        missing = sorted(_MACHINE_FIELDS - set(content["machine"]))
        raise ValueError(f"{source} does not say {missing} of the machine; run `make bench` to renew it")
    tables = {}
    for part, columns in (("rows", ROW_COLUMNS), ("ratios", RATIO_COLUMNS), ("memory", MEMORY_COLUMNS)):
        for row in content[part]:
            if set(row) != set(columns):
                wrong = sorted(set(row) ^ set(columns))
                raise ValueError(
                    f"{part} of {source} must have the fields {list(columns)}; missing or unknown: {wrong}; "
                    "run `make bench` to renew it"
                )
        tables[part] = pd.DataFrame(content[part], columns=list(columns))
    return Costs(content["machine"], **tables)


TITLES = {
    "isr": "Internal scale range",
    "large_isr": "Large internal scale ranges",
    "num_scales": "Number of internal scales",
    "image_size": "Image size",
    "batch": "Batch",
}
"""Headings of the sweeps."""


def sweep_table(costs: Costs, sweep: str) -> pd.DataFrame:
    """One sweep for people: times per image, and how far they are from the machine's rates.

    Parameters
    ----------
    costs : Costs
    sweep : str
        One of `TITLES`.
    """
    rows = costs.rows[costs.rows["sweep"] == sweep]
    steps = rows[rows["phase"] == "step"]
    evaluations = rows[rows["phase"] == "eval"].set_index(list(CASE_COLUMNS))["median_ms"]
    keys = list(steps[list(CASE_COLUMNS)].itertuples(index=False, name=None))
    table = {
        "algorithm": steps["algorithm"],
        "scales": steps["parameterisation"],
        **_sizes(steps),
        "step, ms": [
            _spread(row.median_ms, row.least_ms, row.most_ms, row.rounds) for row in steps.itertuples(index=False)
        ],
        "evaluation, ms": [_number(evaluations[key]) if key in evaluations.index else "-" for key in keys],
        "kernel": steps["kernel_size"],
        "multiplications of a step": steps["multiplications"].map(lambda number: f"{number / 1e6:,.0f} M"),
        "of the product rate": steps["share_of_products"].map(lambda share: f"{100 * share:.2g} %"),
        "floor, ms": steps["floor_ms"].map(_number),
        "times the floor": (steps["median_ms"] / steps["floor_ms"]).map(_number),
    }
    return pd.DataFrame(table).reset_index(drop=True)


def ratio_table(costs: Costs, ratio: str | None = None) -> pd.DataFrame:
    """Ratios of training steps for people.

    Parameters
    ----------
    costs : Costs
    ratio : str, optional
        Only those whose name begins so, such as "learned / fixed".
    """
    rows = costs.ratios[costs.ratios["phase"] == "step"]
    if ratio is not None:
        rows = rows[rows["ratio"].str.startswith(ratio)]
    table = {
        "ratio": rows["ratio"],
        "of": rows["algorithm"].where(rows["ratio"] != "dense / ours", "both"),
        "scales": rows["parameterisation"].where(rows["ratio"] != "learned / fixed", "both"),
        **_sizes(rows),
        "median (least to most)": [
            _spread(row.median, row.least, row.most, row.rounds) for row in rows.itertuples(index=False)
        ],
        "rounds": rows["rounds"],
    }
    return pd.DataFrame(table).reset_index(drop=True)


def memory_table(costs: Costs) -> pd.DataFrame:
    """Memory of a training step for people, in MiB."""
    rows = costs.memory
    table = {
        "algorithm": rows["algorithm"],
        "scales": rows["parameterisation"],
        "ISR": rows["isr"].map("{:g}".format),
        "image size": rows["image_size"],
        "batch": rows["batch"],
        "added at the peak, MiB": rows["mebibytes"].map("{:.0f}".format),
        "responses at all scales alone, MiB": rows["response_mebibytes"].map("{:.0f}".format),
    }
    return pd.DataFrame(table)


SIGNIFICANT = 1.05
"""A ratio above this counts as a significant overhead (our choice; the paper gives no number)."""


def claims_table(costs: Costs) -> pd.DataFrame:
    """What Section 5 of the paper says about cost, with what was measured and a verdict.

    Learned scales are compared with fixed ones at every ISR that was measured, numbers of scales at both ends.  A claim
    held where it did in every case, and did not where it did in none.
    """
    steps = costs.ratios[costs.ratios["phase"] == "step"]
    learned = steps[(steps["ratio"] == "learned / fixed") & (steps["sweep"] == "isr")]
    scales = steps[steps["ratio"].str.startswith("num_scales") & (steps["parameterisation"] == "fixed")]
    rows = []
    for algorithm, name in (("ours", "our algorithm"), ("dense", "dense convolution")):
        own = learned[learned["algorithm"] == algorithm]
        rows.append((f"Learning the scales adds a significant overhead: {name}.", *_finding(own, "learned / fixed")))
    for algorithm, name in (("ours", "our algorithm"), ("dense", "dense convolution")):
        own = scales[scales["algorithm"] == algorithm]
        ratio = f"scales {own['ratio'].iloc[0].removeprefix('num_scales ')}" if len(own) else "scales"
        rows.append((f"More internal scales reduce the efficiency: {name}.", *_finding(own, ratio)))
    return pd.DataFrame(rows, columns=["claim", "measured", "verdict"])


def _finding(ratios: pd.DataFrame, name: str) -> tuple[str, str]:
    """What was measured, and the verdict on "significantly above 1"."""
    if ratios.empty:
        return "-", "not measured"
    low, high = ratios["median"].min(), ratios["median"].max()
    across = _number(low) if len(ratios) == 1 else f"{_number(low)} to {_number(high)} in {len(ratios)} cases"
    verdict = "held" if low > SIGNIFICANT else "did not hold" if high <= SIGNIFICANT else "unclear"
    return f"{name}: {across}", verdict


def _sizes(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """What a case varies, as columns for people."""
    return {
        "ISR": rows["isr"].map("{:g}".format),
        "number of scales": rows["num_scales"],
        "image size": rows["image_size"],
        "batch": rows["batch"],
    }


def _spread(median: float, least: float, most: float, rounds: int) -> str:
    if rounds == 1:
        return f"{_number(median)} (once)"
    return f"{_number(median)} ({_number(least)} to {_number(most)})"


def _number(value: float) -> str:
    """Three significant digits, without an exponent where that is readable."""
    return f"{float(f'{value:.3g}'):,g}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)
