"""Records: round trip, checksum, refusal of what was edited or is no number, and by which commit they were made."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from scalestudy.training import record as module
from scalestudy.training.device import machine
from scalestudy.training.record import Provenance, Record

CHECKOUT = Path(__file__).resolve().parents[2]
STORED = sorted((CHECKOUT / "results" / "records").glob("*.json"))

STORED_ONE = Record.model_validate_json((CHECKOUT / "tests" / "reference" / "quick_run.json").read_text())
LATER_METRICS = {"equivariance_error": {"0.5000": 0.25}, "prediction_change": {"0.5000": 12.5}}
LATER_PROVENANCE = {"train_ms_per_image": 4.5, "inference_ms_per_image": 0.0, "resumed": 2}


def with_values(part, **changes):
    return type(part)(**part.model_dump() | changes)


def record(seed=0, metrics=None, **provenance):
    """The stored record with other values, without the fields of provenance that came later."""
    provenance = {"commit": None, **dict.fromkeys(LATER_PROVENANCE), **provenance}
    parts = with_values(STORED_ONE.metrics, **metrics or {}), with_values(STORED_ONE.provenance, **provenance)
    return Record.of(with_values(STORED_ONE.spec, seed=seed), *parts)


FULL = record(metrics=LATER_METRICS, **LATER_PROVENANCE)  # with every field that came later


def test_every_stored_record_is_written_back_byte_for_byte():
    """Though the classes have fields now that it lacks; reading checks its key and its checksum."""
    assert len(STORED) > 50
    for path in STORED:
        text = path.read_text()
        stored = Record.model_validate_json(text)
        assert json.dumps(stored.model_dump(mode="json"), indent=1, sort_keys=True) + "\n" == text, path
        assert stored.key == path.stem


def test_later_fields_are_written_where_they_are_there_and_come_back():
    bare, complete = record().model_dump(mode="json"), FULL.model_dump(mode="json")
    assert {*complete["metrics"]} - {*bare["metrics"]} == {*LATER_METRICS}
    assert {*complete["provenance"]} - {*bare["provenance"]} == {*LATER_PROVENANCE}
    assert bare["provenance"]["commit"] is None  # was there from the beginning
    assert Record.model_validate(complete) == Record.model_validate_json(json.dumps(complete)) == FULL


def test_checksum_covers_everything_and_key_the_spec_only():
    others = [record(), record(1), record(metrics={"test_error": 3.26}), record(seconds=1.6)]
    assert len({other.checksum for other in others}) == 4
    assert [other.key == record().key for other in others] == [True, False, True, True]


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("metrics", "test_error", 4.25), ("metrics", "prediction_change", None), ("provenance", "threads", 2)],
)
def test_an_edited_record_is_found_out(part, name, value):
    content = FULL.model_dump(mode="json")
    content[part][name] = value
    with pytest.raises(ValidationError, match=r"does not match the content .*: the record was edited or damaged"):
        Record.model_validate(content)


def test_a_record_without_checksum_or_of_another_spec_is_refused():
    content = record().model_dump(mode="json")
    with pytest.raises(ValidationError, match="checksum missing does not match"):
        Record.model_validate({**content, "checksum": ""})
    with pytest.raises(ValidationError, match=f"record says key {record().key}, but its spec has key {record(1).key}"):
        Record.model_validate({**content, "spec": record(1).spec})


NAN, INFINITE = float("nan"), float("inf")
REFUSED = [("metrics", {name: value}) for name in ("test_error", "validation_error") for value in (-0.1, 100.1, NAN)]
REFUSED += [("metrics", {"selected_epoch": 0}), ("metrics", {"accuracy": 1.0}), ("metrics", {"test_error": INFINITE})]
REFUSED += [("metrics", {"internal_scales": (NAN,)}), ("metrics", {"train_loss_history": (NAN,)})]
REFUSED += [("provenance", fields) for fields in ({"host": "here"}, {"train_ms_per_image": -1}, {"resumed": 0})]


@pytest.mark.parametrize(("part", "fields"), REFUSED)
def test_what_is_no_result_is_refused(part, fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        with_values(getattr(STORED_ONE, part), **fields)


def test_provenance_is_of_this_process():
    made = Provenance.of(machine(torch.device("cpu")), 1.234, train_ms_per_image=2.5, resumed=None)
    assert (made.seconds, made.train_ms_per_image, made.resumed) == (1.23, 2.5, None)
    assert (made.device, made.python) == (f"cpu ({platform.machine()})", platform.python_version())
    assert (made.torch, made.threads) == (torch.__version__, torch.get_num_threads())


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """Make a repository with a commit of some paths: how records name it; `commit` is asked anew, of a copy.

    It believes that it lies in ``proj/scalestudy``.
    """
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    package = tmp_path / "proj" / "scalestudy"
    (package / "training").mkdir(parents=True)
    (package / "spec.py").write_text("1")
    monkeypatch.setattr(module, "__file__", str(package / "training" / "record.py"))
    monkeypatch.setattr(module, "commit", module.commit.__wrapped__)
    monkeypatch.setenv("HOME", str(tmp_path))

    def make(folder, *paths):
        commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"]
        for arguments in (["init", "-q"], ["add", *paths], commit, ["rev-parse", "--short=12", "HEAD"]):
            command = ["git", "-C", str(folder), *arguments]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    return make


def test_the_commit_of_the_packages_own_checkout(committed, tmp_path):
    own = committed(tmp_path / "proj", "scalestudy")
    assert module.commit() == own
    (tmp_path / "proj" / "notes").write_text("beside the package")
    assert module.commit() == own
    (tmp_path / "proj" / "scalestudy" / "spec.py").write_text("2")
    assert module.commit() == f"{own}-dirty"


def test_not_that_of_another_checkout(committed, tmp_path, caplog):
    """Around the package, or where the package lies untracked: installed with ``pip install --target``."""
    assert module.commit() is None
    committed(tmp_path)
    assert module.commit() is None
    (tmp_path / "proj" / ".gitignore").write_text("scalestudy\n")
    committed(tmp_path / "proj", ".gitignore")
    assert module.commit() is None
    assert caplog.text == ""


def test_not_the_one_that_the_environment_names(committed, tmp_path, monkeypatch):
    own = committed(tmp_path / "proj", "scalestudy")
    (tmp_path / "other").mkdir()
    assert committed(tmp_path / "other") != own
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert module.commit() == own


@pytest.mark.parametrize(
    ("does", "reason"),
    [('GIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {} "$@"', "dubious ownership"), (None, "No such file")],
    ids=["belongs to somebody else", "no git"],
)
def test_a_checkout_that_git_does_not_read_is_logged(does, reason, committed, tmp_path, monkeypatch, caplog):
    committed(tmp_path / "proj", "scalestudy")
    (tmp_path / "bin").mkdir()
    if does:
        (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\n{does.format(shutil.which('git'))}\n")
        (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep if does else None)
    assert module.commit() is None
    assert f"records do not name the commit of {tmp_path / 'proj'}, which git does not tell: " in caplog.text
    assert reason in caplog.text
