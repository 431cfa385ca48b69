"""Records as frames: one row a run, one row a point of a curve, and the table of all runs that people read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from scalestudy.files import write_whole
from scalestudy.models.systems import SYSTEMS
from scalestudy.training.record import Record

_SPEC = [
    "distribution", "mode", "init_sigma", "init_isr", "num_scales", "seed", "shrink", "train_images",
    "validation_images", "test_images", "scale_test_images", "epochs", "batch_size", "order", "precision", "model",
    "augmented", "equivariance_images", "images", "scale_learning_rate", "scale_decay", "held_out", "scales_until",
    "drop_below",
]  # fmt: skip
_RESULTS = [
    "test_error", "validation_error", "selected_epoch", "internal_scales", "device", "torch", "scalestudy", "commit",
    "seconds",
]  # fmt: skip
_MORE = [
    "dataset", "title", "low", "high", "paper_size", "sigma_basis", "isr", "isr_history", "scales_history",
    "train_loss_first", "train_loss_last", "train_ms", "inference_ms", "threads",
]  # fmt: skip
RUN_COLUMNS = [*_SPEC, *_RESULTS, "key", *_MORE]
CURVE_COLUMNS = [*RUN_COLUMNS, "what", "at", "value"]

_TYPES = {
    **dict.fromkeys(["num_scales", "shrink", "scale_test_images", "equivariance_images"], "Int64"),
    **dict.fromkeys(["low", "high", "init_sigma", "init_isr", "sigma_basis", "isr", "test_error"], "float64"),
    **dict.fromkeys(["train_loss_first", "train_loss_last", "train_ms", "inference_ms"], "float64"),
    "augmented": "bool",
}
"""Of columns that may be empty, so that a frame without runs has the same types."""


def runs(records: Iterable[Record]) -> pd.DataFrame:
    """One row a run of either data set, sorted by what was run; what does not apply to a run is empty or missing.

    `RUN_COLUMNS`: ``distribution`` is a label such as "log-uniform [1, 8]", ``title`` the name of a system in Table 5,
    ``mode`` how scales are learned.  Errors in percent; scales in pixels of the paper's canvas (MNIST-Scale: of the
    enlarged images) at the selected epoch, ``isr`` largest over smallest; histories begin with the initial scales.
    """
    frame = pd.DataFrame([_row(record) for record in records], columns=RUN_COLUMNS).astype(_TYPES)
    order = {name: place for place, name in enumerate(SYSTEMS)}
    by = ["dataset", "low", "high", "mode", "init_sigma", "init_isr", "model", "augmented", "seed", "key"]
    return frame.sort_values(
        by, kind="stable", ignore_index=True, key=lambda column: column.map(order) if column.name == "model" else column
    )


def curves(records: Iterable[Record]) -> pd.DataFrame:
    """One row a point of a run's curves, beside the columns of `runs` and in their order.

    ``what`` is "by data scale" (``value``: test error in percent, ``at``: the data scale, on MNIST-Scale the lower edge
    of a bin 0.1 wide), "relative change" of the outputs (no unit) or "prediction change" (percent of the images), both
    ``at`` the factor by which the digits are enlarged.
    """
    records = list(records)
    points = [
        (record.key, what, float(at), value)
        for record in records
        for what, curve in (
            ("by data scale", record.metrics.test_error_by_scale),
            ("relative change", record.metrics.equivariance_error),
            ("prediction change", record.metrics.prediction_change),
        )
        for at, value in sorted((curve or {}).items(), key=lambda point: float(point[0]))
    ]
    return runs(records).merge(pd.DataFrame(points, columns=["key", "what", "at", "value"]), on="key")


def best_fixed(frame: pd.DataFrame) -> pd.DataFrame:
    """Of `runs` with fixed scales, those at the ISR with the lowest mean test error, per distribution."""
    fixed = frame[frame["mode"] == "fixed"]
    best = fixed.groupby(["distribution", "init_isr"])["test_error"].mean().groupby("distribution").idxmin()
    return fixed[pd.MultiIndex.from_frame(fixed[["distribution", "init_isr"]]).isin(list(best))]


def summary_frame(records: Iterable[Record]) -> pd.DataFrame:
    """`runs` as people read it, sorted by all of the spec: whatever does not apply to a run is left blank."""
    frame = runs(records)
    frame["internal_scales"] = [" ".join(f"{sigma:g}" for sigma in scales) for scales in frame["internal_scales"]]
    frame["augmented"] = frame["augmented"].astype("boolean").mask(frame["dataset"] != "mnist_scale")
    frame["order"] = frame["order"].where(frame["dataset"] != "mnist_scale", "")
    frame["commit"] = frame["commit"].fillna("")
    frame = frame.sort_values([*_SPEC, "key"], kind="stable", ignore_index=True)[[*_SPEC, *_RESULTS, "key"]]
    return frame.rename(columns={"mode": "scale_learning", "init_sigma": "init_sigma_basis"})


def write_summary(records: Iterable[Record], path: Path) -> None:
    """Write `summary_frame` as CSV: the same bytes for the same records; a file that has them is left alone."""
    content = summary_frame(records).to_csv(index=False, lineterminator="\n").encode()
    if not path.is_file() or path.read_bytes() != content:
        write_whole(path, content)


def _row(record: Record) -> dict[str, object]:
    spec, metrics, made = record.spec, record.metrics, record.provenance
    scales, loss = list(metrics.internal_scales), metrics.train_loss_history
    row = {
        **spec.data.model_dump(exclude={"distribution"}), **spec.training.model_dump(), **made.model_dump(),
        **metrics.model_dump(), "key": record.key, "model": spec.model, "dataset": spec.dataset, "seed": spec.seed,
        "order": spec.order, "precision": spec.precision, "paper_size": spec.is_paper_size,
        "internal_scales": scales, "isr": max(scales) / min(scales) if scales else None,
        "isr_history": [values[-1] / values[0] for values in metrics.internal_scales_history if values],
        "scales_history": [list(values) for values in metrics.internal_scales_history],
        "train_loss_first": loss[0] if loss else None, "train_loss_last": loss[-1] if loss else None,
        "train_ms": made.train_ms_per_image, "inference_ms": made.inference_ms_per_image,
    }  # fmt: skip
    if spec.dataset == "mnist_scale":
        return row | {"title": SYSTEMS[spec.model].title, "distribution": "", "mode": ""}
    start, distribution = spec.scales, spec.data.distribution
    return row | {
        "title": "network of Table 1", "augmented": False, "distribution": distribution.label,
        "low": float(distribution.quantile(0.0)), "high": float(distribution.quantile(1.0)),
        "mode": start.parameterisation, "init_sigma": start.sigma_basis, "init_isr": start.isr,
        "num_scales": start.num_scales, "sigma_basis": scales[0], "isr": scales[-1] / scales[0],
    }  # fmt: skip
