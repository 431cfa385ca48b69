"""Paths do not depend on the working folder, and asking creates nothing; files are there whole or not at all."""

import errno
import os
import time
from unittest.mock import Mock

import pytest

from scalestudy import files


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for variable in (files.ROOT_VARIABLE, files.RUNS_VARIABLE, files.RESULTS_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("checkout", [True, False])
def test_the_checkout_from_any_working_folder_else_that_folder(checkout, monkeypatch, tmp_path):
    """What else lies beside the package, in site-packages for example, does not make a checkout of it."""
    place = tmp_path / "place"
    monkeypatch.setattr(files, "__file__", str(place / "scalestudy" / "files.py"))
    for folder in ("notebooks", "params"):
        (place / folder).mkdir(parents=True)
    (place / "pyproject.toml").touch()
    if checkout:
        (place / "params" / "quick.yaml").touch()
    for folder in (tmp_path, place / "notebooks"):
        monkeypatch.chdir(folder)
        assert files.project() == (place if checkout else folder)


def test_environment_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv(files.ROOT_VARIABLE, str(tmp_path))
    assert files.project() == tmp_path
    assert files.notebooks() == tmp_path / "notebooks"
    assert files.params("quick") == tmp_path / "params" / "quick.yaml"
    assert files.results("quick") == tmp_path / "results" / "quick"
    assert (files.runs(), files.benchmarks()) == (tmp_path / "results" / "runs", tmp_path / "results" / "benchmarks")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(files.RUNS_VARIABLE, "~/runs")
    monkeypatch.setenv(files.RESULTS_VARIABLE, "~/results {date}")
    assert files.runs() == tmp_path / "runs"
    assert files.results("quick") == tmp_path / "results {date}" / "quick"
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_refused(monkeypatch, tmp_path):
    for profile in ("", "../quick", "a/b", ".hidden"):
        with pytest.raises(ValueError, match=r"profile must be a plain name .* got .*without its .yaml"):
            files.params(profile)
    monkeypatch.setenv(files.ROOT_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"SCALESTUDY_ROOT must name the project's folder, got .*missing.* unset"):
        files.project()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_is_written_whole_or_the_old_one_stays(step, tmp_path, monkeypatch):
    path = tmp_path / "new" / "file"
    for content in (b"first", b"old"):
        files.write_whole(path, content)
        assert {path: path.read_bytes() for path in path.parent.iterdir()} == {path: content}

    message = f"cannot write to the folder {path.parent}: No space left on device; .*SCALESTUDY_RUNS .* before is"
    full = OSError(errno.ENOSPC, "No space left on device")
    for error, expected in ((full, files.StoreError), (KeyboardInterrupt(message), KeyboardInterrupt)):
        monkeypatch.setattr(files.os, step, Mock(side_effect=error))
        with pytest.raises(expected, match=message):
            files.write_whole(path, b"new")
        assert {path: path.read_bytes() for path in path.parent.iterdir()} == {path: b"old"}


def test_a_probe_writes_and_clears_up_after_killed_writers(tmp_path, monkeypatch):
    """Temporary files of writers that may still live stay."""
    old, young, other = (tmp_path / name for name in (f"a{files.TEMPORARY_SUFFIX}", f"b{files.TEMPORARY_SUFFIX}", "c"))
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (time.time() - 1e5,) * 2)
    written = []
    monkeypatch.setattr(files, "write_whole", lambda path, content: written.append((path.parent, len(content))))
    files.probe(tmp_path)
    assert written == [(tmp_path, 65536)]
    assert {*tmp_path.iterdir()} == {young, other}
