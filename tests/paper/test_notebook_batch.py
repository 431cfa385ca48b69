"""The batch of notebooks: mistakes are found before anything runs, a failing notebook harms no other."""

import json
import os
import sys

import pytest

from scalestudy import files
from scalestudy.paper import notebooks

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("papermill")
DECLARED = "profile: str = 'quick'  # name\nchanges: dict = {}  # by name"
PARAMETERS = {"profile": "own", "changes": {"epochs": 7}}


def write(folder, name, *cells, parameters=DECLARED):
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture(params=["plain", "{profile} braces"])
def project(tmp_path, monkeypatch, request):
    root = tmp_path / request.param
    (root / "notebooks").mkdir(parents=True)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "foreign"))
    monkeypatch.setenv(files.ROOT_VARIABLE, str(root))
    return root


@pytest.fixture
def folder(project):
    return project / "notebooks"


def execute(paths, out, inputs=None):
    told = []
    results = notebooks.execute(paths, PARAMETERS, out, jobs=2, inputs=inputs, on_result=told.append)
    assert sorted(told) == results
    return results


@pytest.mark.parametrize("project", ["plain"], indirect=True)
def test_selection(folder, monkeypatch):
    with pytest.raises(ValueError, match=r"no notebooks in .*SCALESTUDY_ROOT"):
        notebooks.check([], PARAMETERS)
    for name in ("04_range", "05_learned", "05_other"):
        write(folder, name)
    for names, found in (([], ["04_range", "05_learned", "05_other"]), (["05", "05_o"], ["05_learned", "05_other"])):
        assert [path.stem for path in notebooks.check(names, PARAMETERS)] == found
    with pytest.raises(ValueError, match=r"notebook must be the beginning of one of 04_range, 05_learned, .* got '06'"):
        notebooks.check(["04", "06"], PARAMETERS)
    write(folder, "06_short", parameters="profile = 'quick'")
    with pytest.raises(ValueError, match=r"the notebook 06_short must declare the parameters changes; add"):
        notebooks.check([], PARAMETERS)
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(RuntimeError, match=r"need papermill; pip install 'scalestudy\[notebooks\]'"):
        notebooks.check([], PARAMETERS)


def test_execution(project, folder, monkeypatch, tmp_path):
    """In a folder with braces or not; kernels run the command's interpreter and know the command's folders."""
    foreign = tmp_path / "foreign" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/no/such/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "x"}
    (foreign / "kernel.json").write_text(json.dumps(spec | {"language": "python"}))
    monkeypatch.setenv("TMPDIR", str(project / ("long" * 25)))
    os.mkdir(os.environ["TMPDIR"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(files.RUNS_VARIABLE, "records")
    said = "import os, sys; from scalestudy import files\nprint(profile, changes, os.path.basename(os.getcwd()), "
    write(folder, "01_good", said + "sys.executable, files.runs())")
    write(folder, "02_bad", "print('before')", "answer = 6 / 0", "print('after')")
    out = project / "results" / "notebooks"
    good, bad = execute(notebooks.check([], PARAMETERS), out)
    assert good.error is None and good.executed
    told = nbformat.read(out / "01_good.ipynb", 4).cells[-1].outputs[0].text
    assert told == f"own {{'epochs': 7}} notebooks {sys.executable} {tmp_path.resolve() / 'records'}\n"
    assert "cell In [4] failed with ZeroDivisionError: division by zero\n  answer = 6 / 0" in bad.error
    text = (out / "02_bad.ipynb").read_text()
    assert "before" in text and "ZeroDivisionError" in text
    assert {path.name for path in out.iterdir()} == {"01_good.ipynb", "02_bad.ipynb"}
    assert notebooks.is_of(out / "01_good.ipynb", PARAMETERS) and not notebooks.is_of(out / "02_bad.ipynb", PARAMETERS)


@pytest.mark.parametrize("project", ["plain"], indirect=True)
def test_an_unchanged_notebook_is_not_executed_again(project, folder, tmp_path):
    path, out, record = write(folder, "01_good", "print(changes)"), tmp_path / "out", tmp_path / "record.json"
    record.write_text("")
    measured = project / "results" / "benchmarks" / "scale_convolution.json"
    measured.parent.mkdir(parents=True)
    (result,) = execute([path], out, [record])
    assert result.executed and result.error is None
    copy = out / path.name
    (result,) = execute([path], out, [record])
    assert not result.executed
    assert notebooks.is_fresh(copy, PARAMETERS, [path, record])
    assert not notebooks.is_fresh(copy, PARAMETERS | {"changes": {}}, [path, record])
    for changed in (path, record, measured):
        changed.touch()
        assert not notebooks.is_fresh(copy, PARAMETERS, [path, record]), changed
        os.utime(changed, (0, 0))
        assert notebooks.is_fresh(copy, PARAMETERS, [path, record])
    text = copy.read_text()
    for broken in ("{", text.replace('"exception": null', '"exception": true')):
        copy.write_text(broken)
        assert broken != text and not notebooks.is_fresh(copy, PARAMETERS, [])
