"""What the notebooks promise besides their numbers, which nbval compares."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from scalestudy.paper import params
from scalestudy.paper.grids import NOTEBOOK_GROUPS, Study
from scalestudy.runs.store import RunStore
from scalestudy.training.train import train

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RECORDS = ROOT / "tests" / "records"


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def source(path):
    return "\n".join(cell.source for cell in code_cells(path))


def test_every_question_has_its_notebook():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(10)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestEach:
    def test_was_run_from_top_to_bottom(self, path):
        """nbval never compares a cell that was not run."""
        counts = [cell.execution_count for cell in code_cells(path) if cell.source.strip()]
        assert counts == list(range(1, len(counts) + 1))

    def test_holds_no_error_and_no_warning(self, path):
        outputs = [output for cell in code_cells(path) for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]

    def test_shows_every_figure_and_table(self, path):
        """nbval skips pictures, so a figure that is no longer shown would pass unseen."""
        for cell in code_cells(path):
            kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
            last = cell.source.splitlines()[-1]
            assert "image/png" in kinds or not last.startswith("save_figure("), last
            assert "text/html" in kinds or not last.startswith(("save_table(", "Shown(")), last

    def test_has_the_common_parameters_cell(self, path):
        cells = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
        assert len(cells) == 1
        assert cells[0].source == self.parameters(NOTEBOOKS[0])

    @staticmethod
    def parameters(path):
        return next(cell.source for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", []))

    def test_defaults_are_the_quick_profile(self, path):
        values = {}
        exec(self.parameters(path), {}, values)
        values.pop("__annotations__", None)
        assert values == yaml.safe_load((ROOT / "params" / "quick.yaml").read_text())

    def test_each_parameter_says_type_and_meaning(self, path):
        for line in self.parameters(path).splitlines():
            assert re.fullmatch(r"\w+: (str|int|bool|list) = .+  # .+", line)

    def test_defines_no_class_and_edits_no_path(self, path):
        assert not re.search(r"^\s*class |sys\.path|%cd|os\.chdir", source(path), re.MULTILINE)

    def test_uses_the_plain_kernel_name(self, path):
        assert nbformat.read(path, as_version=4).metadata.kernelspec.name == "python3"


def test_groups_of_runs_are_those_that_the_notebooks_ask_for():
    """`scalestudy reproduce --notebook 05` trains what notebook 05 reads."""
    for path in NOTEBOOKS:
        asked = set(re.findall(r"study\.(figure\d|table\d|eq5_as_printed)\(\)", source(path)))
        if "study.all_specs()" in source(path):
            asked = {"figure3", "table2", "table3", "table4", "eq5_as_printed", "table5"}
        assert asked <= set(NOTEBOOK_GROUPS.get(path.stem[:2], ())), path.stem


def test_committed_records_serve_every_run_of_the_quick_profile():
    specs = Study(params.load("quick")).all_specs()
    store = RunStore(RECORDS)
    assert [spec.label for spec in specs if store.get(spec) is None] == []
    assert len(store.keys()) == len(specs)


def test_a_committed_record_can_be_trained_again():
    """The other leg: without records.  Instruction sets differ in rounding, which training amplifies."""
    spec = Study(params.load("quick")).table2()[-1]
    committed, again = RunStore(RECORDS).get(spec).metrics, train(spec).metrics
    assert again.train_loss_history[0] == pytest.approx(committed.train_loss_history[0], rel=0.02)
    assert again.internal_scales_history[1] == pytest.approx(committed.internal_scales_history[1], rel=0.02)
    assert again.test_error == pytest.approx(committed.test_error, abs=4.0)


def test_papermill_alone_runs_a_notebook_in_any_folder_with_an_empty_store(tmp_path, monkeypatch):
    """Trains for real, a few images each."""
    for name in ("RUNS", "RESULTS"):
        monkeypatch.setenv(f"SCALESTUDY_{name}", str(tmp_path / name.lower()))
    tiny = {
        "train_images": 64, "validation_images": 32, "test_images": 32, "scale_test_images": 4, "epochs": 2,
        "isrs": [1.5, 3.0], "scale_test_isrs": [3.0], "seeds": [0],
    }  # fmt: skip
    sizes = yaml.safe_load((ROOT / "params" / "quick.yaml").read_text()) | tiny
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(sizes))
    notebook = ROOT / "notebooks" / "04_internal_scale_range.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "-f", "tiny.yaml", "--log-level", "ERROR"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "runs").glob("*.json"))) == 6
    assert (tmp_path / "results" / "quick" / "figures" / "figure3.png").stat().st_size > 10_000
    out = json.loads((tmp_path / "out.ipynb").read_text())
    assert all(cell.get("execution_count") for cell in out["cells"] if cell["cell_type"] == "code")


@pytest.fixture(scope="module")
def approximate():
    spec = importlib.util.spec_from_file_location("nbval_conftest", ROOT / "notebooks" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Approximate


class TestComparison:
    @pytest.mark.parametrize(
        ("reference", "new"),
        [("tau: 0.4590", "tau: 0.45901"), ("a  1.00000\nb 2.5", "a 1.00001\nb  2.5"), ("-0.0000001", "0.0000001")],
    )
    def test_rounding_passes(self, approximate, reference, new):
        assert approximate(reference) == approximate(new)

    @pytest.mark.parametrize(
        ("reference", "new"),
        [("tau: 0.4590", "tau: 0.4600"), ("tau: 0.459", "mu: 0.459"), ("3 runs", "4 runs"), ("1.5 2.5", "1.5")],
    )
    def test_changes_do_not(self, approximate, reference, new):
        assert approximate(reference) != approximate(new)
