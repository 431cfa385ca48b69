"""A store, and the folder in which training functions leave marks and find them, here and in all processes."""

import pytest

from scalestudy.runs.store import RunStore


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


@pytest.fixture(autouse=True)
def marks(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKS", str(tmp_path))
    return tmp_path
