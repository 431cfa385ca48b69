"""Tables 5 and 6 and the table of all systems: cells by hand, what is missing, and what is not compared."""

import pandas as pd
import pytest
import torch

from scalestudy.models import SYSTEMS
from scalestudy.paper import baseline_report, compare, reported
from scalestudy.paper.baseline_report import run_sizes, shown_systems, systems_table, table5, table6
from scalestudy.paper.frames import BASELINE_COLUMNS, BASELINE_SCALE_COLUMNS, EQUIVARIANCE_COLUMNS

NAN = float("nan")
PAPER = {"epochs": 60, "train_images": 10_000, "test_images": 50_000, "paper_size": True}
QUICK = {"epochs": 2, "train_images": 400, "test_images": 500, "paper_size": False}
FACTORS = (0.5, 0.7071, 1.0, 1.4142, 2.0)


def run(name, error, seed=0, augmented=False, scales=(), **changes):
    """A row of `baseline_frame`."""
    row = {
        "model": SYSTEMS[name].title, "name": name, "augmented": augmented, "seed": seed, "test_error": error,
        "validation_error": error, "internal_scales": list(scales),
        "isr": max(scales) / min(scales) if scales else NAN, "selected_epoch": 1, "seconds": 10.0,
        "train_ms_per_image": 4.0 + seed, "inference_ms_per_image": 0.5, "threads": 1, "device": "cpu (x86_64)",
        **PAPER, **changes,
    }  # fmt: skip
    return row


def frame(*rows):
    return pd.DataFrame(rows, columns=list(BASELINE_COLUMNS))


def by_factor(name, changes, seed=0, augmented=False):
    """Rows of `equivariance_frame`: `changes` at each of `FACTORS`, predictions change by 10 times as many percent."""
    return [
        (SYSTEMS[name].title, name, augmented, seed, factor, change, 10 * change)
        for factor, change in zip(FACTORS, changes, strict=True)
    ]


def by_scale(name, errors, seed=0, augmented=False):
    """Rows of `baseline_scale_frame`: `errors` by the lower edge of the bin."""
    return [(SYSTEMS[name].title, name, augmented, seed, edge, error) for edge, error in errors.items()]


def changes(*rows):
    return pd.DataFrame(rows, columns=list(EQUIVARIANCE_COLUMNS))


def scales(*rows):
    return pd.DataFrame(rows, columns=list(BASELINE_SCALE_COLUMNS))


EMPTY = frame(), scales(), changes()
ELEVEN = list(reported.table("table5")["model"])


class TestParameters:
    @pytest.mark.parametrize(
        ("name", "count"),
        [
            ("cnn", 494_549), ("sicnn", 496_639), ("si_convnet", 494_549), ("sevf", 475_475), ("dss", 494_359),
            ("ss_cnn", 493_688), ("sesn", 494_549), ("ours_isr", 494_551), ("ours_spacings", 494_553),
            ("sevf_scalar", 494_425), ("single_scale", 494_550),
        ],
    )  # fmt: skip
    def test_as_the_released_networks_have(self, name, count):
        assert baseline_report.parameters(name) == count

    def test_leaves_the_random_state_alone(self):
        baseline_report.parameters.cache_clear()
        before = torch.random.get_rng_state()
        baseline_report.parameters("cnn")
        assert torch.equal(torch.random.get_rng_state(), before)


class TestSizes:
    def test_one(self):
        assert run_sizes(frame(run("cnn", 2.0, epochs=1, train_images=60))) == "60 images, 1 epoch, 1 realisation"

    def test_several_are_all_named(self):
        runs = frame(run("cnn", 2.0), run("cnn", 2.0, seed=3, epochs=2, train_images=400))
        assert run_sizes(runs) == "400 or 10000 images, 2 or 60 epochs, 2 realisations"

    def test_machines(self):
        runs = frame(run("cnn", 2.0, threads=4, device="cuda (X)"), run("cnn", 2.0))
        assert baseline_report.timed_on(runs).tolist() == ["cuda (X), 4 threads", "cpu (x86_64), 1 thread"]


class TestShownSystems:
    def test_eleven_and_the_variants_that_were_run(self):
        assert [SYSTEMS[name].title for name in shown_systems(frame())] == ELEVEN
        names = shown_systems(frame(run("interval_scales", 2.0), run("sevf_scalar", 2.0), run("cnn", 2.0)))
        assert names[11:] == ["sevf_scalar", "interval_scales"]


class TestTable5:
    def test_cells(self):
        runs = frame(
            *(run("dss", error, seed) for seed, error in enumerate((1.96, 1.97, 1.98, 1.97))),
            *(run("dss", error, seed, True) for seed, error in enumerate((3.0, 3.1))),
        )
        table = table5(runs).set_index("model")
        row = table.loc["DSS"]
        assert (row["parameters, ours"], row["parameters, paper"]) == ("494,359", "475k")
        assert row["test error, ours"] == "1.97 ± 0.01 (n=4)" and row["test error, paper"] == "1.97 ± 0.08 (n=6)"
        assert row["test error+, ours"] == "3.05 ± 0.07 (n=2)" and row["test error+, paper"] == "1.57 ± 0.09 (n=6)"
        low, high = compare.welch_interval((3.05, 0.0707107, 2), (1.57, 0.09, 6))
        assert row["difference+"] == f"+1.48 [{low:+.2f}, {high:+.2f}]"
        assert (row["verdict"], row["verdict+"]) == ("reproduced", "different")

    def test_order_and_missing_systems(self):
        table = table5(frame(run("dss", 1.97)))
        assert table["model"].tolist() == ELEVEN
        others = table[table["model"] != "DSS"]
        assert set(others["verdict"]) == set(others["verdict+"]) == {"not measured"}
        assert set(others["test error, ours"]) == {"-"} and others["test error, paper"].str.contains("±").all()

    def test_variants_come_last_without_a_comparison(self):
        row = table5(frame(run("single_scale", 2.5), run("cnn", 2.0))).iloc[-1]
        assert row["model"] == "One learned scale (as NJet-Net)" and row["test error, ours"] == "2.50 (n=1)"
        told = ["parameters, paper", "test error, paper", "difference", "verdict", "test error+, ours", "verdict+"]
        assert set(row[told]) == {"-"}

    def test_values_that_are_missing_do_not_count(self):
        table = table5(frame(run("cnn", 2.0), run("cnn", NAN, 1), run("single_scale", NAN))).set_index("model")
        assert table["test error, ours"].iloc[[0, -1]].tolist() == ["2.00 (n=1)", "-"]

    def test_paper_columns_are_the_printed_ones(self):
        printed, table = reported.table("table5"), table5(frame())
        assert table["parameters, paper"].tolist() == [f"{n:.0f}k" for n in printed["parameters_thousands"]]
        for mark, column in (("", "mnist_scale_mean"), ("+", "mnist_scale_plus_mean")):
            assert table[f"test error{mark}, paper"].str[:4].tolist() == [f"{mean:.2f}" for mean in printed[column]]


class TestTable6:
    def test_cells(self):
        learned = (1.39, 1.89, 2.572, 3.503)
        offsets = (-0.01, 0.0, 0.01, 0.0)
        runs = frame(
            run("sesn", 1.7, scales=(1.5, 1.89, 2.38, 3.0)),
            *(run("ours_isr", 1.7, i, scales=[s + o for s in learned]) for i, o in enumerate(offsets)),
        )
        table = table6(runs).set_index("model")
        row = table.loc["Ours (Learn ISR)"]
        assert [row[f"scale {i}, ours"] for i in (1, 4)] == ["1.39 ± 0.01 (n=4)", "3.50 ± 0.01 (n=4)"]
        assert row["scale 4, paper"] == "3.50 ± 0.34 (n=5)"
        assert row["largest / smallest, ours"].startswith("2.52 ±") and row["largest / smallest, paper"] == "2.52"
        values = [3.503 + o for o in offsets]
        single = compare.compare_means(values, 3.503, 0.338, 5, 0.47).verdict
        assert single == "reproduced", "the widest scale alone would be"
        assert row["verdict"] == "reproduced"
        setting = table.loc["SESN (Hermite)"]
        assert setting["largest / smallest, ours"] == "2.00 (n=1)" and setting["verdict"] == "setting"
        assert setting["scale 4, paper"] == "3.00"

    def test_the_least_favourable_scale_decides(self):
        """Only the smallest scale is off: by 0.2 pixels, three margins."""
        runs = frame(*(run("ours_isr", 1.7, i, scales=(1.59 + 0.001 * i, 1.89, 2.572, 3.503)) for i in range(5)))
        assert table6(runs).set_index("model").loc["Ours (Learn ISR)", "verdict"] == "different"
        assert set(baseline_report.VERDICTS_FROM_WORST) == {"setting", *compare.VERDICTS}

    def test_rows(self):
        assert table6(frame())["model"].tolist() == [
            "SESN (Hermite)", "DISCO", *ELEVEN[-3:], *(f"{name}+" for name in ELEVEN[-3:]),
        ]  # fmt: skip
        runs = frame(
            run("sesn", 1.7, augmented=True, scales=(1.7, 2.14, 2.7, 3.4)),
            run("single_scale", 1.7, scales=(1.4,)),
            run("cnn", 1.7),
        )
        table = table6(runs).set_index("model")
        assert len(table) == 10 and "CNN" not in table.index
        augmented, single = table.loc["SESN (Hermite)+"], table.loc["One learned scale (as NJet-Net)"]
        assert (augmented["scale 4, ours"], augmented["scale 4, paper"], augmented["verdict"]) == (
            "3.40 (n=1)",
            "-",
            "-",
        )
        assert single[["scale 1, ours", "scale 2, ours", "largest / smallest, ours"]].tolist() == [
            "1.40 (n=1)", "-", "1.00 (n=1)",
        ]  # fmt: skip


class TestSystemsTable:
    RUNS = frame(
        run("cnn", 2.0),
        run("cnn", 3.0, 1),
        run("cnn", 1.0, augmented=True),
        run("sesn", 1.5, scales=(1.5, 1.89, 2.38, 3.0)),
        run("sesn", 1.5, 1, scales=(1.7, 1.91, 2.4, 3.2)),
    )
    FACTORS = changes(
        *by_factor("cnn", (0.8, 0.4, 0.0, 0.2, 0.6)), *by_factor("cnn", (1.0, 0.4, 0.0, 0.2, 0.8), seed=1)
    )
    SCALES = scales(*by_scale("cnn", {0.3: 8.0, 0.6: 5.0, 0.9: 1.0}), *by_scale("cnn", {0.3: 9.0, 0.6: 5.0}, seed=1))

    def test_cells(self):
        """Mean over the four factors other than 1: (0.8+0.4+0.2+0.6)/4 = 0.5 and 0.6."""
        row = systems_table(self.RUNS, self.SCALES, self.FACTORS).iloc[0]
        assert row.to_dict() == {
            "model": "CNN", "parameters": "494,549", "test error": "2.50 ± 0.71", "change of logits": "0.55 ± 0.07",
            "at 0.5": "0.90 ± 0.14", "at 2": "0.70 ± 0.14", "changed predictions": "5.5 ± 0.7",
            "error at data scale 0.3-0.4": "8.5 ± 0.7", "error at data scale 0.9-1.0": "1.0",
            "training, ms per image": "4.5", "inference, ms per image": "0.5", "timed on": "cpu (x86_64), 1 thread",
            "internal scales": "-", "size": "10000 images, 60 epochs, 2 realisations",
        }  # fmt: skip

    def test_rows_and_scales(self):
        table = systems_table(self.RUNS, self.SCALES, self.FACTORS).set_index("model")
        assert table.index.tolist() == ["CNN", "SESN (Hermite)", "CNN+"]
        assert table.loc["SESN (Hermite)", "internal scales"] == "1.60, 1.90, 2.39, 3.10"
        assert table.loc["CNN+", ["change of logits", "at 2", "error at data scale 0.3-0.4"]].tolist() == ["-"] * 3

    def test_median_of_the_times_that_are_there(self):
        times = (1.0, 2.0, 30.0, NAN)
        runs = frame(
            *(run("dss", 2.0, i, train_ms_per_image=t, inference_ms_per_image=NAN) for i, t in enumerate(times))
        )
        row = systems_table(runs, *EMPTY[1:]).iloc[0]
        assert (row["training, ms per image"], row["inference, ms per image"]) == ("2", "-")

    def test_without_runs(self):
        assert systems_table(*EMPTY).empty


def test_quick_runs_are_shown_but_not_compared():
    runs = frame(
        *(run("ours_isr", 30.0, seed, scales=(1.4, 1.9, 2.5, 3.3), **QUICK) for seed in range(3)),
        run("cnn", 31.0, **QUICK),
    )
    five, six = table5(runs).set_index("model"), table6(runs).set_index("model")
    assert set(five["verdict"]) == {"not comparable", "not measured"} and set(five["difference"]) == {"-"}
    assert five.loc["Ours (Learn ISR)", "test error, ours"] == "30.00 ± 0.00 (n=3)"
    assert six["verdict"].to_dict()["Ours (Learn ISR)"] == "not comparable"
    assert set(six["verdict"]) == {"not comparable", "not measured", "setting"}
