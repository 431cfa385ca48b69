"""The benchmark runs, and tells what it measured."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "training_cost.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("training_cost", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def test_one_case(benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "machine_rates", lambda: {"gigaflops": 1.0, "copied_gigabytes_per_second": 2.0})
    output = tmp_path / "new" / "cost.json"
    options = ["--system", "cnn", "--batch", "2", "--batch", "3", "--repeats", "1", "--released-up-to", "2"]
    result = CliRunner().invoke(benchmark.main, [*options, "--output", str(output)], catch_exceptions=False)
    assert result.exit_code == 0
    first, second = json.loads(output.read_text())["rows"]
    assert (first["system"], first["batch"], second["batch"]) == ("cnn", 2, 3)
    assert first["released_ms"] > 0 and "released_ms" not in second
    page = output.with_suffix(".md").read_text().splitlines()
    assert page[2].startswith("| system | batch | ours |") and page[4].startswith("| CNN | 2 |") and len(page) == 6


def test_released_algorithms_everywhere(benchmark) -> None:
    """Each layer that has a choice takes the released steps, and the network computes the same."""
    for name in ("ours_isr", "ss_cnn"):
        torch.manual_seed(0)
        net = benchmark.build(name).eval()
        images = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            fast = net(images)
            released = benchmark.as_released(net)(images)
        algorithms = [module.algorithm for module in net.modules() if hasattr(module, "algorithm")]
        assert len(algorithms) == 3 and set(algorithms) <= {"dense", "direct"}
        torch.testing.assert_close(fast, released, rtol=1e-4, atol=1e-5)


def test_authors_figures_are_of_systems(benchmark) -> None:
    assert set(benchmark.AUTHORS_MS) < set(benchmark.SYSTEMS)
