"""The measurements of cost are read with their layout checked, and tabled as they are."""

import copy
import json

import pytest

from scalestudy import files
from scalestudy.paper import costs

MACHINE = {
    "torch": "2.13.0", "machine": "x86_64", "instructions": "AVX512", "threads": 2, "gigaflops": 180.4,
    "copied_gigabytes_per_second": 15.04,
}  # fmt: skip


def case(algorithm="ours", parameterisation="fixed", isr=3.0, num_scales=3, image_size=168, batch=16):
    return dict(zip(costs.CASE_COLUMNS, (algorithm, parameterisation, isr, num_scales, image_size, batch), strict=True))


def row(sweep="isr", phase="step", median=2.0, rounds=3, **changes):
    times = {"median_ms": median, "least_ms": median / 2, "most_ms": 2 * median, "rounds": rounds}
    needs = {"kernel_size": 49, "multiplications": 3_000_000, "share_of_products": 0.25, "floor_ms": median / 4}
    return {"sweep": sweep, **case(**changes), "phase": phase, **times, **needs}


def ratio(name="learned / fixed", median=1.04, phase="step", sweep="isr", **changes):
    values = {"median": median, "least": median - 0.02, "most": median + 0.02, "rounds": 3}
    return {"sweep": sweep, "ratio": name, **case(**changes), "phase": phase, **values}


def content(rows=(), ratios=(), memory=()):
    return {"machine": dict(MACHINE), "rows": list(rows), "ratios": list(ratios), "memory": list(memory)}


class TestReading:
    CONTENT = content([row()], [ratio()], [case() | {"mebibytes": 100.0, "response_mebibytes": 80.0}])

    def test_the_committed_file_is_read_without_a_path(self, tmp_path, monkeypatch):
        monkeypatch.setenv(files.ROOT_VARIABLE, str(tmp_path))
        monkeypatch.setenv(files.RESULTS_VARIABLE, str(tmp_path / "elsewhere"))
        (tmp_path / "results" / "benchmarks").mkdir(parents=True)
        (tmp_path / "results" / "benchmarks" / "scale_convolution.json").write_text(json.dumps(self.CONTENT))
        read = costs.read_costs()
        assert tuple(read.rows.columns) == costs.ROW_COLUMNS and read.rows["median_ms"].tolist() == [2.0]
        assert tuple(read.ratios.columns) == costs.RATIO_COLUMNS and len(read.ratios) == 1
        assert tuple(read.memory.columns) == costs.MEMORY_COLUMNS and len(read.memory) == 1

    def test_the_project_has_measurements(self):
        read = costs.read_costs()
        assert {"isr", "num_scales", "image_size", "batch"} <= set(read.rows["sweep"]) <= set(costs.TITLES)
        assert (read.rows["least_ms"] <= read.rows["median_ms"]).all()
        assert (read.rows["median_ms"] <= read.rows["most_ms"]).all()

    def test_description(self):
        assert costs.as_costs(self.CONTENT, "x").description == (
            "Measured on 2 threads of a processor of kind x86_64 with AVX512, torch 2.13.0, in float32; in the same "
            "process it multiplied matrices at 180 Gflop/s and copied 15.0 GB/s."
        )

    def test_nothing_measured(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no measurements of cost in .*none.json; run `make bench`"):
            costs.read_costs(tmp_path / "none.json")

    def test_no_json(self, tmp_path):
        (tmp_path / "half.json").write_text('{"machine": ')
        with pytest.raises(ValueError, match=r"half.json are no JSON; run `make bench` to renew"):
            costs.read_costs(tmp_path / "half.json")

    @pytest.mark.parametrize("broken", [[], {"machine": {}}, {"rows": []}])
    def test_missing_parts(self, broken):
        with pytest.raises(ValueError, match=r"here must hold \['machine', 'memory', 'ratios', 'rows'\], got .*renew"):
            costs.as_costs(broken, "here")

    @pytest.mark.parametrize("part", ["rows", "ratios", "memory"])
    @pytest.mark.parametrize("change", ["lacks", "has more"])
    def test_unknown_layout(self, part, change):
        broken = copy.deepcopy(self.CONTENT)
        if change == "lacks":
            del broken[part][0]["batch"]
        else:
            broken[part][0]["seconds"] = 1.0
        name = "batch" if change == "lacks" else "seconds"
        with pytest.raises(ValueError, match=rf"{part} of here must have .* missing or unknown: \['{name}'\]; run"):
            costs.as_costs(broken, "here")

    def test_unknown_machine(self):
        broken = copy.deepcopy(self.CONTENT)
        del broken["machine"]["gigaflops"]
        with pytest.raises(ValueError, match=r"here does not say \['gigaflops'\] of the machine"):
            costs.as_costs(broken, "here")


class TestTables:
    def test_sweep(self):
        rows = [
            row(), row(phase="eval", median=0.5), row(sweep="batch"),
            row(median=1234.5, algorithm="dense", batch=1, rounds=1),
        ]  # fmt: skip
        table = costs.sweep_table(costs.as_costs(content(rows), "x"), "isr")
        assert table["step, ms"].tolist() == ["2 (1 to 4)", "1,230 (once)"]
        assert table["evaluation, ms"].tolist() == ["0.5", "-"]
        first = table.iloc[0]
        assert first["multiplications of a step"] == "3 M" and first["of the product rate"] == "25 %"
        assert first["floor, ms"] == "0.5" and first["times the floor"] == "4"

    def test_ratios(self):
        rows = [ratio(), ratio(phase="eval"), ratio("dense / ours", 8.0, algorithm="dense"), ratio("isr 3 / 2", 1.0)]
        measured = costs.as_costs(content(ratios=rows), "x")
        table = costs.ratio_table(measured)
        assert table["ratio"].tolist() == ["learned / fixed", "dense / ours", "isr 3 / 2"], "steps only"
        assert table["of"].tolist() == ["ours", "both", "ours"]
        assert table["scales"].tolist() == ["both", "fixed", "fixed"]
        assert table["median (least to most)"].tolist()[0] == "1.04 (1.02 to 1.06)"
        assert costs.ratio_table(measured, "dense / ours")["ratio"].tolist() == ["dense / ours"]

    def test_memory(self):
        memory = [case() | {"mebibytes": 130.4, "response_mebibytes": 82.7}]
        table = costs.memory_table(costs.as_costs(content(memory=memory), "x"))
        assert table.iloc[0]["added at the peak, MiB"] == "130"
        assert table.iloc[0]["responses at all scales alone, MiB"] == "83"


class TestClaims:
    @staticmethod
    def verdicts(*ratios):
        table = costs.claims_table(costs.as_costs(content(ratios=ratios), "x"))
        return table["measured"].tolist(), table["verdict"].tolist()

    def test_overhead_of_learning(self):
        for medians, verdict in [((1.1, 1.3), "held"), ((1.0, 1.05), "did not hold"), ((1.0, 1.3), "unclear")]:
            measured, verdicts = self.verdicts(*(ratio(median=median) for median in medians))
            assert verdicts == [verdict, "not measured", "not measured", "not measured"]
            assert measured[0] == f"learned / fixed: {medians[0]:g} to {medians[1]:g} in 2 cases"

    def test_algorithms_are_not_mixed_and_evaluations_do_not_count(self):
        _, verdicts = self.verdicts(ratio(algorithm="dense", median=2.0), ratio(phase="eval", median=2.0))
        assert verdicts == ["not measured", "held", "not measured", "not measured"]

    def test_number_of_scales(self):
        more = ratio("num_scales 6 / 1", 5.9, sweep="num_scales", num_scales=6)
        learned = ratio("num_scales 6 / 2", 1.0, sweep="num_scales", num_scales=6, parameterisation="learned")
        measured, verdicts = self.verdicts(more, learned)
        assert (measured[2], verdicts[2]) == ("scales 6 / 1: 5.9", "held")
