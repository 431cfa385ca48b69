"""The command line: quick help, errors without tracebacks, and the exit codes."""

import logging
import shutil
import signal
import sys
import types
import warnings

import nbformat
import pytest
from batches import ROOT, gone, process_of, wait_until
from click.testing import CliRunner
from fake_training import keep, record_of, spec_of
from loopback import Cluster

from scalestudy import cli, files
from scalestudy.paper import notebooks
from scalestudy.paper.study import Study
from scalestudy.runs.store import RunStore
from scalestudy.training.spec import RunSpec

SMALL = [
    "-p", "seeds=[0]", "-p", "isrs=[1.5]", "-p", "scale_test_isrs=[1.5]", "-p", "initial_isrs=[3]",
    "-p", "initial_sigmas=[2]", "-p", "initialisation_seeds=[0]", "-p", "ranges=[[1, 2.83], [1, 4.76], [1, 8]]",
    "-p", "baseline_models=[]",
]  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with the profiles, training of milliseconds, and MNIST that is always there."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    monkeypatch.setenv(files.ROOT_VARIABLE, str(tmp_path))
    monkeypatch.delenv(files.RUNS_VARIABLE, raising=False)
    monkeypatch.setattr("scalestudy.runs.batch.DEFAULT_TRAIN", "fake_training:quick")
    monkeypatch.setattr("scalestudy.data.fetch_mnist", lambda *_: tmp_path / "mnist")
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(cli.main, arguments)


def told(*arguments, code=0):
    """What a command says that ends with this exit code, and without a traceback."""
    result = call(*arguments)
    assert (result.exit_code, "Traceback" in result.output) == (code, False), result.output
    return result.output


def test_help_of_every_command_and_version():
    commands = ["reproduce", "run", "status", "merge", "data", "report"]
    assert all(command in told("--help") for command in commands)
    for command in [*([command] for command in commands), ["data", "fetch"], ["data", "verify"]]:
        assert "Usage:" in told(*command, "--help")
    assert "results/PROFILE-custom" in " ".join(told("report", "--help").split())
    assert told("--version").startswith("scalestudy ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--profile", "qick"], "Error: profile must be one of overnight, paper, quick, got 'qick'"),
        (["run", "--param", "epocs=1"], "did you mean epochs?"),
        (["run", "--param", "epochs"], "a parameter must be written name=value, got 'epochs'"),
        (["run", "--filter", "table9"], "filter must match a group (table2, "),
        (["run", "--time-budget", "soon"], "a duration must be more than 0"),
        (["run", "--workers", "-1"], "Invalid value for '--workers'"),
        (["run", "--device", "tpu"], "Invalid value for '--device'"),
        (["status", "--profile", "../x"], "profile must be a plain name"),
        (["report", "--profile", "qick"], "profile must be one of"),
        (["reproduce"], "no notebooks in"),
        (["merge", "missing"], "does not exist"),
    ],
)
def test_bad_input_ends_with_code_2(project, arguments, message):
    assert message in told(*arguments, code=2)
    assert not (project / "results").exists()


def test_traceback_on_demand(project):
    assert "Traceback" in call("--traceback", "run", "--profile", "qick").output


def test_run_then_status_then_run_again(project):
    assert "15 of 15 to train" in told("run", *SMALL, "--dry-run")
    assert not (project / "results").exists()
    assert "15 runs: 0 read, 15 trained; 0 failed" in told("run", *SMALL, "--workers", "1")
    assert len((files.runs() / "summary.csv").read_text().splitlines()) == 16
    assert "9 runs: 9 read, 0 trained" in told("run", *SMALL, "--filter", "table4")
    next(files.runs().glob("*.json")).write_text("{")
    status = told("status", *SMALL)
    assert f"14 records in {files.runs()}" in status and "14 of   15 stored" in status
    assert status.count("damaged: ") == 1 and "Warning" not in status
    damaged = next(files.runs().glob("*.json"))
    damaged.write_text("{")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        told_of = told("run", *SMALL, "--workers", "1")
    assert f"\nWarning: {damaged.name}: record: Invalid JSON" in f"\n{told_of}"
    assert "15 runs: 13 read, 2 trained" in told_of


def test_status_names_a_damaged_file_that_cannot_be_moved(project):
    files.runs().mkdir(parents=True)
    (files.runs() / "damaged").write_text("a file where the folder should be")
    (files.runs() / "0123456789abcdef.json").write_text("{")
    status = told("status", *SMALL)
    assert status.count("damaged: 0123456789abcdef.json: record: Invalid") == 1 and "Warning" not in status


def test_committed_records_are_counted_and_read(project):
    for spec in Study.open("quick", SMALL[1::2]).table2():
        RunStore(files.records()).put(record_of(spec))
    status = told("status", *SMALL)
    assert f"3 records in {files.runs()} and {files.records()}\n" in status
    assert "table2                  3 of    3 stored" in status
    assert told("run", *SMALL, "--filter", "table2", "--dry-run").count(" stored ") == 3
    assert "3 runs: 3 read, 0 trained" in told("run", *SMALL, "--filter", "table2")
    assert len((files.runs() / "summary.csv").read_text().splitlines()) == 4 and not list(files.runs().glob("*.json"))


def test_runs_under_way_are_shown(project):
    """One of this profile, and one of another that other code has kept."""
    ours, other = next(s for s in Study.open("quick").all_specs() if s.model == "table1"), RunSpec.baseline("cnn")
    keep(RunStore(files.runs()), ours, 2, 6)
    keep(RunStore(files.runs()), other, 2, 60, code="another")
    status, dry = told("status"), told("run", "--dry-run")
    assert f"under way: {ours.key}: 2 of 6 epochs, {ours.label}\n" in status
    assert f"{other.key}: 2 of 60 epochs, not of this profile (kept by other code: it will start again)\n" in status
    assert f"{ours.label} (29% done)\n" in dry and dry.count("% done)") == 1


def test_runs_of_a_system(project):
    assert "6 of 6 to train" in told("run", "--profile", "paper", "--filter", "MNIST-Scale, sesn", "--dry-run")
    for options, count in ((["--filter", "sesn|disco"], 2), (["--filter", "table5", "-p", "baseline_models=[dss]"], 1)):
        assert f"{count} runs: 0 read, {count} trained; 0 failed" in told("run", *options, "--workers", "1")
    assert "table5                  3 of   11 stored" in told("status")
    for flag, shown in (("true", True), ("false", False)):
        assert ("MNIST-Scale+" in told("run", "--dry-run", "-p", f"baseline_augmented={flag}")) == shown


def test_failed_runs_end_with_code_1(project, monkeypatch):
    monkeypatch.setattr("scalestudy.runs.batch.DEFAULT_TRAIN", "fake_training:troubled")
    result = call("run", *SMALL, "-p", "seeds=[1]", "--filter", "table2", "--workers", "1")
    assert (result.exit_code, "3 failed" in result.output) == (1, True)
    assert "ArithmeticError: the loss of seed 1" in result.output


@pytest.mark.parametrize(
    ("variable", "command"),
    [(files.RUNS_VARIABLE, "run"), (files.RESULTS_VARIABLE, "report"), (files.RESULTS_VARIABLE, "reproduce")],
)
def test_folder_that_cannot_be_written_ends_with_code_1_before_anything_runs(project, monkeypatch, variable, command):
    write_notebook(project / "notebooks" / "07_parameterisation.ipynb")
    (project / "file").write_text("")
    monkeypatch.setenv(variable, str(project / "file" / "below"))
    message = told(command, *SMALL, code=1)
    assert f"Error: cannot write to the folder {project / 'file' / 'below'}" in message and variable in message
    assert not (project / "results").exists()


def test_time_budget(project):
    RunStore(files.runs()).put(record_of(spec_of(0), seconds=1e6))  # from which the others are foreseen
    assert "15 left out by the time budget" in told("run", *SMALL, "--time-budget", "1s", "--device", "cpu")


def test_merge(project, tmp_path):
    other = RunStore(tmp_path / "other")
    other.put(record_of(spec_of(0)))
    other.put(record_of(spec_of(1))).write_text("{")
    text = told("merge", str(other.folder), code=1)
    assert "1 copied to" in text and f"{spec_of(1).key}.json: " in text
    assert (files.runs() / "summary.csv").exists()


def test_data(project, monkeypatch, caplog):
    states = [types.SimpleNamespace(name="train", status="ok", path=None)]
    monkeypatch.setattr("scalestudy.data.verify_mnist", lambda *_: states)
    source = logging.getLogger("scalestudy.data.mnist")
    monkeypatch.setattr("scalestudy.data.fetch_mnist", lambda *_: source.info("from a mirror") or "mnist")
    assert "mnist is complete in mnist" in told("data", "fetch")
    assert caplog.messages == ["from a mirror"]
    told("data", "verify")
    states.append(types.SimpleNamespace(name="test", status="damaged", path="somewhere"))
    assert "damaged  test  somewhere" in told("data", "verify", code=1)


@pytest.fixture
def one_notebook(project, monkeypatch):
    """The project's one notebook, whose execution is faked: what was to be executed, and the error to report."""
    write_notebook(project / "notebooks" / "07_parameterisation.ipynb")
    done = []

    def execute(selected, parameters, folder, *, jobs, inputs, on_result):
        done.append(([path.stem for path in selected], parameters["changes"].get("epochs"), folder, jobs))
        result = notebooks.NotebookResult("07_parameterisation", 1.0, error[0])
        on_result(result)
        return [result]

    error = [None]
    monkeypatch.setattr(notebooks, "execute", execute)
    card = types.SimpleNamespace(text=lambda: "the scorecard")
    report = types.SimpleNamespace(
        build=lambda profile, changes: (project / f"{Study.open(profile, changes).profile}.html", card)
    )
    monkeypatch.setitem(sys.modules, "scalestudy.paper.report", report)
    return done, error


def test_reproduce(project, one_notebook):
    """The order of things: check, MNIST, runs, notebooks, report; and a failing notebook ends with code 1."""
    done, error = one_notebook
    text = told("reproduce", *SMALL, "-p", "epochs=4", "--workers", "1", "--jobs", "2")
    assert done == [(["07_parameterisation"], "4", files.results("quick-custom") / "notebooks", 2)]
    assert "9 runs: 0 read, 9 trained" in text and "the scorecard" in text
    assert f"report: {project / 'quick-custom.html'}" in text
    error[0] = "cell In [3] failed"
    assert "07_parameterisation: cell In [3] failed" in told("reproduce", *SMALL, "--workers", "1", code=1)
    told("reproduce", "--notebook", "08", code=2)


def test_commands_on_a_cluster(project, one_notebook, tmp_path, monkeypatch):
    """Only `reproduce`, whose notebooks look at the digits, needs MNIST on this machine."""
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.add("a")
        cluster.wait_for(1)
        with monkeypatch.context() as patch:
            patch.setattr("scalestudy.data.fetch_mnist", lambda *_: pytest.fail("workers see to their own data"))
            text = told("run", *SMALL, "--filter", "table4", "--scheduler", str(cluster.file))
        assert "9 runs: 0 read, 9 trained; 0 failed" in text
        assert len((files.runs() / "summary.csv").read_text().splitlines()) == 10
        assert "9 read, 0 trained" in told("reproduce", *SMALL, "--scheduler", cluster.address)
        told("run", "--workers", "2", "--scheduler", cluster.address, code=2)
    assert len(list((tmp_path / "cluster" / "a").glob("*.json"))) == 9


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_signals_end_the_kernels_too(project, tmp_path, number, code):
    write_notebook(
        project / "notebooks" / "01_long.ipynb",
        "import os, pathlib, time\n"
        "pathlib.Path('new').write_text(str(os.getpid()))\n"
        f"pathlib.Path('new').rename({str(tmp_path / 'kernel')!r})\n"
        "time.sleep(300)",
    )
    with process_of("reproduce") as process:
        wait_until((tmp_path / "kernel").exists)
        process.send_signal(number)
        _, error = process.communicate(timeout=300)
        wait_until(lambda: gone(int((tmp_path / "kernel").read_text())))
    assert process.returncode == code, error
    assert error.count("Interrupted; finished runs are stored") == (number == signal.SIGTERM), error
    assert "Traceback" not in error
    assert {path.name for path in (files.results("quick") / "notebooks").iterdir()} <= {"01_long.ipynb"}


def write_notebook(path, *cells):
    first = nbformat.v4.new_code_cell("profile = 'quick'\nchanges = {}", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
