"""The table of all systems on MNIST-Scale: cells by hand."""

import pandas as pd
import torch

from scalestudy.paper import systems
from scalestudy.paper.systems import run_sizes, systems_table, timed_on
from scalestudy.paper.table import CURVE_COLUMNS, RUN_COLUMNS

NAN = float("nan")


def run(name, error, seed=0, augmented=False, scales=(), **changes):
    """A row of `runs`."""
    return {
        "key": f"{name}{seed}{augmented}", "model": name, "augmented": augmented, "seed": seed, "test_error": error,
        "internal_scales": list(scales), "train_ms": 4.0 + seed, "inference_ms": 0.5, "threads": 1,
        "device": "cpu (x86_64)", "dataset": "mnist_scale", "epochs": 60, "train_images": 10_000, **changes,
    }  # fmt: skip


def frame(*rows):
    return pd.DataFrame(rows, columns=RUN_COLUMNS)


def points(*curves):
    """Rows of `curves`: (run, what, {at: value})."""
    rows = [{"key": run["key"], "what": what, "at": at, "value": v} for run, what, c in curves for at, v in c.items()]
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def test_parameters_are_counted_without_a_trace():
    """How many each network has stands in tests/reference and tests/models."""
    systems.parameters.cache_clear()
    before = torch.random.get_rng_state()
    assert systems.parameters("single_scale") == 494_550
    assert torch.equal(torch.random.get_rng_state(), before)


def test_sizes_and_machines_in_words():
    assert run_sizes(frame(run("cnn", 2.0, epochs=1, train_images=60))) == "60 images, 1 epoch, 1 realisation"
    two = frame(run("cnn", 2.0, threads=4, device="cuda (X)"), run("cnn", 2.0, seed=3, epochs=2, train_images=400))
    assert run_sizes(two) == "400 or 10000 images, 2 or 60 epochs, 2 realisations"
    table1 = run("table1", 2.0, dataset="dynamic_scale_mnist", shrink=3)
    assert run_sizes(frame(table1)) == "10000 images, 60 epochs, 1 seed, lengths / 3"
    assert timed_on(two).tolist() == ["cuda (X), 4 threads", "cpu (x86_64), 1 thread"]


def test_cells():
    """Mean over the four factors other than 1: (0.8+0.4+0.2+0.6)/4 = 0.5 and 0.6."""
    first, second = run("cnn", 2.0), run("cnn", 3.0, 1)
    changes = {0.5: 0.8, 0.7071: 0.4, 1.0: 0.0, 1.4142: 0.2, 2.0: 0.6}, {0.5: 1.0, 0.7071: 0.4, 1.4142: 0.2, 2.0: 0.8}
    curves = [(first, "by data scale", {0.3: 8.0, 0.6: 5.0, 0.9: 1.0}), (second, "by data scale", {0.3: 9.0, 0.6: 5.0})]
    for own, change in zip((first, second), changes, strict=True):
        curves.append((own, "relative change", change))
        curves.append((own, "prediction change", {at: 10 * value for at, value in change.items()}))
    assert systems_table(frame(first, second), points(*curves)).iloc[0].to_dict() == {
        "model": "CNN", "parameters": "494,549", "test error": "2.50 ± 0.71", "change of logits": "0.55 ± 0.07",
        "at 0.5": "0.90 ± 0.14", "at 2": "0.70 ± 0.14", "changed predictions": "5.5 ± 0.7",
        "error at data scale 0.3-0.4": "8.5 ± 0.7", "error at data scale 0.9-1.0": "1.0",
        "training, ms per image": "4.5", "inference, ms per image": "0.5", "timed on": "cpu (x86_64), 1 thread",
        "internal scales": "", "size": "10000 images, 60 epochs, 2 realisations",
    }  # fmt: skip


def test_rows_times_and_what_is_missing():
    rows = [
        run("sesn", 1.5, scales=(1.5, 1.89, 2.38, 3.0)),
        run("sesn", 1.5, 1, scales=(1.7, 1.91, 2.4, 3.2)),
        run("cnn", 1.0, augmented=True, inference_ms=NAN),
        *(run("dss", 2.0, i, train_ms=time) for i, time in enumerate((1.0, 2.0, 30.0, NAN))),
    ]
    table = systems_table(frame(*rows), points()).set_index("model")
    assert table.index.tolist() == ["DSS", "SESN (Hermite)", "CNN+"]
    assert table.loc["SESN (Hermite)", "internal scales"] == "1.60, 1.90, 2.39, 3.10"
    assert table.loc["DSS", "training, ms per image"] == "2"
    assert set(table.loc["CNN+", ["change of logits", "at 2", "error at data scale 0.3-0.4"]]) == {""}
    assert table.loc["CNN+", "inference, ms per image"] == ""
    assert systems_table(frame(), points()).empty
