"""Paths do not depend on the working folder, and asking for one creates nothing."""

from pathlib import Path

import pytest

from scalestudy import paths

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.delenv(paths.ROOT_VARIABLE, raising=False)
    monkeypatch.delenv(paths.RUNS_VARIABLE, raising=False)


def test_the_checkout_from_any_working_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "checkout" / "scalestudy" / "paths.py"))
    (tmp_path / "checkout" / "notebooks").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "checkout" / "notebooks"):
        monkeypatch.chdir(folder)
        assert paths.project() == tmp_path / "checkout"


def test_current_folder_without_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "site-packages" / "scalestudy" / "paths.py"))
    monkeypatch.chdir(tmp_path)
    assert paths.project() == tmp_path


def test_environment_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv(paths.ROOT_VARIABLE, str(tmp_path))
    assert paths.project() == tmp_path
    assert paths.notebooks() == tmp_path / "notebooks"
    assert paths.params("quick") == tmp_path / "params" / "quick.yaml"
    assert paths.results("quick") == tmp_path / "results" / "quick"
    assert paths.runs() == tmp_path / "results" / "runs"
    assert paths.benchmarks() == tmp_path / "results" / "benchmarks"
    assert paths.summary() == tmp_path / "results" / "summary.csv"
    monkeypatch.setenv(paths.RUNS_VARIABLE, str(tmp_path / "elsewhere"))
    assert paths.runs() == tmp_path / "elsewhere"
    assert paths.summary() == tmp_path / "elsewhere" / "summary.csv"
    assert list(tmp_path.iterdir()) == []


def test_environment_that_names_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv(paths.ROOT_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"SCALESTUDY_ROOT must name the project's folder, got .*missing.* unset"):
        paths.project()


@pytest.mark.parametrize("profile", ["", "../quick", "a/b", ".hidden"])
def test_profile_that_is_no_plain_name(profile):
    with pytest.raises(ValueError, match=r"profile must be a plain name .* got .*without its .yaml"):
        paths.params(profile)
