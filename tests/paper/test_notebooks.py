"""What the notebooks promise besides their numbers, which nbval compares."""

import importlib.util
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import matplotlib as mpl
import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure

from scalestudy import files
from scalestudy.models.systems import SYSTEMS
from scalestudy.paper.study import NOTEBOOK_GROUPS, Study
from scalestudy.training.record import Record
from scalestudy.training.train import train

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def source(path):
    return "\n".join(cell.source for cell in code_cells(path))


def test_every_question_has_its_notebook():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(14)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestEach:
    def test_was_run_from_top_to_bottom_without_error_or_warning(self, path):
        """nbval never compares a cell that was not run."""
        counts = [cell.execution_count for cell in code_cells(path) if cell.source.strip()]
        assert counts == list(range(1, len(counts) + 1))
        for cell in code_cells(path):
            assert not [one for one in cell.outputs if one.output_type == "error" or one.get("name") == "stderr"]

    def test_shows_every_figure_and_table(self, path):
        """nbval skips pictures, so a figure that is no longer shown would pass unseen."""
        for cell in code_cells(path):
            kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
            last = cell.source.splitlines()[-1]
            assert "image/png" in kinds or not last.startswith("save_figure("), last
            assert "text/html" in kinds or not last.startswith(("save_table(", "Shown(")), last

    def test_has_the_common_parameters(self, path):
        (cell,) = (cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", []))
        first, second = cell.source.splitlines()
        assert first.startswith('profile: str = "overnight"  # ') and second.startswith("changes: dict = {}  # ")
        assert source(path).count("study = Study.open(profile, changes)\n") == 1

    def test_is_plain(self, path):
        """Short cells, no class, no edited path, the kernel that every installation has."""
        assert max(len(cell.source.splitlines()) for cell in code_cells(path)) <= 25
        assert not re.search(r"^\s*class |sys\.path|%cd|os\.chdir", source(path), re.MULTILINE)
        assert nbformat.read(path, as_version=4).metadata.kernelspec.name == "python3"


def test_groups_of_runs_are_those_that_the_notebooks_ask_for():
    """`scalestudy reproduce --notebook 05` trains what notebook 05 reads."""
    for path in NOTEBOOKS:
        asked = set(re.findall(r"study\.read\(\"(\w+)\"\)", source(path)))
        if "study.read()" in source(path):
            asked = {"figure3", "table2", "table3", "table4", "eq5_as_printed", "table5"}
        assert asked <= set(NOTEBOOK_GROUPS.get(path.stem[:2], ())), path.stem


def test_a_committed_record_can_be_trained_again():
    """One of the profile quick, made before anything was rewritten.  Rounding differs, which training amplifies."""
    record = Record.model_validate_json((ROOT / "tests" / "reference" / "quick_run.json").read_text())
    assert record.spec in Study.open("quick").table2()
    committed, again = record.metrics, train(record.spec).metrics
    assert again.train_loss_history[0] == pytest.approx(committed.train_loss_history[0], rel=0.02)
    assert again.internal_scales_history[1] == pytest.approx(committed.internal_scales_history[1], rel=0.02)
    assert again.test_error == pytest.approx(committed.test_error, abs=4.0)


def test_papermill_alone_runs_a_notebook_in_any_folder_with_an_empty_store(tmp_path, monkeypatch):
    """Trains for real, a few images each; results of other sizes do not go to the profile's own folder."""
    for name in ("RUNS", "RESULTS"):
        monkeypatch.setenv(f"SCALESTUDY_{name}", str(tmp_path / name.lower()))
    tiny = {
        "train_images": 64, "validation_images": 32, "test_images": 32, "scale_test_images": 4, "epochs": 2,
        "isrs": [1.5, 3.0], "scale_test_isrs": [3.0], "seeds": [0],
    }  # fmt: skip
    notebook = ROOT / "notebooks" / "04_internal_scale_range.ipynb"
    told = ["-y", json.dumps({"profile": "quick", "changes": tiny}), "--log-level", "ERROR"]
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", *told]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "runs").glob("*.json"))) == 4
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["quick-custom"]
    assert (tmp_path / "results" / "quick-custom" / "figures" / "figure3.png").stat().st_size > 10_000
    assert all(cell.execution_count for cell in code_cells(tmp_path / "out.ipynb"))


@pytest.fixture(scope="module")
def nbval_conftest():
    spec = importlib.util.spec_from_file_location("nbval_conftest", ROOT / "notebooks" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_regression_uses_folders_of_its_own(nbval_conftest, monkeypatch, request):
    for name in ("ROOT", "RUNS", "RESULTS"):
        monkeypatch.setenv(f"SCALESTUDY_{name}", "/mine")
    monkeypatch.setitem(sys.modules, "nbval.plugin", None)
    cleanups = []
    nbval_conftest.pytest_configure(types.SimpleNamespace(add_cleanup=cleanups.append))
    results = files.results("quick").parent
    assert (files.runs(), files.project()) == (results / "runs", ROOT) and not files.runs().exists()
    assert results.is_dir() and not results.is_relative_to(ROOT)
    cleanups[0]()
    assert not results.exists()


@pytest.mark.parametrize(
    ("reference", "new", "same"),
    [
        ("tau: 0.4590", "tau: 0.45901", True), ("a  1.00000\nb 2.5", "a 1.00001\nb  2.5", True),
        ("-0.0000001", "0.0000001", True), ("tau: 0.4590", "tau: 0.4600", False),
        ("tau: 0.459", "mu: 0.459", False), ("3 runs", "4 runs", False), ("1.5 2.5", "1.5", False),
    ],
)  # fmt: skip
def test_rounding_passes_and_changes_do_not(nbval_conftest, reference, new, same):
    assert (nbval_conftest.Approximate(reference) == nbval_conftest.Approximate(new)) == same


def test_any_number_of_systems_fits_into_a_panel():
    """More variants than the cycle has styles, and the CNN, which stands in every panel."""
    cells, there = [cell.source for cell in code_cells(ROOT / "notebooks" / "08_baselines.ipynb")], {}
    variants = {f"variant {number}": SYSTEMS["single_scale"] for number in range(9)}
    with mpl.rc_context():
        for part in ("import textwrap", "def system_lines("):
            exec(next(cell for cell in cells if part in cell), there)
        there["SYSTEMS"] = {"cnn": SYSTEMS["cnn"], **variants}
        means = pd.Series(1.0, index=pd.MultiIndex.from_product([there["SYSTEMS"], [0.5, 1.0]]))
        axes = Figure().add_subplot()
        there["system_lines"](axes, means, SYSTEMS["single_scale"].panel)
    assert len(axes.get_legend_handles_labels()[1]) == 10
