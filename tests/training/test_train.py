"""One training run: schedule, selection, history, divergence, determinism, tests, on a few real digits."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import scalestudy.training.train as training
from scalestudy.data import paper_test_scales
from scalestudy.data.distributions import LogUniform
from scalestudy.layers.scales import DirectScales, FixedScales, IsrScales, SpacingScales, StepRatioScales
from scalestudy.models import SYSTEMS
from scalestudy.models.frame import MnistScaleNet
from scalestudy.training import tasks
from scalestudy.training.record import Record
from scalestudy.training.spec import EQUIVARIANCE_FACTORS, DataSpec, MnistScaleSpec, RunSpec, ScalesSpec, TrainingSpec
from scalestudy.training.train import TrainingDiverged, build_model, learning_rates, make_optimiser, train

pytestmark = pytest.mark.usefixtures("mnist")

START = (2.0, round(2 * 3**0.5, 6), 6.0)
SCALES = {
    "fixed": FixedScales, "isr": IsrScales, "step_ratio": StepRatioScales, "spacing": SpacingScales,
    "direct": DirectScales,
}  # fmt: skip


def run(data, recipe, **fields):
    """64 digits, two epochs of four steps."""
    fields |= {name: recipe.pop(name) for name in ("seed", "order", "precision") if name in recipe}
    recipe = {"epochs": 2, "batch_size": 16, "scale_warmup_epochs": 0.5, "milestones": (1.5,)} | recipe
    return RunSpec(data=data, training=TrainingSpec(**recipe), **fields)


def table1(parameterisation="isr", shown=0, **changes):
    """Digits of 56 x 56 pixels."""
    counts = {"train_images": 64, "validation_images": 40, "test_images": 50, "scale_test_images": shown}
    data = DataSpec(distribution=LogUniform(low=1, high=4), shrink=3, **counts)
    return run(data, changes, scales=ScalesSpec(parameterisation=parameterisation))


def system(model="cnn", augmented=False, shown=0, **changes):
    counts = {"train_images": 64, "validation_images": 40, "test_images": 300, "equivariance_images": shown}
    return run(MnistScaleSpec(augmented=augmented, **counts), changes, model=model)


class Small(MnistScaleNet):
    """Averages, with the mean of its scales as a gain; dropout as in the head of all systems."""

    def __init__(self, scales, dropout=0.5):
        super().__init__()
        self.scales = scales
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(196, 10))

    def features(self, x):
        gain = 1 if self.scales is None else self.scales().mean().to(x)
        return self.norm(nn.functional.avg_pool2d(x, 4)) * gain


@pytest.fixture
def built(monkeypatch):
    """Arguments of `models.build`, which makes networks of `Small` in these tests."""
    calls = []
    scales = {"sesn": FixedScales, "ours_spacings": SpacingScales}

    def build(name, *, augmented):
        calls.append((name, augmented))
        return Small(scales[name](1.5, 2.0, 4) if name in scales else None)

    monkeypatch.setattr(tasks, "build", build)
    return calls


@pytest.fixture(scope="module")
def record(mnist):
    return train(table1())


def test_the_record_is_valid_and_complete(record):
    assert Record.model_validate_json(record.model_dump_json()) == record
    metrics, made = record.metrics, record.provenance
    assert record.spec == table1()
    assert [len(history) for history in (metrics.train_loss_history, metrics.internal_scales_history)] == [2, 3]
    assert metrics.validation_error == min(metrics.validation_error_history)
    assert metrics.internal_scales == metrics.internal_scales_history[metrics.selected_epoch]
    assert metrics.test_error_by_scale is None
    assert made.device.startswith("cpu") and made.torch == torch.__version__
    assert 0 < made.inference_ms_per_image < 1000 * made.seconds / 50
    assert 0 < made.train_ms_per_image < 1000 * made.seconds / 128


@pytest.mark.parametrize("parameterisation", SCALES)
def test_scales_are_recorded_in_pixels_of_the_paper(parameterisation, record):
    """The canvas is a third of the paper's; recorded scales are not.  Fixed ones stay, each kind moves its way."""
    history = train(table1(parameterisation)).metrics.internal_scales_history
    assert history[0] == pytest.approx(START, abs=1e-5)
    assert (history[1] == history[0], history[2] == history[1]) == ((parameterisation == "fixed",) * 2)
    assert (history == record.metrics.internal_scales_history) == (parameterisation == "isr")
    assert max(abs(after - before) for after, before in zip(history[2], START, strict=True)) < 1


def test_scales_of_systems(built):
    metrics = train(system()).metrics
    assert (metrics.internal_scales, metrics.internal_scales_history) == ((), ((), (), ()))
    start = (1.5, 1.889882, 2.381102, 3.0)
    assert train(system("sesn")).metrics.internal_scales_history == (start,) * 3
    history = train(system("ours_spacings")).metrics.internal_scales_history
    assert history[0] == pytest.approx(start, abs=1e-5)
    assert all(after != before for after, before in zip(history[1], start, strict=True))


@pytest.mark.parametrize("make", [table1, lambda **fields: system(augmented=True, **fields)], ids=["table1", "system"])
def test_same_seed_same_metrics_and_global_states_untouched(make, built):
    metrics = train(make()).metrics
    torch.manual_seed(12345)  # must not matter
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert train(make()).metrics == metrics
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert train(make(seed=1)).metrics.train_loss_history != metrics.train_loss_history


@pytest.mark.parametrize("parameterisation", SCALES)
def test_build_model(parameterisation):
    """Parameters of scales that are lengths, a third on images of a third, are the last group of the optimiser."""
    spec = table1(parameterisation)
    paper_sized = spec.model_copy(update={"data": spec.data.model_copy(update={"shrink": 1})})
    full, small = build_model(paper_sized), build_model(spec)
    assert torch.equal(full.conv.weight, small.conv.weight)  # of the same seed
    assert (full.image_size, small.image_size, small.linear.in_features) == (168, 56, 16 * 4**2)
    assert type(full.conv.scales) is SCALES[parameterisation]
    assert full.conv.scales.values() == pytest.approx(START, rel=1e-6)
    groups = [[group["params"] for group in make_optimiser(net).param_groups[1:]] for net in (full, small)]
    for factor, of_full, of_small in zip((1, 3), *groups, strict=True):
        torch.testing.assert_close(of_full, [parameter * factor for parameter in of_small])
    assert sum(map(len, groups[0])) == len(list(full.conv.scales.parameters()))


def test_what_reaches_the_network(record, built):
    for augmented in (True, False):
        build_model(system("dss", augmented=augmented))
    assert built == [("dss", True), ("dss", False)]
    for spec in (table1(precision="float64"), system(precision="float64")):
        assert {parameter.dtype for parameter in build_model(spec).parameters()} == {torch.float64}
    losses = record.metrics.train_loss_history
    assert train(table1(order="norm_relu")).metrics.train_loss_history != losses
    assert train(table1(precision="float64")).metrics.train_loss_history == pytest.approx(losses, rel=0.05)


def test_tf32_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(training, "task_of", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=r"precision 'tf32' needs a CUDA device .* got 'cpu'; use 'float32'"):
        train(table1(precision="tf32"))


def test_float32_is_full_float32_for_the_whole_run(monkeypatch):
    """Settings of CUDA devices, which can be read without one, as training and tests see them."""
    matmul, cudnn, seen = torch.backends.cuda.matmul, torch.backends.cudnn, []
    for owner, name in ((training, "train_step"), (tasks.Task, "test")):

        def spy(*arguments, original=getattr(owner, name)):  # noqa: B008
            seen.append((matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic))
            return original(*arguments)

        monkeypatch.setattr(owner, name, spy)
    train(table1(epochs=1))
    assert seen == [("ieee", "ieee", True)] * 5  # four steps and the test


@pytest.mark.parametrize("name", SYSTEMS)
def test_scale_parameters_of_the_systems_are_found(name):
    """Those of a system's own scales, and no other, are in the groups with the scales' learning rate; plain Adam."""
    net = build_model(RunSpec.baseline(name))
    optimiser = make_optimiser(net)
    plain = torch.optim.Adam(net.parameters(), fused=True)
    assert (type(optimiser), optimiser.defaults) == (torch.optim.Adam, plain.defaults)
    weights, *of_scales = ({*group["params"]} for group in optimiser.param_groups)
    found = {label for label, parameter in net.named_parameters() if parameter in set.union(*of_scales)}
    two = {"scales.sigma_basis", "scales.gamma"}
    expected = {"ours_isr": two, "ours_isr_like_sesn": two, "ours_spacings": two, "ours_direct": {"scales.sigmas"}}
    expected |= {"single_scale": {"scales.sigmas"}, "interval_scales": {"scales.theta"}}
    assert found == expected.get(name, set())
    assert weights | set.union(*of_scales) == {*net.parameters()} and not weights & set.union(*of_scales)


def test_loss_decreases_and_steps_and_epochs_can_be_listened_to():
    losses, calls, spec = [], [], table1(epochs=8, milestones=())
    history = train(spec, progress=lambda *done: calls.append(done), on_step=losses.append).metrics.train_loss_history
    assert history[-1] < 0.5 * history[0]
    assert calls == [(epoch, 8) for epoch in range(1, 9)]
    assert not any(loss.requires_grad for loss in losses)
    assert history == pytest.approx(torch.stack(losses).view(8, 4).mean(1).tolist(), abs=1e-5)


@pytest.mark.parametrize(("errors", "selected"), [([30, 10, 10, 20], 2), ([5, 5, 5, 5], 1), ([40, 30, 20, 10], 4)])
def test_the_first_best_epoch_is_tested(errors, selected, monkeypatch):
    scales, script = [], iter([*errors, 7.5])

    def scripted(task, net):
        scales.append(training.recorded_scales(net, task))
        return next(script)

    monkeypatch.setattr(tasks.Task, "validation_error", scripted)
    monkeypatch.setattr(tasks.Task, "test", lambda task, net: ({"test_error": scripted(task, net)}, 0.5))
    metrics = train(table1(epochs=4)).metrics
    assert (metrics.selected_epoch, metrics.validation_error, metrics.test_error) == (selected, min(errors), 7.5)
    assert metrics.internal_scales_history[1:] == tuple(scales[:4])
    assert metrics.internal_scales == scales[selected - 1] == scales[-1]  # of the network that was tested
    assert len(set(scales)) == 4


DIVERGING = [table1("direct", scale_learning_rate=rate, scale_warmup_epochs=0) for rate in (1e3, 1e30)]
DIVERGING += [table1("direct", learning_rate=1e30)]
DIVERGING += [system("ours_spacings", scale_learning_rate=60.0, scale_warmup_epochs=0)]


@pytest.mark.parametrize("spec", DIVERGING)
def test_a_diverging_run_is_no_result(spec, built):
    size = 168 if spec.model == "table1" else 56
    with pytest.raises(TrainingDiverged, match=rf"seed 0: diverged in epoch 1 of 2 .* {size} pixels\)"):
        train(spec, progress=lambda *_: pytest.fail("an epoch was made"))


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({}, {0: (0.01, 0), 1: (0.01, 0.01 / 395), 394: (0.01, 0.01 * 394 / 395), 395: (0.01, 0.01), 1579: (0.01, 0.01),
              1580: (0.001, 0.0075), 4739: (0.0001, 0.005625)}),
        ({"dataset": "mnist_scale"}, {0: (0.01, 0), 789: (0.01, 0.005 * 789 / 790), 790: (0.01, 0.005),
                                      1580: (1e-3, 5e-4), 4739: (1e-4, 5e-5)}),
        ({"epochs": 6}, {0: (0.01, 0), 39: (0.01, 0.01 * 39 / 40), 40: (0.01, 0.01), 158: (0.001, 0.0075)}),
    ],
)  # fmt: skip
def test_learning_rates(schedule, rates):
    """10,000 images in batches of 128: 79 steps per epoch."""
    schedule = TrainingSpec.paper_shaped(**schedule)
    for step, expected in rates.items():
        assert learning_rates(schedule, step, 79) == pytest.approx(expected, rel=1e-12)
    without_warmup = schedule.model_copy(update={"scale_warmup_epochs": 0})
    assert learning_rates(without_warmup, 0, 79) == (0.01, schedule.scale_learning_rate)


def test_learning_rates_are_used(monkeypatch):
    """The optimiser gets the schedule step by step: eight steps of three groups; lengths learn in shrunk pixels."""
    seen, step = [], torch.optim.Adam.step

    def spy(optimiser):
        seen.append(tuple(group["lr"] for group in optimiser.param_groups))
        return step(optimiser)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    spec = table1(scale_warmup_epochs=1)
    train(spec)
    expected = [learning_rates(spec.training, step, 4) for step in range(8)]
    assert seen == [(weights, scales, scales / 3) for weights, scales in expected]
    assert [rates[1] for rates in seen[:5]] == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01])


def test_dropout_draws_from_a_stream_of_its_own(monkeypatch):
    """Negative control: with another stream for dropout alone the losses differ; without dropout they do not."""
    losses = {}
    for dropout, shift in itertools.product((0.5, 0.0), (0, 1)):
        monkeypatch.setattr(tasks, "build", lambda name, *, augmented, dropout=dropout: Small(None, dropout))
        stream = lambda purpose, seed, shift=shift: tasks.random_stream(purpose, seed + shift)  # noqa: E731
        monkeypatch.setattr(training, "random_stream", stream)
        losses[dropout, shift] = train(system()).metrics.train_loss_history
    assert losses[0.5, 0] != losses[0.5, 1] and losses[0.0, 0] == losses[0.0, 1]
    draws = [tasks.random_stream(name, seed).initial_seed() for name in ("augmentation", "dropout") for seed in (0, 1)]
    assert len({*draws, 0, 1}) == 6


def test_only_training_images_are_augmented_and_afresh(monkeypatch, built):
    seen, forward = {}, Small.forward
    for augmented in (False, True):
        seen[augmented] = shown = {True: [], False: []}
        spy = lambda net, x, shown=shown: (shown[net.training].append(x.clone()), forward(net, x))[1]  # noqa: E731
        monkeypatch.setattr(Small, "forward", spy)
        train(system(augmented=augmented))
    plain, rescaled = seen[False], seen[True]
    assert len(rescaled[True]) == 8  # two epochs of four steps
    assert not any(torch.equal(*pair) for pair in zip(rescaled[True], plain[True], strict=True))
    assert all(torch.equal(*pair) for pair in zip(rescaled[False], plain[False], strict=True))
    for augmented in (False, True):  # the second epoch has the same images in another order, or other ones
        sums = torch.cat(seen[augmented][True]).sum((1, 2, 3))
        assert torch.allclose(*(part.sort().values for part in sums.split(64))) is not augmented


def test_error_at_each_of_the_45_scales():
    errors = train(table1(epochs=1, shown=20)).metrics.test_error_by_scale
    assert list(errors) == [f"{scale:.4f}" for scale in paper_test_scales()]
    assert len(errors) == 45 and len({*errors.values()}) > 1
    assert all(error == pytest.approx(round(error / 5) * 5) for error in errors.values())  # of 20 digits


def test_error_by_data_scale_adds_up_and_bins_hold_their_lower_edge(built):
    metrics = train(system()).metrics
    edges, errors = zip(*metrics.test_error_by_scale.items(), strict=True)
    assert edges == tuple(f"0.{tenth}000" for tenth in range(3, 10))
    bins = torch.histc(tasks.mnist_scale(0, counts=(64, 40, 300))["test"].data_scales, 7, 0.3, 1.0)
    assert (bins * torch.tensor(errors)).sum().item() / 300 == pytest.approx(metrics.test_error, abs=1e-4)
    scales = torch.tensor([0.3, 0.4, 0.4999999, 0.9999], dtype=torch.float64)
    errors = tasks.error_by_data_scale(torch.tensor([False, True, False, True]), scales)
    assert errors == {"0.3000": 0.0, "0.4000": 50.0, "0.9000": 100.0}  # empty ones are left out


def test_change_of_outputs_by_factor(monkeypatch, built):
    """Of digits rendered anew from the originals, at 0.5 times each factor."""
    asked, split = [], type(tasks.mnist_scale(0, counts=(1, 1, 1))["test"])
    scaled = split.scaled
    monkeypatch.setattr(split, "scaled", lambda split, *shown: (asked.append(shown), scaled(split, *shown))[1])
    metrics = train(system(shown=20)).metrics
    asked = [shown for shown in asked if shown[1] is not None]  # at a data scale that is not the images' own
    assert {*(scale for _, scale in asked)} == {0.5 * factor for factor in EQUIVARIANCE_FACTORS}
    assert all(indices == slice(0, 20) for indices, _ in asked)
    keys = ["0.5000", "0.5946", "0.7071", "0.8409", "1.0000", "1.1892", "1.4142", "1.6818", "2.0000"]
    assert list(metrics.equivariance_error) == list(metrics.prediction_change) == keys
    assert [key for key in keys if metrics.equivariance_error[key] == 0] == ["1.0000"]
    assert metrics.prediction_change["1.0000"] == 0
    assert all(change == pytest.approx(5 * round(change / 5)) for change in metrics.prediction_change.values())
    none = train(system()).metrics
    assert (none.equivariance_error, none.prediction_change) == (None, None)
