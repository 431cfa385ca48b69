"""Where reference files are looked for: a wrong folder fails, a missing file skips."""

import pytest
from reference_files import ENVIRONMENT_VARIABLE, REFERENCE_NAMES, reference_file, reference_paths


def test_a_folder_that_cannot_be_meant_fails(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="is no folder"):
        reference_file("tolerance.json")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"holds none of .*tolerance\.json"):
        reference_file("tolerance.json")


def test_a_missing_file_skips_and_the_others_are_found(tmp_path, monkeypatch):
    (tmp_path / "tolerance.json").write_text("{}")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    assert reference_file("tolerance.json") == tmp_path / "tolerance.json"
    for name in set(REFERENCE_NAMES) - {"tolerance.json"}:
        with pytest.raises(pytest.skip.Exception, match=name):
            reference_file(name)


def test_files_by_pattern(tmp_path, monkeypatch):
    for name in ("table5_state_B.npz", "table5_state_A.npz", "tolerance.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    assert [path.name for path in reference_paths("table5_state_*.npz")] == ["table5_state_A.npz", "table5_state_B.npz"]
    assert reference_paths("*.npy") == []
