"""Paths do not depend on the working folder, and asking for one creates nothing."""

from pathlib import Path

import pytest

from scalestudy import files

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.delenv(files.ROOT_VARIABLE, raising=False)
    monkeypatch.delenv(files.RUNS_VARIABLE, raising=False)


def test_the_checkout_from_any_working_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "__file__", str(tmp_path / "checkout" / "scalestudy" / "files.py"))
    (tmp_path / "checkout" / "notebooks").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "checkout" / "notebooks"):
        monkeypatch.chdir(folder)
        assert files.project() == tmp_path / "checkout"


def test_current_folder_without_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "__file__", str(tmp_path / "site-packages" / "scalestudy" / "files.py"))
    monkeypatch.chdir(tmp_path)
    assert files.project() == tmp_path


def test_environment_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv(files.ROOT_VARIABLE, str(tmp_path))
    assert files.project() == tmp_path
    assert files.notebooks() == tmp_path / "notebooks"
    assert files.params("quick") == tmp_path / "params" / "quick.yaml"
    assert files.results("quick") == tmp_path / "results" / "quick"
    assert files.runs() == tmp_path / "results" / "runs"
    assert files.benchmarks() == tmp_path / "results" / "benchmarks"
    assert files.summary() == tmp_path / "results" / "summary.csv"
    monkeypatch.setenv(files.RUNS_VARIABLE, str(tmp_path / "elsewhere"))
    assert files.runs() == tmp_path / "elsewhere"
    assert files.summary() == tmp_path / "elsewhere" / "summary.csv"
    assert list(tmp_path.iterdir()) == []


def test_environment_that_names_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv(files.ROOT_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"SCALESTUDY_ROOT must name the project's folder, got .*missing.* unset"):
        files.project()


@pytest.mark.parametrize("profile", ["", "../quick", "a/b", ".hidden"])
def test_profile_that_is_no_plain_name(profile):
    with pytest.raises(ValueError, match=r"profile must be a plain name .* got .*without its .yaml"):
        files.params(profile)
