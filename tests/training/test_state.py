"""Runs that are stopped between epochs and go on, with the same result bit for bit; and the file that keeps them."""

import itertools
import random

import pytest
import torch

import scalestudy.training.train as training
from scalestudy.data.distributions import LogUniform
from scalestudy.models.systems import SYSTEMS
from scalestudy.training import state as module
from scalestudy.training.spec import DataSpec, MnistScaleSpec, RunSpec, ScalesSpec, TrainingSpec
from scalestudy.training.state import CheckpointFile, History, Progress, source_digest
from scalestudy.training.train import train

MADE_BY = {"run": "0123456789abcdef", "code": "1", "torch": "2", "threads": 1}
PROGRESS = Progress(3, 60, MADE_BY)
EPOCHS = 4
PARAMETERISATIONS = ("fixed", "isr", "step_ratio", "spacing", "direct")


@pytest.fixture
def file(tmp_path):
    return CheckpointFile(tmp_path / "runs" / "0123456789abcdef.checkpoint")


class Due(CheckpointFile):
    due = True


def test_reads_what_was_written_last(file):
    assert (file.read(MADE_BY), file.progress()) == (None, None)
    for progress, state in ((PROGRESS, {"net": {"a": [1.5]}}), (Progress(4, 60, MADE_BY), {})):
        file.write(progress, state)
        assert (file.read(MADE_BY), file.progress()) == (state, progress)
    assert not file.progress().is_of_this_code
    assert Progress(4, 60, {"code": source_digest()}).is_of_this_code
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]


def test_what_the_run_cannot_go_on_from_is_refused(file, caplog):
    file.write(PROGRESS, {})
    other = {name: MADE_BY[name] for name in ("run", "code", "torch")} | {"torch": "3", "device": "cpu"}
    assert file.read(other) is None
    reason = "threads 1, here None; torch 2, here 3; device None, here cpu"
    again = "it is not used, and the run starts again"
    assert caplog.messages == [f"the checkpoint {file.path} was made by something else ({reason}); {again}"]


def test_one_that_was_cut_off_or_changed_is_refused(file, caplog):
    """At every length of its first line, with a bit of any of its bytes flipped, cut off later, and other files."""
    file.write(PROGRESS, {})
    whole, chance = file.path.read_bytes(), random.Random(0)
    first = range(whole.index(b"\n"))
    damaged = [whole[:length] for length in (*first, len(whole) - 1)]
    for position in (*first, len(whole) - 1):
        flipped = bytes([whole[position] ^ 1 << chance.randrange(8)])
        damaged.append(whole[:position] + flipped + whole[position + 1 :])
    others = [b"x []\n", b"x {}\n", b"\xff \xfe\n", b'x {"epochs_done": 3, "epochs": 2}\n']
    for content in [*damaged, *others]:
        file.path.write_bytes(content)
        assert file.read(MADE_BY) is None
        assert file.progress() is None or content not in others
    assert caplog.text.count("is damaged; it is not used") == len(damaged) + len(others)


def test_a_run_goes_on_where_it_cannot_be_kept(file, caplog):
    file.path.parent.write_text("no folder")
    for _ in range(3):
        file.write(PROGRESS, {})
    assert f"the run goes on, but cannot be kept in {file.path} (" in caplog.text
    assert caplog.text.count("if it is stopped, what it does from now on is lost") == 1


def test_due_once_a_minute(file, monkeypatch):
    now, seen = [100.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    file = CheckpointFile(file.path)
    for now[0] in (100.0, 160.0, 219.9, 220.0):
        seen.append(file.due)
        if now[0] == 160.0:
            file.write(PROGRESS, {})
    assert seen == [False, True, False, True]


class Stopped(BaseException):
    """What the progress callback raises."""


def spec_of(name, precision="float32"):
    """A few real digits; the last batch of an epoch is a short one.

    `name` is a parameterisation of Table 1's network, or a system with "+" for augmentation.
    """
    recipe = TrainingSpec(epochs=EPOCHS, batch_size=16, scale_warmup_epochs=1.5, milestones=(2.5,))
    fields = {"training": recipe, "precision": precision}
    counts = {"train_images": 24, "validation_images": 10, "test_images": 10}
    if name in PARAMETERISATIONS:
        data = DataSpec(distribution=LogUniform(low=1, high=4), shrink=3, **counts)
        return RunSpec(data=data, scales=ScalesSpec(parameterisation=name), **fields)
    data = MnistScaleSpec(augmented=name.endswith("+"), equivariance_images=2, **counts)
    return RunSpec(data=data, model=name.strip("+"), **fields)


def interrupted(spec, file, *stops):
    """Train with a stop after each of these epochs, where it is kept; global generators are elsewhere each time."""

    def progress(done, epochs):
        checkpoint.due = done + 1 == stop
        if done == stop:
            raise Stopped

    for part, (before, stop) in enumerate(itertools.pairwise((0, *stops))):
        torch.manual_seed(part)
        checkpoint = Due(file.path)
        checkpoint.due = before + 1 == stop
        with pytest.raises(Stopped):
            train(spec, progress=progress, checkpoint=checkpoint)
        assert file.progress().epochs_done == stop
    torch.manual_seed(12345)
    return train(spec, checkpoint=CheckpointFile(file.path))


@pytest.fixture(scope="module")
def whole(mnist):
    """A run with everything that a state can have: a learned scale, augmentation, dropout, batch norm."""
    return train(spec_of("single_scale+"))


@pytest.mark.parametrize("spec", [*map(spec_of, (*PARAMETERISATIONS, "cnn")), spec_of("spacing", "float64")])
def test_a_stopped_run_has_the_result_of_one_that_was_not(spec, file, mnist):
    assert interrupted(spec, file, 2).metrics == train(spec).metrics


@pytest.mark.parametrize("stops", [(1,), (EPOCHS,), (1, 2, 3)])
def test_wherever_and_however_often_it_is_stopped(stops, whole, file):
    """After the last epoch the tested network can only be the kept one."""
    record = interrupted(whole.spec, file, *stops)
    assert record.metrics == whole.metrics
    assert record.provenance.resumed == len(stops)


@pytest.mark.parametrize("part", ["net", "optimiser", "best", 0, 1, 2])
def test_every_part_of_the_state_matters(part, whole, file, monkeypatch):
    """Negative controls: with one part (a number: of the generators) as a new run has it, the result is another one."""
    load, spec = torch.load, whole.spec
    fresh = training.build_model(spec)
    generators = [*training.task_of(spec, torch.device("cpu")).generators, training.random_stream("dropout", spec.seed)]

    def without(*arguments, **options):
        content = load(*arguments, **options)
        assert len(content["generators"]) == 3  # shuffling, augmentation, dropout
        if part == "net":
            content["net"] = fresh.state_dict()
        elif part == "optimiser":
            content["optimiser"] = training.make_optimiser(fresh).state_dict()
        elif part == "best":
            content["history"] |= {"best": fresh.state_dict(), "validation_error": [0.0, 0.0]}
        else:
            content["generators"][part] = generators[part].get_state()
        return content

    monkeypatch.setattr(torch, "load", without)
    assert interrupted(spec, file, 2).metrics != whole.metrics


def test_times_are_those_of_all_parts(file, monkeypatch, mnist):
    """With a clock that goes on by one second each time it is looked at, and is another one after the stop."""
    spec, clock = spec_of("fixed"), itertools.count()
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock) + 1e6 * file.path.exists())
    whole, parts = train(spec).provenance, interrupted(spec, file, 3).provenance
    assert parts.train_ms_per_image == whole.train_ms_per_image == round(1000 / 24, 6)
    assert parts.seconds == whole.seconds + 1  # the checkpoint asks once more
    assert (whole.resumed, parts.resumed) == (None, 1)


def test_within_a_minute_nothing_is_kept(file, mnist):
    record = train(spec_of("fixed"), checkpoint=file)
    assert not file.path.exists()
    assert "resumed" not in record.model_dump(mode="json")["provenance"]


def test_kept_when_it_is_due(file, mnist):
    seen = []
    train(spec_of("fixed"), progress=lambda *_: seen.append(file.progress().epochs_done), checkpoint=Due(file.path))
    assert seen == [1, 2, 3, EPOCHS]


def test_what_made_it_must_go_on_with_it(file, monkeypatch, caplog, mnist):
    parts = [made_by := training.machine(torch.device("cpu")), made_by | {"threads": 64}]
    monkeypatch.setattr(training, "machine", lambda device: parts.pop(0))
    assert interrupted(spec_of("fixed"), file, 2).provenance.resumed is None
    assert "was made by something else (threads " in caplog.text


def test_a_run_is_made_although_a_folder_lies_in_the_place_of_its_checkpoint(file, caplog, mnist):
    file.path.mkdir(parents=True)
    assert file.progress() is None
    assert train(spec_of("fixed"), checkpoint=Due(file.path)).provenance.resumed is None
    assert f"the checkpoint {file.path} cannot be read (" in caplog.text
    assert "goes on, but cannot be kept" in caplog.text


@pytest.mark.parametrize("name", ["isr", *SYSTEMS])
def test_a_state_has_less_than_10_mb(name, file):
    """The network, the best one so far and the moments of Adam; docs/cluster.md says so."""
    net, history = training.build_model(spec_of(name)), History([()])
    optimiser = training.make_optimiser(net)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    history.add(net, 1.0, 50.0, (1.0, 2.0, 4.0))
    file.write(PROGRESS, training._state(history, 0.0, net, optimiser, []))
    assert 4 * 4 * sum(parameter.numel() for parameter in net.parameters()) < file.path.stat().st_size < 10e6


def test_a_checkpoint_holds_no_code(file, tmp_path, caplog):
    """It is read with torch's restricted unpickler, so a foreign file cannot run anything."""

    class Code:
        def __reduce__(self):
            return type(tmp_path).touch, (tmp_path / "touched",)

    file.write(PROGRESS, {"net": Code()})
    assert file.read(MADE_BY) is None
    assert "cannot be read (Weights only load failed" in caplog.text
    assert not (tmp_path / "touched").exists()
