"""The batch of notebooks: mistakes are found before anything runs, a failing notebook harms no other."""

import sys

import pytest

from scalestudy import files
from scalestudy.paper import notebooks

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("papermill")


def write(folder, name, *cells, parameters="epochs: int = 3  # passes\nprofile = 'quick'  # name"):
    first = nbformat.v4.new_code_cell(parameters)
    first.metadata["tags"] = ["parameters"] if parameters else []
    notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(files.ROOT_VARIABLE, str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "notebooks"


def test_selection(folder):
    for name in ("04_range", "05_learned", "05_other"):
        write(folder, name)
    assert [path.stem for path in notebooks.check([], {"epochs": 1})] == ["04_range", "05_learned", "05_other"]
    assert [path.stem for path in notebooks.check(["05", "05_o"], {})] == ["05_learned", "05_other"]
    assert [path.stem for path in notebooks.check(["04_range.ipynb"], {})] == ["04_range"]
    with pytest.raises(ValueError, match=r"notebook must be the beginning of one of 04_range, 05_learned, .* got '06'"):
        notebooks.check(["04", "06"], {})


def test_undeclared_parameter(folder):
    write(folder, "04_range")
    write(folder, "05_learned", parameters="epoch = 3\nprofile = 'quick'")
    message = r"unknown parameter 'epochs' for the notebook 05_learned, which does not declare it: did you mean epoch\?"
    with pytest.raises(ValueError, match=message):
        notebooks.check([], {"epochs": 1})
    write(folder, "05_learned", parameters="")
    with pytest.raises(ValueError, match=r"05_learned.ipynb declares no parameters; tag its cell"):
        notebooks.check([], {"epochs": 1})


def test_no_notebooks(folder):
    with pytest.raises(ValueError, match=r"no notebooks in .*SCALESTUDY_ROOT"):
        notebooks.check([], {})


def test_execution(folder, tmp_path):
    write(
        folder,
        "01_good",
        "import os\nprint(epochs, profile, os.path.basename(os.getcwd()), os.environ['TQDM_DISABLE'])",
    )
    write(folder, "02_bad", "print('before')", "answer = 6 / 0", "print('after')")
    told = []
    out = tmp_path / "results" / "notebooks"
    good, bad = notebooks.execute(
        notebooks.check([], {}), {"epochs": 7, "profile": "own"}, out, jobs=2, on_result=told.append
    )
    assert sorted(result.name for result in told) == ["01_good", "02_bad"]
    assert good.error is None
    assert good.output == out / "01_good.ipynb"
    assert "7 own notebooks 1" in good.output.read_text()
    assert "cell In [4] failed with ZeroDivisionError: division by zero\n  answer = 6 / 0" in bad.error
    text = bad.output.read_text()
    assert "before" in text
    assert "ZeroDivisionError" in text
    assert {path.name for path in out.iterdir()} == {"01_good.ipynb", "02_bad.ipynb"}


def test_jobs(folder, tmp_path):
    with pytest.raises(ValueError, match=r"jobs must be at least 1 notebook at a time, got 0"):
        notebooks.execute([], {}, tmp_path, jobs=0)


def test_without_papermill(folder, monkeypatch):
    write(folder, "01_good")
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(RuntimeError, match=r"needs papermill; pip install 'scalestudy\[notebooks\]'"):
        notebooks.check([], {})


def test_an_unchanged_notebook_is_not_executed_again(folder, tmp_path):
    write(folder, "01_good", "print(epochs)")
    (source,), out = notebooks.check([], {"epochs": 1}), tmp_path / "out"

    def executed(parameters, records):
        (result,) = notebooks.execute([source], parameters, out, records=records)
        assert result.error is None
        return result.executed

    assert executed({"epochs": 1}, {source: []})
    assert not executed({"epochs": 1}, {source: []})
    assert executed({"epochs": 2}, {source: []})
    write(folder, "01_good", "print(epochs + 1)")
    assert executed({"epochs": 2}, {source: []})
    measured = tmp_path / "results" / "benchmarks" / "scale_convolution.json"
    measured.parent.mkdir(parents=True)
    measured.write_text("{}")
    assert executed({"epochs": 2}, {source: []}), "notebook 09 reads the measurements of cost"
    assert not executed({"epochs": 2}, {source: []})
    assert executed({"epochs": 2}, None), "without records nothing is known about freshness"
    assert executed({"epochs": 2}, {source: []}), "the last execution left no mark"
    (out / "01_good.ipynb").write_text("{")
    assert executed({"epochs": 2}, {source: []})


def test_relative_folders_mean_the_same_place_for_the_kernel(folder, tmp_path, monkeypatch):
    write(
        folder,
        "01_good",
        "from scalestudy import paths\nassert str(files.runs()) == expected",
        parameters="expected = ''",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(files.RUNS_VARIABLE, "records")
    (source,) = notebooks.check([], {"expected": ""})
    (result,) = notebooks.execute([source], {"expected": str(tmp_path.resolve() / "records")}, tmp_path / "out")
    assert result.error is None
