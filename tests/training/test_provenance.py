"""Where and with what a run was computed."""

import platform

import pytest
import torch

from scalestudy.training import provenance


def test_says_what_this_process_is() -> None:
    made = provenance.provenance(torch.device("cpu"), 1.234, train_ms_per_image=2.5)
    assert (made.seconds, made.train_ms_per_image, made.inference_ms_per_image) == (1.23, 2.5, None)
    assert made.device == f"cpu ({platform.machine()})"
    assert (made.torch, made.threads) == (torch.__version__, torch.get_num_threads())


def test_commit_is_none_outside_a_checkout(monkeypatch) -> None:
    def missing(*arguments, **options) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(provenance.subprocess, "run", missing)
    assert provenance.provenance(torch.device("cpu"), 1.0).commit is None


@pytest.mark.parametrize(("changes", "commit"), [("", "0123456789ab"), (" M spec.py", "0123456789ab-dirty")])
def test_a_changed_package_is_told(changes: str, commit: str, monkeypatch) -> None:
    answers = {"rev-parse": "0123456789ab", "status": changes}
    monkeypatch.setattr(provenance, "_git", lambda folder, command, *rest: answers[command])
    assert provenance.provenance(torch.device("cpu"), 1.0).commit == commit
