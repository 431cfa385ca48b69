"""The benchmarks run, and tell what they measured."""

import importlib.util
import json
import math
import re
import sys
import types
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
RATES = {"gigaflops": 1.0, "copied_gigabytes_per_second": 2.0}


def load(name):
    """A script of the benchmarks; they import each other by name, as when one of them is run."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        patch.setitem(sys.modules, name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True, scope="module")
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


script, algorithms, throughput, agreement, benchmark = map(
    load, ("scale_convolution", "algorithms", "throughput", "device_agreement", "training_cost")
)


def call(module, tmp_path, *options):
    """What a command has written, measurements and page, and told."""
    output = tmp_path / "new" / "cost.json"
    result = CliRunner().invoke(module.main, [*options, "--output", str(output)], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(output.read_text()), output.with_suffix(".md").read_text(), result.output


@pytest.fixture(autouse=True)
def rates(monkeypatch):
    """Rates of a machine take seconds to measure."""
    for module in (script, algorithms, throughput, benchmark):
        monkeypatch.setattr(module, "machine_rates", lambda: RATES)


class TestTrainingCost:
    def test_one_case(self, tmp_path, monkeypatch):
        options = ["--system", "cnn", "--batch", "2", "--batch", "3", "--repeats", "1", "--released-up-to", "2"]
        content, page, _ = call(benchmark, tmp_path, *options)
        assert content["machine"]["threads"] == 1 and content["machine"]["repeats"] == 1
        assert set(benchmark.AUTHORS_MS) < set(benchmark.SYSTEMS)
        first, second = content["rows"]
        assert (first["system"], first["batch"], second["batch"]) == ("cnn", 2, 3)
        assert first["released_ms"] > 0 and "released_ms" not in second
        page = page.splitlines()
        assert page[2].startswith("| system | batch | ours |") and page[4].startswith("| CNN | 2 |") and len(page) == 6


def tiny(algorithm="ours", parameterisation="fixed", **changes):
    """A case of 16 x 16 pixels."""
    sizes = {"isr": 1.5, "num_scales": 2, "image_size": 16, "batch": 2, "rounds": 2}
    return script.Case(algorithm, parameterisation, **sizes | changes)


class TestScaleConvolution:
    def test_command(self, tmp_path, monkeypatch):
        sweeps = {
            "isr": (tiny(), tiny(isr=2.0), tiny("ours", "learned"), tiny("dense")),
            "large_isr": (tiny("dense", rounds=1, batch=1), tiny(batch=1)),
        }
        monkeypatch.setattr(script, "SWEEPS", sweeps)
        monkeypatch.setattr(script, "MEMORY", (tiny(),))
        monkeypatch.setattr(script.peak_memory, "measure", lambda case, threads: 12.3456 * threads)
        monkeypatch.setattr(script.peak_memory, "is_measurable", lambda: True)
        options = ["--sweep", "isr", "--sweep", "large_isr", "--threads", "1"]
        content, _, _ = call(script, tmp_path, *options)
        assert content["machine"]["threads"] == 1 and content["machine"]["gigaflops"] == 1.0
        rows, ratios, memory = (pd.DataFrame(content[part]) for part in ("rows", "ratios", "memory"))
        assert rows.groupby(["sweep", "phase"]).size().to_dict() == {
            ("isr", "eval"): 4, ("isr", "step"): 4, ("large_isr", "eval"): 1, ("large_isr", "step"): 2,
        }  # fmt: skip
        assert rows["rounds"].tolist() == [2] * 8 + [1] + [2] * 2
        names = ratios[ratios["phase"] == "step"]["ratio"].tolist()
        assert names == ["isr 2 / 1.5", "learned / fixed", "dense / ours", "dense / ours"]
        assert memory["mebibytes"].tolist() == [12.35]
        assert memory["response_mebibytes"].item() == pytest.approx(4 * 2 * 16 * 2 * 256 / 2**20, rel=1e-3)

    def test_options_leave_out(self, tmp_path, monkeypatch):
        monkeypatch.setattr(script, "SWEEPS", {"isr": (tiny(rounds=3), tiny("dense", rounds=1))})
        options = ["--skip-slow", "--skip-memory", "--rounds", "2", "--threads", "1"]
        content, _, _ = call(script, tmp_path, *options)
        assert [(row["algorithm"], row["rounds"]) for row in content["rows"]] == [("ours", 2)] * 2
        assert content["memory"] == content["ratios"] == []

    def test_rounds_are_interleaved_and_turn_round(self, monkeypatch):
        """The first round warms up, but not a case of one round; evaluation follows its step."""
        calls = []
        monkeypatch.setattr(script, "step_seconds", lambda net, images, labels: calls.append(len(images)) or 0.5)
        monkeypatch.setattr(script, "evaluation_seconds", lambda net, images: calls.append(-len(images)) or 0.25)
        cases = (tiny(batch=1, rounds=3), tiny(batch=2, rounds=1), tiny(batch=4, rounds=2))
        times = script.measure(cases, script.tqdm(disable=True))
        assert calls == [4, -4, 1, -1, 1, -1, 2, 4, -4, 4, -4, 1, -1, 1, -1]
        assert times[cases[0], "step"] == [500.0] * 3 and times[cases[0], "eval"] == [250.0] * 3
        assert times[cases[1], "step"] == [250.0] and (cases[1], "eval") not in times
        assert times[cases[2], "step"] == [125.0] * 2

    def test_ratios_are_of_the_same_round(self):
        """The machine became ten times slower between the rounds: ratios do not see it."""
        fixed, learned, dense = tiny(), tiny("ours", "learned"), tiny("dense")
        times = {(fixed, "step"): [1.0, 10.0, 3.0], (learned, "step"): [1.1, 13.0, 3.6], (dense, "step"): [4.0, 50.0]}
        first, second = script.ratios("isr", times)
        assert (first["ratio"], second["ratio"]) == ("learned / fixed", "dense / ours")
        assert (first["median"], first["least"], first["most"], first["rounds"]) == (1.2, 1.1, 1.3, 3)
        assert (second["median"], second["least"], second["most"], second["rounds"]) == (4.5, 4.0, 5.0, 2)
        times = {(tiny(batch=batch), "step"): [value] for batch, value in ((1, 2.0), (4, 5.0), (16, 8.0))}
        times[tiny("dense", batch=64), "step"] = [7.0]
        (ends,) = script.ratios("batch", times)
        assert (ends["ratio"], ends["median"], ends["batch"]) == ("batch 16 / 1", 4.0, 16)

    def test_rows(self):
        case = tiny("dense", batch=1, rounds=3)
        (row,) = script.rows("isr", {(case, "step"): [3.0, 1.0, 2.5]}, RATES)
        size = case.network().conv.kernel_size()
        needed = 2 * 2 * size**2 * 16 * 16**2  # step, scales, kernel, filters, pixels
        assert (row["kernel_size"], row["multiplications"]) == (size, needed)
        assert (row["median_ms"], row["least_ms"], row["most_ms"], row["rounds"]) == (2.5, 1.0, 3.0, 3)
        assert row["floor_ms"] == pytest.approx(2 * needed / 1e9 * 1000, rel=1e-3)
        assert row["share_of_products"] == pytest.approx(row["floor_ms"] / 2.5, rel=1e-3)
        (row,) = script.rows("isr", {(case, "eval"): [2.5]}, RATES | {"gigaflops": 1e6})
        assert row["floor_ms"] == pytest.approx(4 * 16**2 * (1 + 2 * 16) / 4e9 * 1000, rel=1e-3)  # over 2 x 2 GB/s


def test_committed_tables_are_of_the_committed_measurements_and_these_of_all_cases(tmp_path):
    committed = FOLDER.parent / "results" / "benchmarks" / "scale_convolution.json"
    content = json.loads(committed.read_text())
    for sweep, cases in script.SWEEPS.items():
        measured = [row for row in content["rows"] if row["sweep"] == sweep]
        expected = [(script.described(case), phase) for case in cases for phase in case.phases]
        assert [({name: row[name] for name in script.CASE_COLUMNS}, row["phase"]) for row in measured] == expected
    script.write(content, tmp_path / committed.name)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert path.read_bytes() == (committed.parent / path.relative_to(tmp_path)).read_bytes(), path.name


class TestCases:
    def test_algorithms_agree(self):
        for parameterisation in ("fixed", "learned"):
            images, labels = tiny().images_and_labels()
            ours, fft, dense = (tiny(kind, parameterisation).network() for kind in ("ours", "fft", "dense"))
            assert (ours.conv.algorithm, dense.conv.algorithm) == ("auto", "dense") and labels.shape == (2,)
            for other in (fft, dense):
                torch.testing.assert_close(ours(images), other(images), rtol=1e-4, atol=1e-5)

    def test_scales(self):
        assert tiny(num_scales=3, isr=3.0).scales().values() == pytest.approx([2.0, math.sqrt(12), 6.0])
        assert tiny(num_scales=1, isr=3.0).scales().values() == [6.0], "the kernel is as large as that of more scales"

    def test_multiplications(self):
        def count(phase="step", **changes):
            case = tiny(**changes)
            return script.multiplications(case, case.network(), phase)

        for algorithm in ("ours", "fft", "dense"):
            once = count(algorithm=algorithm)
            assert count(algorithm=algorithm, num_scales=4) == pytest.approx(2 * once, rel=0.25)
            padded = algorithm != "dense"  # by the kernel, which stays
            assert count(algorithm=algorithm, image_size=32) > (2 if padded else 3.9) * once
            assert once == 2 * count("eval", algorithm=algorithm)

    def test_sweeps_vary_one_size(self):
        assert list(script.SWEEPS) == list(script.TITLES)
        for sweep, cases in script.SWEEPS.items():
            varied = sweep.removeprefix("large_")
            assert len(set(cases)) == len(cases)
            alike = {script.replace(case, algorithm="ours", parameterisation="fixed", **{varied: 1}) for case in cases}
            assert len(alike) == 1, sweep


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process its peak")
def test_memory_in_a_process_of_its_own():
    """The responses of 48 images at 2 scales take 96 MiB; the 512 MiB that this process holds do not count."""
    block = torch.ones(128 << 20)
    case = tiny("dense", image_size=128, batch=48)
    assert 96 < script.peak_memory.measure(case, 1) < 512 and block.all()


def test_machine():
    machine = load("machine")
    rates = machine.machine_rates()
    assert set(rates) == set(RATES) and all(0.1 < rate < 1e6 for rate in rates.values())
    told = machine.software_and_processor()
    assert told["torch"] == torch.__version__ and told["threads"] == torch.get_num_threads()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    images, labels = torch.randn(5, 1, 2, 2), torch.zeros(5, dtype=torch.long)
    assert machine.step_seconds(net, images, labels) > 0 and net[1].weight.grad is not None
    before = net[2].running_mean.clone()
    assert machine.evaluation_seconds(net, images) > 0 and net.training
    assert torch.equal(before, net[2].running_mean), "evaluation mode"


class TestAlgorithms:
    def test_two_small_layers(self, tmp_path, monkeypatch):
        """Every algorithm is timed; what "auto" takes is said, and how it compares with the fastest."""
        lifting = algorithms.Layer("lifting", 1, 2, 12, 1.0, 2.0, batch=2)
        group = algorithms.Layer("group", 2, 3, 8, 1.0, 2.0, "B", batch=2)
        monkeypatch.setattr(algorithms, "LAYERS", (lifting, group))
        content, page, _ = call(algorithms, tmp_path, "--rounds", "2", "--threads", "1")
        first, second = content["rows"]
        assert (first["kind"], first["basis"], second["kind"], second["basis"]) == ("lifting", "A", "group", "B")
        for row in (first, second):
            times = {name: row[f"{name}_ms"] for name in algorithms.ALGORITHMS}
            assert min(times.values()) == times[row["fastest"]] > 0
            assert row["auto_over_fastest"] == pytest.approx(times[row["auto"]] / times[row["fastest"]], rel=1e-3)
        assert "| lifting 1 -> 2 | 12 x 12 |" in page

    def test_slow_algorithms_are_timed_once(self, monkeypatch):
        monkeypatch.setattr(algorithms, "SLOW_SECONDS", 0.0)
        calls = []
        monkeypatch.setattr(algorithms, "step_seconds", lambda layer, images: calls.append(layer.algorithm) or 1.0)
        algorithms.measure(algorithms.Layer("lifting", 1, 2, 12, 1.0, 2.0, batch=2), rounds=5)
        assert calls == list(algorithms.ALGORITHMS) * 2  # the one that does not count, and one more

    def test_the_layers_have_every_outcome_of_the_rule(self):
        chosen = {case.build().chosen_algorithm(case.size, case.size) for case in algorithms.LAYERS}
        assert chosen == {"separable", "fourier", "dense"}


class TestThroughput:
    def test_ratios_are_of_the_same_round(self, monkeypatch):
        """The machine is twice as fast in the second round; the order turns round."""
        calls = []

        def rate(specs, workers):
            calls.append(workers)
            whole = (10.0 if len(calls) <= 2 else 20.0) * {1: 1.0, 2: 1.7}[workers]
            return {"whole": whole, "started": whole * {1: 1.0, 2: 1.9 / 1.7}[workers]}

        monkeypatch.setattr(throughput, "runs_per_minute", rate)
        one, two = throughput.measure([], [1, 2], rounds=2)
        assert calls == [1, 2, 2, 1]
        for kind, ratio in (("started", 1.9), ("whole", 1.7)):
            assert one[f"{kind}_runs_per_minute"] == 15.0 and two[f"{kind}_runs_per_minute"] == 15.0 * ratio
            assert {one[f"{kind}_{of}"] for of in ("ratio", "least", "most")} == {1.0}
            assert {two[f"{kind}_{of}"] for of in ("ratio", "least", "most")} == {ratio}

    def test_first_runs_do_not_count_once_started(self, monkeypatch):
        """Two workers, first answers after 5 s, one more each second."""
        times = iter([0.0, 5.0, 5.0, 6.0, 7.0])
        monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(times))

        def made(specs, store, *, on_record, **options):
            for _ in specs:
                on_record(None)
            return types.SimpleNamespace(require_complete=lambda: None)

        monkeypatch.setattr(throughput, "run_all", made)
        assert throughput.runs_per_minute([1, 2, 3, 4], 2) == {"started": 60.0, "whole": 60 * 4 / 7}

    def test_command(self, tmp_path, monkeypatch):
        """Runs that differ in their seed only, whose training is faked."""
        runs = throughput.equal_runs(3)
        assert [run.model_copy(update={"seed": 0}) for run in runs] == [runs[0]] * 3
        assert [run.seed for run in runs] == [0, 1, 2]
        monkeypatch.setattr(throughput, "run_all", partial(throughput.run_all, train="fake_training:quick"))
        options = ["--runs", "3", "--rounds", "1", "--workers", "1", "--workers", "2"]
        content, page, _ = call(throughput, tmp_path, *options)
        one, two = content["rows"]
        assert (one["workers"], two["workers"]) == (1, 2)
        rates = [row["whole_runs_per_minute"] for row in (one, two)]
        assert two["whole_ratio"] == pytest.approx(rates[1] / rates[0], rel=1e-2, abs=1e-3)
        assert "| 2 |" in page


class TestDeviceAgreement:
    @pytest.fixture
    def call(self, tmp_path):
        def call(*options):
            output = tmp_path / "new" / "agreement.json"
            size = ["--steps", "4", "--batch", "4", "--probes", "2", "--device", "cpu", "--output", str(output)]
            result = CliRunner().invoke(agreement.main, [*size, *options])
            return result, json.loads(output.read_text())["rows"] if output.exists() else None

        return call

    def of_the_device(self, monkeypatch, change):
        """Change the network that stands for the device's: the last of the three that are compared."""
        build, built = agreement.build_model, []

        def built_and_changed(spec):
            built.append(build(spec))
            return change(built[-1]) if len(built) == 3 else built[-1]

        monkeypatch.setattr(agreement, "build_model", built_and_changed)

    def test_the_cpu_agrees_with_itself(self, call):
        result, rows = call("--case", "table1", "--case", "cnn")
        assert result.exit_code == 0, result.output
        assert [row["case"] for row in rows] == ["table1", "cnn"]
        for row in rows:
            assert row["agrees"] and row["pixels"] == 0
            assert row["cpu"] == row["device"]
            assert max(row["ratio"].values()) <= 1
            assert 0 < row["cpu"]["logits"] < 1e-5 and 0 < row["cpu"]["gradients"] < 1e-4
            assert row["free_run"]["cpu"]["loss"] == row["free_run"]["device"]["loss"]
            assert row["free_run"]["cpu"]["ms_per_step"] > 0
        assert ("scale gradients" in rows[0]["cpu"], "scale gradients" in rows[1]["cpu"]) == (True, False)
        assert "| Table 1 |" in result.output and "| yes |" in result.output

    def test_another_correct_algorithm_agrees(self, call, monkeypatch):
        """The released code's steps, which round differently."""
        self.of_the_device(monkeypatch, benchmark.as_released)
        result, (row,) = call("--case", "ss_cnn", "--probes", "4")
        assert result.exit_code == 0, result.output
        assert row["cpu"] != row["device"]

    @pytest.mark.parametrize("mistake", ["weights", "labels", "images"])
    def test_mistakes_are_found(self, call, monkeypatch, mistake):
        """Negative controls: all weights of a layer off by 1e-5, swapped outputs, batches that were made wrongly."""

        def change(net):
            forward, kind = net.forward, net.__class__
            shape = next(parameter.shape for parameter in net.parameters() if parameter.dim() == 4)

            def load_off(state):
                off = {name: value * (1 + 1e-5 * (value.shape == shape)) for name, value in state.items()}
                return kind.load_state_dict(net, off)

            if mistake == "weights":
                monkeypatch.setattr(net, "load_state_dict", load_off)
            elif mistake == "labels":
                monkeypatch.setattr(net, "forward", lambda images: forward(images).flip(1))
            return net

        self.of_the_device(monkeypatch, change)
        if mistake == "images":
            monkeypatch.setattr(agreement, "_changed_pixels", lambda images, there: 0.01)
        result, (row,) = call("--case", "cnn")
        assert result.exit_code == 1
        assert not row["agrees"] and "| **no** |" in result.output
        assert (row["pixels"] > agreement.ALLOWED_PIXELS) == (mistake == "images")

    def test_pixels(self):
        images = torch.rand(2, 1, 10, 10, dtype=torch.float64)
        there = images.float()
        assert agreement._changed_pixels(images, there) == 0
        there[0, 0, 0, :3] += 1 / 255
        assert agreement._changed_pixels(images, there) == pytest.approx(3 / 200)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--steps", "1000", "--batch", "11"], "at most 10,000 (the training images)"),
            (["--probes", "5"], "probes at most steps, got 4 x 4 and 5"),
            (["--device", "cuda"], "torch finds none"),
        ],
    )
    def test_bad_input(self, call, monkeypatch, options, message):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        result, rows = call(*options)
        assert (result.exit_code, rows) == (2, None)
        assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())
