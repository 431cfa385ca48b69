"""Runs that are stopped between epochs and go on: the same result, bit for bit, as without the interruption."""

import copy
from pathlib import Path

import pytest
import torch

import scalestudy.training.train as training
from scalestudy.data import LogUniform
from scalestudy.training import run_state
from scalestudy.training.checkpoint import Checkpoint, CheckpointFile
from scalestudy.training.record import Record
from scalestudy.training.spec import SYSTEM_NAMES, DataSpec, MnistScaleSpec, RunSpec, ScalesSpec, TrainingSpec
from scalestudy.training.train import train

pytestmark = pytest.mark.usefixtures("mnist")

EPOCHS = 4


class Stopped(BaseException):
    """What the progress callback raises."""


def spec_of(name: str, precision: str = "float32") -> RunSpec:
    """A few real digits; the last batch of an epoch is a short one.

    `name` is a parameterisation of Table 1's network, or a system with "+" for augmentation.
    """
    recipe = {"epochs": EPOCHS, "batch_size": 16, "scale_warmup_epochs": 1.5, "milestones": (2.5,)}
    counts = {"train_images": 24, "validation_images": 10, "test_images": 10}
    if name in ("fixed", "isr", "step_ratio", "spacing", "direct"):
        data = DataSpec(distribution=LogUniform(low=1, high=4), shrink=3, **counts)
        scales = ScalesSpec(parameterisation=name)
        return RunSpec(scales=scales, data=data, training=TrainingSpec(**recipe), precision=precision)
    data = MnistScaleSpec(augmented=name.endswith("+"), equivariance_images=2, **counts)
    return RunSpec(model=name.rstrip("+"), data=data, training=TrainingSpec(**recipe), precision=precision)


def stop_after(epoch: int):
    def progress(done: int, epochs: int) -> None:
        if done == epoch:
            raise Stopped

    return progress


def interrupted(spec: RunSpec, file: Path, *stops: int) -> Record:
    """Train with a stop after each of these epochs; global generators are elsewhere each time."""
    for part, epoch in enumerate(stops):
        torch.manual_seed(part)
        with pytest.raises(Stopped):
            train(spec, progress=stop_after(epoch), checkpoint=CheckpointFile(file))
        assert epochs_done(file) == epoch
    torch.manual_seed(12345)
    return train(spec, checkpoint=CheckpointFile(file))


def epochs_done(file: Path) -> int | None:
    progress = CheckpointFile(file).progress()
    return None if progress is None else progress.epochs_done


@pytest.mark.parametrize("name", ["fixed", "isr", "step_ratio", "spacing", "direct", "cnn"])
def test_a_stopped_run_has_the_result_of_one_that_was_not(name: str, tmp_path: Path) -> None:
    spec = spec_of(name)
    record = interrupted(spec, tmp_path / "a", 2)
    assert record.metrics == train(spec).metrics
    assert record.provenance.resumed == 1


@pytest.fixture(scope="module")
def whole() -> Record:
    """A run with everything that a state can have: a learned scale, augmentation, dropout, batch norm."""
    return train(spec_of("single_scale+"))


@pytest.mark.parametrize("stops", [(1,), (3,), (EPOCHS,), (1, 2, 3), (1, EPOCHS)])
def test_wherever_and_however_often_it_is_stopped(stops: tuple[int, ...], whole: Record, tmp_path: Path) -> None:
    record = interrupted(whole.spec, tmp_path / "a", *stops)
    assert record.metrics == whole.metrics
    assert record.provenance.resumed == len(stops)


def test_float64(tmp_path: Path) -> None:
    spec = spec_of("spacing", "float64")
    assert interrupted(spec, tmp_path / "a", 1).metrics == train(spec).metrics


def test_the_tested_network_may_be_one_from_before_the_stop(monkeypatch, tmp_path: Path) -> None:
    """The first epoch is the best one."""
    errors = {}

    def worse_each_epoch(task, net) -> float:
        return 10.0 + errors.setdefault(next(net.parameters()).detach().sum().item(), len(errors))

    task_class = type(training.task_of(spec_of("isr"), torch.device("cpu")))
    monkeypatch.setattr(task_class, "validation_error", worse_each_epoch)
    whole = train(spec_of("isr"))
    record = interrupted(spec_of("isr"), tmp_path / "a", 3)
    assert record.metrics == whole.metrics
    assert record.metrics.selected_epoch == 1
    assert record.metrics.validation_error_history == (10.0, 11.0, 12.0, 13.0)


@pytest.mark.parametrize("part", ["net", "optimiser", "generators 0", "generators 1", "generators 2", "best_state"])
def test_every_part_of_the_state_matters(part: str, whole: Record, tmp_path: Path, monkeypatch) -> None:
    """Negative controls: with one part left as a new run has it, the result is another one."""
    load = torch.load

    def without(*arguments, **options):
        content = load(*arguments, **options)
        assert len(content["generators"]) == 3  # shuffling, augmentation, dropout
        fresh = fresh_state(whole.spec)
        if part.startswith("generators"):
            content["generators"][int(part[-1])] = fresh["generators"][int(part[-1])]
        elif part == "best_state":
            content["history"]["best_state"] = fresh["net"]
            content["history"]["validation_error"] = [0.0] * len(content["history"]["validation_error"])
        else:
            content[part] = fresh[part]
        return content

    monkeypatch.setattr(run_state.torch, "load", without)
    assert interrupted(whole.spec, tmp_path / "a", 2).metrics != whole.metrics


def fresh_state(spec: RunSpec) -> dict:
    """The state of a run of which no step was made."""
    net = training.build_model(spec)
    task = training.task_of(spec, torch.device("cpu"))
    global_stream = training.random_stream("dropout", spec.seed)
    return copy.deepcopy(
        {
            "net": net.state_dict(),
            "optimiser": training.make_optimiser(net).state_dict(),
            "generators": [generator.get_state() for generator in (*task.generators, global_stream)],
        }
    )


def test_times_are_those_of_all_parts(tmp_path: Path, monkeypatch) -> None:
    """With a clock that goes on by one second each time it is looked at."""
    now = [0.0]

    def look() -> float:
        now[0] += 1
        return now[0]

    monkeypatch.setattr(training.time, "perf_counter", look)
    spec = spec_of("fixed")
    whole = train(spec).provenance
    now[0] = 1e6  # another process: its clock has nothing to do with the first one's
    with pytest.raises(Stopped):
        train(spec, progress=stop_after(3), checkpoint=CheckpointFile(tmp_path / "a"))
    now[0] = 0.0
    parts = train(spec, checkpoint=CheckpointFile(tmp_path / "a")).provenance
    assert parts.train_ms_per_image == whole.train_ms_per_image == round(1000 / 24, 6)
    assert parts.seconds == whole.seconds + 1  # the checkpoint asks once more
    assert (whole.resumed, parts.resumed) == (None, 1)


def test_an_untouched_run_says_nothing_of_checkpoints(tmp_path: Path) -> None:
    """Within the interval nothing is written, and the record has no new field."""
    file = CheckpointFile(tmp_path / "a")
    record = train(spec_of("fixed"), checkpoint=file)
    assert not file.path.exists()
    assert "resumed" not in record.model_dump(mode="json")["provenance"]


def test_kept_as_often_as_the_interval_says(tmp_path: Path) -> None:
    seen, file = [], CheckpointFile(tmp_path / "a", interval=0.0)
    train(spec_of("fixed"), progress=lambda done, epochs: seen.append(epochs_done(file.path)), checkpoint=file)
    assert seen == [None, 1, 2, 3]
    assert epochs_done(file.path) == EPOCHS


@pytest.mark.parametrize("changed", ["code", "torch", "device", "instructions", "threads"])
def test_what_made_it_must_go_on_with_it(changed: str, tmp_path: Path, monkeypatch, caplog) -> None:
    spec, file = spec_of("fixed"), CheckpointFile(tmp_path / "a")
    with pytest.raises(Stopped):
        train(spec, progress=stop_after(2), checkpoint=file)
    if changed == "code":
        monkeypatch.setattr(training, "source_digest", lambda: "another")
    elif changed == "torch":
        monkeypatch.setattr(training.torch, "__version__", "2.0.0")
    elif changed == "device":
        monkeypatch.setattr(training, "device_name", lambda device: "cuda (NVIDIA H100)")
    elif changed == "instructions":
        monkeypatch.setattr(training.torch.backends.cpu, "get_cpu_capability", lambda: "NEON")
    else:
        monkeypatch.setattr(training.torch, "get_num_threads", lambda: 64)
    calls = []
    record = train(spec, progress=lambda done, epochs: calls.append(done), checkpoint=file)
    assert calls == [1, 2, 3, 4]
    assert record.provenance.resumed is None
    assert f"was made by something else ({changed} " in caplog.text


@pytest.mark.parametrize("place", ["a folder", "a file that torch cannot read"])
def test_a_run_is_made_whatever_lies_in_the_place_of_its_checkpoint(place: str, tmp_path: Path, caplog) -> None:
    spec, file = spec_of("fixed"), CheckpointFile(tmp_path / "a", interval=0.0)
    if place == "a folder":
        file.path.mkdir()
    else:
        made_by = training._made_by(torch.device("cpu"))
        file.write(Checkpoint(spec.key, 2, EPOCHS, made_by, b"no state"))
    record = train(spec, checkpoint=file)
    assert record.metrics == train(spec).metrics
    assert record.provenance.resumed is None
    assert f"the checkpoint {file.path} cannot be read (" in caplog.text
    assert ("goes on, but cannot be kept" in caplog.text) == (place == "a folder")


@pytest.mark.parametrize("name", ["table1", *SYSTEM_NAMES])
def test_a_state_has_less_than_10_mb(name: str) -> None:
    """The network, the best one so far and the moments of Adam; docs/cluster.md says so."""
    spec = spec_of("isr") if name == "table1" else RunSpec.baseline(name)
    net = training.build_model(spec)
    optimiser = training.make_optimiser(net)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    history = run_state.History([(1.0,)])
    for _ in range(60):
        history.add(net, 1.0, 50.0, (1.0, 2.0, 4.0))
    task = training.task_of(spec_of("isr"), torch.device("cpu"))
    state = run_state.RunState(net, optimiser, task, torch.device("cpu"), history, 0.0)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert 4 * 4 * parameters < len(state.to_bytes()) < 10e6


@pytest.mark.parametrize(("device", "number"), [("cuda", 1), ("cuda:0", 0)])
def test_the_generator_of_the_gpu_is_part_of_the_state(device: str, number: int, monkeypatch) -> None:
    """On a GPU dropout draws from its generator; here two generators of the CPU stand for two GPUs."""
    gpus = tuple(torch.Generator().manual_seed(seed) for seed in range(2))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "default_generators", gpus)
    net = training.build_model(spec_of("fixed"))
    task = training.task_of(spec_of("fixed"), torch.device("cpu"))
    optimiser = training.make_optimiser(net)
    state = run_state.RunState(net, optimiser, task, torch.device(device), run_state.History([()]), 0.0)
    before, content = [gpu.get_state() for gpu in gpus], state.to_bytes()
    for gpu in gpus:
        torch.rand(1, generator=gpu)
    with torch.random.fork_rng(devices=[]):
        state.restore(content)
    for position, gpu in enumerate(gpus):
        assert torch.equal(gpu.get_state(), before[position]) == (position == number)


def test_a_checkpoint_holds_no_code(tmp_path: Path) -> None:
    """It is read with torch's restricted unpickler, so a foreign file cannot run anything."""

    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    state = run_state.RunState(None, None, None, torch.device("cpu"), run_state.History([()]), 0.0)
    torch.save({"net": Code()}, tmp_path / "foreign")
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        state.restore((tmp_path / "foreign").read_bytes())
    assert not (tmp_path / "touched").exists()
