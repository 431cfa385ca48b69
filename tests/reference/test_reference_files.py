"""Where reference files are looked for: a wrong folder fails, a missing file skips."""

import pytest
from reference_files import ENVIRONMENT_VARIABLE, reference_file, reference_paths


@pytest.mark.parametrize("folder", ["absent", "."])
def test_a_folder_that_cannot_be_meant_fails(folder, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").touch()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / folder))
    with pytest.raises(FileNotFoundError, match="holds no reference files"):
        reference_file("tolerance.json")


def test_a_missing_file_skips_and_the_others_are_found(tmp_path, monkeypatch):
    for name in ("table5_state_B.npz", "table5_state_A.npz", "tolerance.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    assert reference_file("tolerance.json") == tmp_path / "tolerance.json"
    with pytest.raises(pytest.skip.Exception, match=r"there is no 'params\.json' in "):
        reference_file("params.json")
    assert [path.name for path in reference_paths("table5_state_*.npz")] == ["table5_state_A.npz", "table5_state_B.npz"]
    assert reference_paths("*.npy") == []
