"""Records as frames: runs of both data sets, their curves, and the committed summary."""

from pathlib import Path

import pandas as pd
from fake_training import record_of

from scalestudy.paper import table
from scalestudy.runs.store import RunStore
from scalestudy.training.spec import MnistScaleSpec, RunSpec

RESULTS = Path(__file__).resolve().parents[2] / "results"


def baseline(model, seed=0, augmented=False, **changes):
    """A record of a system; errors depend on the seed."""
    spec = RunSpec.baseline(model, seed, MnistScaleSpec(augmented=augmented))
    record = record_of(spec, test_error=2.0 + seed)
    curves = {
        "test_error_by_scale": {"0.9000": 1.0, "0.3000": 6.0},
        "equivariance_error": {"2.0000": 0.5, "0.5000": 0.25},
        "prediction_change": {"2.0000": 20.0, "0.5000": 10.0},
    }
    made = record.provenance.model_copy(update={"train_ms_per_image": 5.5, "inference_ms_per_image": 2.5})
    return type(record).of(spec, record.metrics.model_copy(update=curves | changes), made)


def test_a_run_on_dynamic_scale_mnist(paper):
    spec = next(spec for spec in paper.figure3() if spec.scales.isr == 1.5 and spec.seed == 2)
    rows = table.runs([record_of(paper.table2()[0]), record_of(spec)])
    nothing = table.runs([])
    assert nothing.empty and list(rows.columns) == list(nothing.columns) == table.RUN_COLUMNS
    assert rows["mode"].tolist() == ["fixed", "step_ratio"]
    expected = {
        "key": spec.key, "dataset": "dynamic_scale_mnist", "model": "table1", "distribution": "log-uniform [1, 2.83]",
        "low": 1.0, "high": 2.83, "mode": "fixed", "init_sigma": 2.0, "init_isr": 1.5, "augmented": False, "seed": 2,
        "shrink": 1, "train_images": 10_000, "test_images": 50_000, "epochs": 60, "paper_size": True,
        "test_error": 0.2, "validation_error": 1.5, "selected_epoch": 2, "sigma_basis": 2.0, "isr": 3.0,
        "internal_scales": [2.0, 3.464102, 6.0], "isr_history": [2.0, 2.5, 3.0], "seconds": 0.5, "device": "cpu",
        "scales_history": [[2.0, 3.0, 4.0], [2.0, 3.1, 5.0], [2.0, 3.464102, 6.0]],
        "train_loss_first": 1.0, "train_loss_last": 0.5,
    }  # fmt: skip
    assert {name: rows.iloc[0][name] for name in expected} == expected
    assert pd.isna(rows.iloc[0][["train_ms", "inference_ms", "equivariance_images"]]).all()


def test_runs_on_mnist_scale():
    none = {"internal_scales": (), "internal_scales_history": ((),)}
    rows = table.runs([
        baseline("ours_isr", augmented=True), baseline("cnn", 1, **none), baseline("cnn", 0, True, **none),
        baseline("cnn", 0, **none), baseline("single_scale", internal_scales=(1.5,)),
    ])  # fmt: skip
    assert rows["model"].tolist() == ["cnn", "cnn", "cnn", "ours_isr", "single_scale"]
    assert rows["title"].tolist()[:4] == ["CNN", "CNN", "CNN", "Ours (Learn ISR)"]
    assert rows["augmented"].tolist() == [False, False, True, True, False]
    assert rows["seed"].tolist() == [0, 1, 0, 0, 0]
    assert rows["internal_scales"].tolist() == [[], [], [], [2.0, 3.464102, 6.0], [1.5]]
    assert rows["isr"].isna().tolist() == [True, True, True, False, False]
    assert rows["isr"].tolist()[3:] == [3.0, 1.0]
    row = rows.iloc[3]
    assert (row.train_ms, row.inference_ms, row.threads, row.device) == (5.5, 2.5, 1, "cpu")
    assert (row.distribution, row["mode"], row.equivariance_images, row.paper_size) == ("", "", 1_000, True)


def test_curves(paper):
    tested = next(spec for spec in paper.figure4() if spec.scales.isr == 7.56)
    rows = table.curves([baseline("cnn"), record_of(tested), record_of(paper.table2()[0])])
    nothing = table.curves([])
    assert nothing.empty and list(rows.columns) == list(nothing.columns) == table.CURVE_COLUMNS
    assert rows[["model", "init_isr", "what", "at", "value"]].fillna(0).values.tolist() == [
        ["table1", 7.56, "by data scale", 0.5, 10.0],
        ["table1", 7.56, "by data scale", 2.0, 1.0],
        ["cnn", 0, "by data scale", 0.3, 6.0],
        ["cnn", 0, "by data scale", 0.9, 1.0],
        ["cnn", 0, "relative change", 0.5, 0.25],
        ["cnn", 0, "relative change", 2.0, 0.5],
        ["cnn", 0, "prediction change", 0.5, 10.0],
        ["cnn", 0, "prediction change", 2.0, 20.0],
    ]


def test_the_committed_summary_follows_from_the_committed_records(tmp_path):
    records = RunStore(RESULTS / "records").records()
    path, files = tmp_path / "summary.csv", set()
    for given in (records, records[::-1]):
        table.write_summary(given, path)
        files.add(path.stat().st_ino)
        assert path.read_bytes() == (RESULTS / "records" / "summary.csv").read_bytes()
    assert len(files) == 1, "a file that has these bytes is left alone"
