"""A store, a cluster, and the folder in which training functions leave marks and find them, in all processes."""

from contextlib import ExitStack

import pytest
from batches import batch
from loopback import Cluster

from scalestudy.runs.store import RunStore


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


@pytest.fixture(autouse=True)
def marks(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKS", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Two workers for all tests that harm nobody; each has a run store of its own, the folder of marks is shared."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder) as cluster:
        for name in ("a", "b"):
            cluster.add(name, MARKS=str(folder))
        cluster.wait_for(2)
        yield cluster


@pytest.fixture(params=["here", "cluster"])
def place(request, tmp_path):
    """Options of `run_all`, and the folder of marks."""
    if request.param == "here":
        return {"workers": 2}, tmp_path
    cluster = request.getfixturevalue("shared")
    return {"workers": None, "scheduler": cluster.address}, cluster.folder


@pytest.fixture
def start():
    """`batches.batch`, which ends with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(batch(*arguments, **options))
