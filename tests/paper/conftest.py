"""What tests of the paper's side share: its study, a project that they may change, one fit of the tolerance model."""

import shutil
from functools import cache
from pathlib import Path

import pytest

from scalestudy.paper import compare
from scalestudy.paper.study import Study


@pytest.fixture(scope="session")
def paper():
    return Study.open("paper")


@pytest.fixture(scope="session", autouse=True)
def one_fit():
    """It takes a second, and is the same each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "fit_tolerance", cache(compare.fit_tolerance))
        yield


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the committed profiles, and neither runs nor results."""
    shutil.copytree(Path(__file__).resolve().parents[2] / "params", tmp_path / "params")
    for variable, folder in (("ROOT", ""), ("RESULTS", "results"), ("RUNS", "runs")):
        monkeypatch.setenv(f"SCALESTUDY_{variable}", str(tmp_path / folder))
    return tmp_path
