"""The generated table of all stored runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from scalestudy.files import write_whole
from scalestudy.training.record import Record
from scalestudy.training.spec import MnistScaleSpec, RunSpec

COLUMNS = (
    "distribution", "scale_learning", "init_sigma_basis", "init_isr", "num_scales", "seed", "shrink", "train_images",
    "validation_images", "test_images", "scale_test_images", "epochs", "batch_size", "order", "precision",
    "model", "augmented", "equivariance_images", "test_error", "validation_error", "selected_epoch", "internal_scales",
    "device", "torch", "scalestudy", "commit", "seconds", "key",
)  # fmt: skip
"""Columns of `summary_frame`: the spec, the results, how they were made, the key."""

_SPEC_COLUMNS = COLUMNS[: COLUMNS.index("test_error")]
_OPTIONAL_TYPES = {
    "init_sigma_basis": "float64", "init_isr": "float64", "num_scales": "Int64", "shrink": "Int64",
    "scale_test_images": "Int64", "equivariance_images": "Int64", "augmented": "boolean",
}  # fmt: skip
"""Types of the columns that do not apply to every run: their cells may be missing."""


def summary_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record, for people to read; analysis uses `scalestudy.paper.grids.frame`.

    Parameters
    ----------
    records : iterable of Record

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`, sorted by all of the spec's, so it does not depend on the order of `records`; what does not apply to
        a run is blank.  Errors in percent; scales in pixels of the paper's canvas (MNIST-Scale: of the enlarged
        images), joined by spaces; seconds of training.
    """
    frame = pd.DataFrame([_row(record) for record in records], columns=list(COLUMNS)).astype(_OPTIONAL_TYPES)
    return frame.sort_values([*_SPEC_COLUMNS, "key"], kind="stable").reset_index(drop=True)


def write_summary(records: Iterable[Record], path: str | os.PathLike) -> Path:
    """Write `summary_frame` as CSV: the same records give the same bytes, and a file that has them is left alone."""
    path, content = Path(path), summary_frame(records).to_csv(index=False, lineterminator="\n").encode()
    if not path.is_file() or path.read_bytes() != content:
        write_whole(path, content)
    return path


def _row(record: Record) -> dict[str, object]:
    spec, metrics, made = record.spec, record.metrics, record.provenance
    return {
        **(_of_mnist_scale(spec) if isinstance(spec.data, MnistScaleSpec) else _of_dynamic_scale(spec)),
        "seed": spec.seed,
        "train_images": spec.data.train_images,
        "validation_images": spec.data.validation_images,
        "test_images": spec.data.test_images,
        "epochs": spec.training.epochs,
        "batch_size": spec.training.batch_size,
        "precision": spec.precision,
        "model": spec.model,
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


def _of_dynamic_scale(spec: RunSpec) -> dict[str, object]:
    return {
        "distribution": spec.data.distribution.label,
        "scale_learning": spec.scales.parameterisation,
        "init_sigma_basis": spec.scales.sigma_basis,
        "init_isr": spec.scales.isr,
        "num_scales": spec.scales.num_scales,
        "shrink": spec.data.shrink,
        "scale_test_images": spec.data.scale_test_images,
        "order": spec.order,
        "augmented": None,
        "equivariance_images": None,
    }


def _of_mnist_scale(spec: RunSpec) -> dict[str, object]:
    return {
        "distribution": "",
        "scale_learning": "",
        "init_sigma_basis": None,
        "init_isr": None,
        "num_scales": None,
        "shrink": None,
        "scale_test_images": None,
        "order": "",
        "augmented": spec.data.augmented,
        "equivariance_images": spec.data.equivariance_images,
    }
