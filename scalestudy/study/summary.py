"""The generated table of all stored runs."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from scalestudy.record import Record

COLUMNS = (
    "distribution", "scale_learning", "init_sigma_basis", "init_isr", "num_scales", "seed", "shrink", "train_images",
    "validation_images", "test_images", "scale_test_images", "epochs", "batch_size", "order", "precision",
    "test_error", "validation_error", "selected_epoch", "internal_scales", "device", "torch", "scalestudy", "commit",
    "seconds", "key",
)  # fmt: skip
"""Columns of `summary_frame`: the spec, the results, how they were made, the key."""


def summary_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record, for people to read; analysis uses `scalestudy.study.grids.frame`.

    Parameters
    ----------
    records : iterable of Record

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`, sorted by all of the spec's, so it does not depend on the order of `records`.  Errors in
        percent; scales in pixels of the paper's canvas, joined by spaces; seconds of training.
    """
    frame = pd.DataFrame([_row(record) for record in records], columns=list(COLUMNS))
    return frame.sort_values([*COLUMNS[:15], "key"], kind="stable").reset_index(drop=True)


def _row(record: Record) -> dict[str, object]:
    spec, metrics, made = record.spec, record.metrics, record.provenance
    return {
        "distribution": spec.data.distribution.label,
        "scale_learning": spec.scales.parameterisation,
        "init_sigma_basis": spec.scales.sigma_basis,
        "init_isr": spec.scales.isr,
        "num_scales": spec.scales.num_scales,
        "seed": spec.seed,
        "shrink": spec.data.shrink,
        "train_images": spec.data.train_images,
        "validation_images": spec.data.validation_images,
        "test_images": spec.data.test_images,
        "scale_test_images": spec.data.scale_test_images,
        "epochs": spec.training.epochs,
        "batch_size": spec.training.batch_size,
        "order": spec.order,
        "precision": spec.precision,
        "test_error": metrics.test_error,
        "validation_error": metrics.validation_error,
        "selected_epoch": metrics.selected_epoch,
        "internal_scales": " ".join(f"{sigma:g}" for sigma in metrics.internal_scales),
        "device": made.device,
        "torch": made.torch,
        "scalestudy": made.scalestudy,
        "commit": made.commit or "",
        "seconds": made.seconds,
        "key": record.key,
    }
