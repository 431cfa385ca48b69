"""The generated table of all stored runs: the same records give the same bytes."""

from fake_training import record_of, spec_of

from scalestudy.paper.summary import COLUMNS, summary_frame, write_summary
from scalestudy.training.spec import MnistScaleSpec, RunSpec


def test_sorted_and_repeatable(tmp_path):
    records = [record_of(spec_of(seed)) for seed in (2, 0, 1)]
    frame = summary_frame(records)
    assert frame["seed"].tolist() == [0, 1, 2]
    assert frame["internal_scales"][0] == "2 3.4641 6"
    path = write_summary(records, tmp_path / "summary.csv")
    first, written = path.read_bytes(), path.stat().st_mtime_ns
    assert write_summary(records[::-1], path).stat().st_mtime_ns == written
    assert first.startswith(b"distribution,scale_learning,init_sigma_basis,init_isr,")
    assert first.count(b"\n") == 4


def test_both_data_sets(tmp_path):
    """What does not apply to a run is blank; numbers of the others stay as they are written without it."""
    alone = [record_of(spec_of(0))]
    systems = [
        record_of(RunSpec.baseline("cnn", 3, MnistScaleSpec(augmented=True))),
        record_of(RunSpec.baseline("cnn", 3)),
    ]
    before = write_summary(alone, tmp_path / "summary.csv").read_text().splitlines()
    lines = write_summary(alone + systems, tmp_path / "summary.csv").read_text().splitlines()
    assert lines[0] == before[0] and before[1] in lines and len(lines) == 4
    rows = summary_frame(alone + systems)
    assert tuple(rows.columns) == COLUMNS
    of_cnn = rows[rows["model"] == "cnn"].sort_values("augmented")
    assert of_cnn["augmented"].tolist() == [False, True]
    assert of_cnn["equivariance_images"].tolist() == [1_000, 1_000]
    for column in ("shrink", "num_scales", "init_isr", "init_sigma_basis", "scale_test_images"):
        assert of_cnn[column].isna().all()
    assert set(of_cnn["distribution"]) == set(of_cnn["order"]) == {""}
