"""Tables for people of what `scale_convolution.py` measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

CASE_COLUMNS = ("algorithm", "parameterisation", "isr", "num_scales", "image_size", "batch")
"""What says which network ran: "ours", "fft" or "dense", "fixed" or "learned" scales, and sizes."""

TITLES = {
    "isr": "Internal scale range",
    "large_isr": "Large internal scale ranges",
    "num_scales": "Number of internal scales",
    "image_size": "Image size",
    "batch": "Batch",
}
"""Headings of the sweeps."""


def about(machine: Mapping[str, Any]) -> str:
    """Where it was measured, in one sentence."""
    return (
        f"Measured on {machine['threads']} thread{'s' * (machine['threads'] != 1)} of a processor of kind "
        f"{machine['machine']} with {machine['instructions']}, torch {machine['torch']}, in float32; in the same "
        f"process it multiplied matrices at {machine['gigaflops']:.0f} Gflop/s and copied "
        f"{machine['copied_gigabytes_per_second']:.1f} GB/s."
    )


def tables(content: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """By name: each sweep that was measured, "ratios", "memory"."""
    rows, ratios, memory = (pd.DataFrame(content[part]) for part in ("rows", "ratios", "memory"))
    made = {sweep: _sweep(rows[rows["sweep"] == sweep]) for sweep in TITLES if sweep in set(rows["sweep"])}
    return (
        made
        | ({"ratios": _ratios(ratios)} if len(ratios) else {})
        | ({"memory": _memory(memory)} if len(memory) else {})
    )


def _sweep(rows: pd.DataFrame) -> pd.DataFrame:
    """Times per image, and how far they are from the machine's rates."""
    evaluations = rows[rows["phase"] == "eval"].set_index(list(CASE_COLUMNS))["median_ms"]
    steps = rows[rows["phase"] == "step"].join(evaluations.rename("evaluation"), on=list(CASE_COLUMNS))
    return pd.DataFrame(
        {
            "algorithm": steps["algorithm"],
            "scales": steps["parameterisation"],
            **_sizes(steps),
            "step, ms": _spreads(steps[["median_ms", "least_ms", "most_ms", "rounds"]]),
            "evaluation, ms": ["-" if pd.isna(value) else _number(value) for value in steps["evaluation"]],
            "kernel": steps["kernel_size"],
            "multiplications of a step": steps["multiplications"].map(lambda number: f"{number / 1e6:,.0f} M"),
            "of the product rate": steps["share_of_products"].map(lambda share: f"{100 * share:.2g} %"),
            "floor, ms": steps["floor_ms"].map(_number),
            "times the floor": (steps["median_ms"] / steps["floor_ms"]).map(_number),
        }
    )


def _ratios(ratios: pd.DataFrame) -> pd.DataFrame:
    """Ratios of training steps."""
    rows = ratios[ratios["phase"] == "step"]
    return pd.DataFrame(
        {
            "ratio": rows["ratio"],
            "of": rows["algorithm"].where(~rows["ratio"].str.endswith(" / ours"), "both"),
            "scales": rows["parameterisation"].where(rows["ratio"] != "learned / fixed", "both"),
            **_sizes(rows),
            "median (least to most)": _spreads(rows[["median", "least", "most", "rounds"]]),
            "rounds": rows["rounds"],
        }
    )


def _memory(rows: pd.DataFrame) -> pd.DataFrame:
    """Memory of a training step."""
    return pd.DataFrame(
        {
            "algorithm": rows["algorithm"],
            "scales": rows["parameterisation"],
            **{name: column for name, column in _sizes(rows).items() if name != "number of scales"},
            "added at the peak, MiB": rows["mebibytes"].map("{:.0f}".format),
            "responses at all scales alone, MiB": rows["response_mebibytes"].map("{:.0f}".format),
        }
    )


def _sizes(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """What a case varies, as columns for people."""
    isr = rows["isr"].map("{:g}".format)
    return {
        "ISR": isr,
        "number of scales": rows["num_scales"],
        "image size": rows["image_size"],
        "batch": rows["batch"],
    }


def _spreads(rows: pd.DataFrame) -> list[str]:
    """Median, least, most and rounds of each row as text."""
    return [
        f"{_number(median)} (once)" if rounds == 1 else f"{_number(median)} ({_number(least)} to {_number(most)})"
        for median, least, most, rounds in rows.itertuples(index=False)
    ]


def _number(value: float) -> str:
    """Three significant digits, without an exponent where that is readable."""
    return f"{float(f'{value:.3g}'):,g}"
