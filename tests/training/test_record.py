"""Records: round trip, checksum, refusal of what was edited or is no number."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from scalestudy.data import LogUniform
from scalestudy.training.record import Metrics, Provenance, Record
from scalestudy.training.spec import DataSpec, MnistScaleSpec, RunSpec

RECORDS = sorted((Path(__file__).resolve().parent / "records").glob("*.json"))


def spec(seed: int = 0) -> RunSpec:
    return RunSpec(data=DataSpec(distribution=LogUniform(low=1, high=8)), seed=seed)


def metrics(**changes) -> Metrics:
    values = {
        "test_error": 3.25,
        "validation_error": 3.0,
        "selected_epoch": 1,
        "internal_scales": (2.0, 3.5, 6.0),
        "train_loss_history": (0.5, 0.4),
        "validation_error_history": (3.0, 3.5),
        "internal_scales_history": ((2.0, 3.4, 6.0), (2.0, 3.5, 6.0), (2.0, 3.6, 6.0)),
    }
    return Metrics(**values | changes)


def provenance(**changes) -> Provenance:
    values = {
        "scalestudy": "0.1", "commit": None, "python": "3.11", "torch": "2.6", "device": "cpu (x86_64)",
        "threads": 1, "seconds": 1.5, "finished": "2024-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Provenance(**values | changes)


def record() -> Record:
    return Record.of(spec(), metrics(test_error_by_scale={"0.5000": 40.0}), provenance())


def test_round_trip() -> None:
    text = record().model_dump_json()
    assert Record.model_validate_json(text) == record()
    assert Record.model_validate(json.loads(text)) == record()
    assert record().key == spec().key
    assert record().checksum == record().digest()


def test_checksum_covers_everything_and_key_the_spec_only() -> None:
    others = [
        Record.of(spec(1), metrics(), provenance()),
        Record.of(spec(), metrics(test_error=3.26), provenance()),
        Record.of(spec(), metrics(), provenance(seconds=1.6)),
        Record.of(spec(), metrics(), provenance()),
    ]
    assert len({other.checksum for other in others}) == 4
    assert [other.key == spec().key for other in others] == [False, True, True, True]


@pytest.mark.parametrize(
    "path",
    [("metrics", "test_error"), ("metrics", "selected_epoch"), ("provenance", "seconds"), ("provenance", "threads")],
)
def test_an_edited_record_is_found_out(path: tuple[str, str]) -> None:
    content = record().model_dump(mode="json")
    content[path[0]][path[1]] += 1
    with pytest.raises(ValidationError, match=r"does not match the content .*: the record was edited or damaged"):
        Record.model_validate(content)


def test_a_record_without_checksum_is_refused() -> None:
    content = record().model_dump(mode="json", exclude={"checksum"})
    with pytest.raises(ValidationError, match="checksum missing does not match"):
        Record.model_validate(content)


def test_a_record_of_another_spec_is_refused() -> None:
    content = record().model_dump(mode="json")
    content["spec"]["seed"] = 1
    with pytest.raises(ValidationError, match=f"record says key {spec().key}, but its spec has key {spec(1).key}"):
        Record.model_validate(content)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 100.1])
@pytest.mark.parametrize("field", ["test_error", "validation_error"])
def test_errors_are_percentages(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        metrics(**{field: value})


def test_what_is_no_number_is_refused_everywhere() -> None:
    for field in ("internal_scales", "train_loss_history", "validation_error_history"):
        with pytest.raises(ValidationError, match=field):
            metrics(**{field: (float("nan"),)})
    with pytest.raises(ValidationError, match="internal_scales_history"):
        metrics(internal_scales_history=((float("inf"),),))


def test_unknown_fields_and_changes_are_refused() -> None:
    with pytest.raises(ValidationError, match="accuracy"):
        metrics(accuracy=1.0)
    with pytest.raises(ValidationError, match="host"):
        provenance(host="here")
    with pytest.raises(ValidationError, match="frozen"):
        record().key = "other"
    with pytest.raises(ValidationError, match="selected_epoch"):
        metrics(selected_epoch=0)


@pytest.mark.parametrize("path", RECORDS[:4], ids=lambda path: path.stem)
def test_a_record_from_before_later_fields_is_what_it_was(path: Path) -> None:
    """Byte for byte, though the classes have fields now that it lacks."""
    text = path.read_text()
    old = Record.model_validate_json(text)
    assert json.dumps(old.model_dump(mode="json"), indent=1, sort_keys=True) + "\n" == text
    assert old.digest() == old.checksum


def test_later_fields_are_written_and_covered_where_they_are_there() -> None:
    bare = record()
    content = bare.model_dump(mode="json")
    assert not {"equivariance_error", "prediction_change"} & set(content["metrics"])
    assert not {"train_ms_per_image", "inference_ms_per_image"} & set(content["provenance"])
    assert content["provenance"]["commit"] is None  # was there from the beginning
    full = Record.of(
        RunSpec.baseline("cnn", data=MnistScaleSpec(augmented=True)),
        metrics(internal_scales=(), equivariance_error={"0.5000": 0.25}, prediction_change={"0.5000": 12.5}),
        provenance(train_ms_per_image=4.5, inference_ms_per_image=0.0),
    )
    assert Record.model_validate_json(full.model_dump_json()) == full
    content = full.model_dump(mode="json")
    assert content["metrics"]["equivariance_error"] == {"0.5000": 0.25}
    assert content["provenance"]["inference_ms_per_image"] == 0.0
    for part, name in (("metrics", "prediction_change"), ("provenance", "train_ms_per_image")):
        without = full.model_dump(mode="json")
        del without[part][name]
        with pytest.raises(ValidationError, match="the record was edited or damaged"):
            Record.model_validate(without)


@pytest.mark.parametrize("field", ["train_ms_per_image", "inference_ms_per_image"])
def test_timings_are_not_negative(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        provenance(**{field: -1.0})
