"""Records of runs as frames, for tables, figures and the checks of claims."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from scalestudy.record import Record

FRAME_COLUMNS = (
    "distribution", "distribution_low", "distribution_high", "seed", "scale_learning", "init_sigma_basis", "init_isr",
    "sigma_basis", "isr", "internal_scales", "test_error", "validation_error", "selected_epoch", "epochs",
    "isr_history", "seconds", "train_images", "test_images", "shrink", "paper_size",
)  # fmt: skip
"""Columns of `frame`."""

SCALE_TEST_COLUMNS = ("distribution", "isr", "seed", "scale_learning", "data_scale", "test_error")
"""Columns of `scale_test_frame`."""


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per run, as `scalestudy.claims` and the tables read them.

    Parameters
    ----------
    records : iterable of Record

    Returns
    -------
    pandas.DataFrame
        `FRAME_COLUMNS`, sorted by the spec.  Errors in percent.  ``sigma_basis`` (the first internal scale),
        ``isr`` (last over first) and ``internal_scales`` (list) are those of the selected epoch, in pixels of the
        paper's canvas; ``isr_history`` has the initial ISR, then one per epoch.
    """
    rows = pd.DataFrame([_row(record) for record in records], columns=list(FRAME_COLUMNS))
    return rows.sort_values(
        ["distribution_low", "distribution_high", "scale_learning", "init_sigma_basis", "init_isr", "seed"],
        kind="stable",
    ).reset_index(drop=True)


def scale_test_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per run and data scale of Fig. 4; runs without that test are left out.

    Returns
    -------
    pandas.DataFrame
        `SCALE_TEST_COLUMNS`, sorted: ``isr`` is the initial (for fixed scales: the fixed) one, ``data_scale`` a
        factor, ``test_error`` in percent.
    """
    rows = [
        (*_identity(record), float(data_scale), error)
        for record in records
        for data_scale, error in (record.metrics.test_error_by_scale or {}).items()
    ]
    return pd.DataFrame(rows, columns=list(SCALE_TEST_COLUMNS)).sort_values(
        list(SCALE_TEST_COLUMNS[:5]), kind="stable", ignore_index=True
    )


def _identity(record: Record) -> tuple[str, float, int, str]:
    spec = record.spec
    return spec.data.distribution.label, spec.scales.isr, spec.seed, spec.scales.parameterisation


def _row(record: Record) -> dict[str, object]:
    spec, metrics = record.spec, record.metrics
    label, init_isr, seed, mode = _identity(record)
    scales = list(metrics.internal_scales)
    return {
        "distribution": label,
        "distribution_low": float(spec.data.distribution.quantile(0.0)),
        "distribution_high": float(spec.data.distribution.quantile(1.0)),
        "seed": seed,
        "scale_learning": mode,
        "init_sigma_basis": spec.scales.sigma_basis,
        "init_isr": init_isr,
        "sigma_basis": scales[0],
        "isr": scales[-1] / scales[0],
        "internal_scales": scales,
        "test_error": metrics.test_error,
        "validation_error": metrics.validation_error,
        "selected_epoch": metrics.selected_epoch,
        "epochs": spec.training.epochs,
        "isr_history": [values[-1] / values[0] for values in metrics.internal_scales_history],
        "seconds": record.provenance.seconds,
        "train_images": spec.data.train_images,
        "test_images": spec.data.test_images,
        "shrink": spec.data.shrink,
        "paper_size": spec.is_paper_size,
    }
