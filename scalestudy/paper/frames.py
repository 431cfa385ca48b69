"""Records of runs as frames, for tables, figures and the checks of claims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from scalestudy.training.record import Record
from scalestudy.training.spec import SYSTEM_NAMES, DataSet

FRAME_COLUMNS = (
    "distribution", "distribution_low", "distribution_high", "seed", "scale_learning", "init_sigma_basis", "init_isr",
    "sigma_basis", "isr", "internal_scales", "test_error", "validation_error", "selected_epoch", "epochs",
    "isr_history", "seconds", "train_images", "test_images", "shrink", "paper_size",
)  # fmt: skip
"""Columns of `frame`."""

SCALE_TEST_COLUMNS = ("distribution", "isr", "seed", "scale_learning", "data_scale", "test_error")
"""Columns of `scale_test_frame`."""

BASELINE_COLUMNS = (
    "model", "name", "augmented", "seed", "test_error", "validation_error", "internal_scales", "isr", "selected_epoch",
    "epochs", "train_images", "test_images", "seconds", "train_ms_per_image", "inference_ms_per_image", "threads",
    "device", "paper_size",
)  # fmt: skip
"""Columns of `baseline_frame`."""

BASELINE_SCALE_COLUMNS = ("model", "name", "augmented", "seed", "data_scale", "test_error")
"""Columns of `baseline_scale_frame`."""

EQUIVARIANCE_COLUMNS = ("model", "name", "augmented", "seed", "factor", "relative_change", "prediction_change")
"""Columns of `equivariance_frame`."""


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per run of sections 4.1 and 4.2, as `scalestudy.paper.claims` and the tables read them.

    Parameters
    ----------
    records : iterable of Record
        Those on other data sets are left out.

    Returns
    -------
    pandas.DataFrame
        `FRAME_COLUMNS`, sorted by the spec.  Errors in percent.  ``sigma_basis`` (the first internal scale),
        ``isr`` (last over first) and ``internal_scales`` (list) are those of the selected epoch, in pixels of the
        paper's canvas; ``isr_history`` has the initial ISR, then one per epoch.
    """
    chosen = _on("dynamic_scale_mnist", records)
    rows = pd.DataFrame([_row(record) for record in chosen], columns=list(FRAME_COLUMNS))
    return rows.sort_values(
        ["distribution_low", "distribution_high", "scale_learning", "init_sigma_basis", "init_isr", "seed"],
        kind="stable",
    ).reset_index(drop=True)


def scale_test_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per run and data scale of Fig. 4; runs without that test, or on other data sets, are left out.

    Returns
    -------
    pandas.DataFrame
        `SCALE_TEST_COLUMNS`, sorted: ``isr`` is the initial (for fixed scales: the fixed) one, ``data_scale`` a
        factor, ``test_error`` in percent.
    """
    rows = [
        (*_identity(record), float(data_scale), error)
        for record in _on("dynamic_scale_mnist", records)
        for data_scale, error in (record.metrics.test_error_by_scale or {}).items()
    ]
    return pd.DataFrame(rows, columns=list(SCALE_TEST_COLUMNS)).sort_values(
        list(SCALE_TEST_COLUMNS[:5]), kind="stable", ignore_index=True
    )


def baseline_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per run on MNIST-Scale (section 4.3), as `scalestudy.paper.claims` and the tables read them.

    Parameters
    ----------
    records : iterable of Record
        Those on other data sets are left out.

    Returns
    -------
    pandas.DataFrame
        `BASELINE_COLUMNS`, in the order of Table 5, without before with augmentation, by seed.  ``model`` is the title
        of the system (its name in Table 5), ``name`` the name in specs.  Errors in percent.  ``internal_scales`` (list,
        empty where the system has none) and ``isr`` (largest over smallest, NaN where it has none) are those of the
        selected epoch, in pixels of the enlarged images.  Milliseconds per image are wall-clock times of the run
        itself, on ``threads`` threads of ``device``, NaN where they were not taken.
    """
    rows = pd.DataFrame([_baseline_row(record) for record in _on_mnist_scale(records)], columns=list(BASELINE_COLUMNS))
    return rows.astype({"isr": float, "train_ms_per_image": float, "inference_ms_per_image": float})


def baseline_scale_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per run on MNIST-Scale and bin of its data scales, sorted as `baseline_frame`, then by bin.

    Returns
    -------
    pandas.DataFrame
        `BASELINE_SCALE_COLUMNS`: ``data_scale`` is the lower edge of a bin 0.1 wide, ``test_error`` in percent.
    """
    rows = [
        (*_system(record), float(data_scale), error)
        for record in _on_mnist_scale(records)
        for data_scale, error in sorted((record.metrics.test_error_by_scale or {}).items())
    ]
    return pd.DataFrame(rows, columns=list(BASELINE_SCALE_COLUMNS))


def equivariance_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per run on MNIST-Scale and factor of its test for invariance, sorted as `baseline_frame`, then by factor.

    Returns
    -------
    pandas.DataFrame
        `EQUIVARIANCE_COLUMNS`: ``relative_change`` of the outputs, no unit; ``prediction_change`` in percent; see
        `scalestudy.layers.equivariance.model_equivariance_error`.
    """
    rows = [
        (*_system(record), float(factor), change, (record.metrics.prediction_change or {}).get(factor))
        for record in _on_mnist_scale(records)
        for factor, change in sorted((record.metrics.equivariance_error or {}).items())
    ]
    return pd.DataFrame(rows, columns=list(EQUIVARIANCE_COLUMNS))


def _on(dataset: DataSet, records: Iterable[Record]) -> Iterator[Record]:
    return (record for record in records if record.spec.dataset == dataset)


def _on_mnist_scale(records: Iterable[Record]) -> list[Record]:
    return sorted(
        _on("mnist_scale", records),
        key=lambda record: (
            SYSTEM_NAMES.index(record.spec.model), record.spec.data.augmented, record.spec.seed, record.key
        ),
    )  # fmt: skip


def _identity(record: Record) -> tuple[str, float, int, str]:
    spec = record.spec
    return spec.data.distribution.label, spec.scales.isr, spec.seed, spec.scales.parameterisation


def _system(record: Record) -> tuple[str, str, bool, int]:
    from scalestudy.models import SYSTEMS  # imports torch, which the command line can do without

    spec = record.spec
    return SYSTEMS[spec.model].title, spec.model, spec.data.augmented, spec.seed


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


def _baseline_row(record: Record) -> dict[str, object]:
    spec, metrics, made = record.spec, record.metrics, record.provenance
    title, name, augmented, seed = _system(record)
    scales = list(metrics.internal_scales)
    return {
        "model": title,
        "name": name,
        "augmented": augmented,
        "seed": seed,
        "test_error": metrics.test_error,
        "validation_error": metrics.validation_error,
        "internal_scales": scales,
        "isr": max(scales) / min(scales) if scales else float("nan"),
        "selected_epoch": metrics.selected_epoch,
        "epochs": spec.training.epochs,
        "train_images": spec.data.train_images,
        "test_images": spec.data.test_images,
        "seconds": made.seconds,
        "train_ms_per_image": made.train_ms_per_image,
        "inference_ms_per_image": made.inference_ms_per_image,
        "threads": made.threads,
        "device": made.device,
        "paper_size": spec.is_paper_size,
    }
