"""One training run: schedule, selection, history, divergence, determinism, on a few real digits.

MNIST-Scale: see ``test_training_mnist_scale.py``.
"""

import math

import numpy as np
import pytest
import torch

import scalestudy.training.train as training
from scalestudy.data import LogUniform, paper_test_scales
from scalestudy.layers.scales import FixedScales, IsrScales, SpacingScales, StepRatioScales
from scalestudy.training import tasks
from scalestudy.training.record import Record
from scalestudy.training.spec import DataSpec, RunSpec, ScalesSpec, TrainingSpec
from scalestudy.training.train import TrainingDiverged, build_model, learning_rates, make_optimiser, train

pytestmark = pytest.mark.usefixtures("mnist")

START = (2.0, round(2 * 3**0.5, 6), 6.0)


def spec_of(
    parameterisation: str = "isr", seed: int = 0, scale_test_images: int = 0, order: str = "relu_norm", **recipe
) -> RunSpec:
    """64 digits of 56 x 56 pixels, two epochs of four steps."""
    recipe = {"epochs": 2, "batch_size": 16, "scale_warmup_epochs": 0.5, "milestones": (1.5,)} | recipe
    return RunSpec(
        scales=ScalesSpec(parameterisation=parameterisation),
        data=DataSpec(
            distribution=LogUniform(low=1, high=4),
            train_images=64,
            validation_images=40,
            test_images=50,
            scale_test_images=scale_test_images,
            shrink=3,
        ),
        training=TrainingSpec(**recipe),
        order=order,
        seed=seed,
    )


@pytest.fixture(scope="module")
def record() -> Record:
    return train(spec_of())


def test_the_record_is_valid_and_complete(record: Record) -> None:
    assert Record.model_validate_json(record.model_dump_json()) == record
    assert record.spec == spec_of()
    metrics = record.metrics
    assert (len(metrics.train_loss_history), len(metrics.validation_error_history)) == (2, 2)
    assert len(metrics.internal_scales_history) == 3
    assert metrics.validation_error == min(metrics.validation_error_history)
    assert metrics.internal_scales == metrics.internal_scales_history[metrics.selected_epoch]
    assert metrics.test_error_by_scale is None
    assert record.provenance.device.startswith("cpu")
    assert record.provenance.seconds > 0
    assert record.provenance.torch == torch.__version__
    assert 0 < record.provenance.inference_ms_per_image < 1000 * record.provenance.seconds
    assert 0 < record.provenance.train_ms_per_image < 1000 * record.provenance.seconds / 64


def test_loss_decreases() -> None:
    losses = train(spec_of(epochs=8, milestones=())).metrics.train_loss_history
    assert losses[-1] < 0.5 * losses[0]


def test_history_of_scales_is_in_pixels_of_the_paper(record: Record) -> None:
    """The canvas is a third of the paper's; recorded scales are not."""
    history = record.metrics.internal_scales_history
    assert history[0] == pytest.approx(START, abs=1e-5)
    assert build_model(spec_of()).conv.scales.values() == pytest.approx([value / 3 for value in START], rel=1e-6)
    assert history[1] != history[0]
    assert history[2] != history[1]
    assert max(abs(after - before) for after, before in zip(history[2], START, strict=True)) < 1


def test_fixed_scales_do_not_move() -> None:
    metrics = train(spec_of("fixed")).metrics
    assert metrics.internal_scales_history == (START,) * 3


def test_the_first_step_of_the_scales_moves_nothing() -> None:
    """The warm-up starts at 0: one epoch of one step leaves the scales where they were."""
    history = train(spec_of(epochs=1, batch_size=64, scale_warmup_epochs=5)).metrics.internal_scales_history
    assert history[1] == history[0]
    history = train(spec_of(epochs=1, batch_size=64, scale_warmup_epochs=0)).metrics.internal_scales_history
    assert history[1] != history[0]


def test_same_seed_same_metrics_other_seed_others(record: Record) -> None:
    torch.manual_seed(12345)  # must not matter
    assert train(spec_of()).metrics == record.metrics
    other = train(spec_of(seed=1)).metrics
    assert other.train_loss_history != record.metrics.train_loss_history


@pytest.mark.parametrize("parameterisation", ["step_ratio", "spacing", "direct"])
def test_every_parameterisation_trains(parameterisation: str, record: Record) -> None:
    history = train(spec_of(parameterisation)).metrics.internal_scales_history
    assert history[0] == pytest.approx(START, abs=1e-5)
    assert history[-1] != history[0]
    assert history[-1] != record.metrics.internal_scales_history[-1]


def test_the_order_of_layers_reaches_the_network(record: Record) -> None:
    assert build_model(spec_of(order="norm_relu")).order == "norm_relu"
    assert train(spec_of(order="norm_relu")).metrics.train_loss_history != record.metrics.train_loss_history


def test_float64(record: Record) -> None:
    spec = spec_of().model_copy(update={"precision": "float64"})
    assert all(parameter.dtype == torch.float64 for parameter in build_model(spec).parameters())
    assert train(spec).metrics.train_loss_history == pytest.approx(record.metrics.train_loss_history, rel=0.05)


def test_tf32_is_refused_before_anything_is_loaded(monkeypatch) -> None:
    monkeypatch.setattr(training, "task_of", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=r"precision 'tf32' needs a CUDA device, got 'cpu'; use 'float32'"):
        train(spec_of().model_copy(update={"precision": "tf32"}))


def test_float32_is_full_float32_for_the_whole_run(monkeypatch) -> None:
    """Settings of CUDA devices, which can be read without one, as training and tests see them."""
    matmul, cudnn, seen = torch.backends.cuda.matmul, torch.backends.cudnn, set()
    tested, step = tasks.DynamicScaleTask.test, training.train_step

    def look(original):
        def spy(*arguments):
            seen.add((original.__name__, matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic))
            return original(*arguments)

        return spy

    monkeypatch.setattr(training, "train_step", look(step))
    monkeypatch.setattr(tasks.DynamicScaleTask, "test", look(tested))
    before = matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic
    train(spec_of(epochs=1))
    assert seen == {("train_step", "ieee", "ieee", True), ("test", "ieee", "ieee", True)}
    assert (matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic) == before
    assert cudnn.conv.fp32_precision == "tf32"  # what torch itself would do


def test_fused_adam_is_adam() -> None:
    """The optimiser of the runs against torch's plain one, over steps with each group's own rate."""
    nets = [build_model(spec_of("isr")) for _ in range(2)]
    fused = make_optimiser(nets[0])
    names = [[parameter.shape for parameter in group["params"]] for group in fused.param_groups]
    plain = make_optimiser(nets[1])
    plain = torch.optim.Adam([{"params": group["params"]} for group in plain.param_groups], fused=False, foreach=False)
    assert names == [[parameter.shape for parameter in group["params"]] for group in plain.param_groups]
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        for first, second in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            first.grad = torch.randn(first.shape, generator=generator)
            second.grad = first.grad.clone()
        for optimiser in (fused, plain):
            for group, rate in zip(optimiser.param_groups, (0.01, 0.01 * step / 20, 0.003), strict=True):
                group["lr"] = rate
            optimiser.step()
    for first, second in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(first, second, rtol=1e-5, atol=1e-6)


def test_global_random_states_are_untouched() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(spec_of(epochs=1))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_progress_is_called_after_each_epoch() -> None:
    calls = []
    train(spec_of(epochs=3), progress=lambda done, epochs: calls.append((done, epochs)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_error_at_each_of_the_45_scales() -> None:
    metrics = train(spec_of(epochs=1, scale_test_images=20)).metrics
    assert list(metrics.test_error_by_scale) == [f"{scale:.4f}" for scale in paper_test_scales()]
    assert len(metrics.test_error_by_scale) == 45
    errors = list(metrics.test_error_by_scale.values())
    assert all(error == pytest.approx(round(error / 5) * 5) for error in errors)  # of 20 digits
    assert len(set(errors)) > 1


@pytest.mark.parametrize(("errors", "selected"), [([30, 10, 10, 20], 2), ([5, 5, 5, 5], 1), ([40, 30, 20, 10], 4)])
def test_the_first_best_epoch_is_tested(errors: list[float], selected: int, monkeypatch) -> None:
    scales_at_calls, script = [], iter([*errors, 7.5])

    def scripted(task, net) -> float:
        scales_at_calls.append(training._paper_pixels(net.conv.scales, 3))
        return next(script)

    monkeypatch.setattr(tasks.DynamicScaleTask, "validation_error", scripted)
    monkeypatch.setattr(tasks.DynamicScaleTask, "test", lambda task, net: tasks.Scores(scripted(task, net), 0.5))
    metrics = train(spec_of(epochs=4)).metrics
    assert metrics.selected_epoch == selected
    assert metrics.validation_error == min(errors)
    assert metrics.test_error == 7.5
    assert metrics.internal_scales_history[1:] == tuple(scales_at_calls[:4])
    assert metrics.internal_scales == scales_at_calls[selected - 1]
    assert scales_at_calls[-1] == scales_at_calls[selected - 1]  # the network that was tested
    assert len(set(scales_at_calls)) == 4


@pytest.mark.parametrize(
    "recipe",
    [
        {"learning_rate": 1e30},
        {"scale_learning_rate": 1e8, "scale_warmup_epochs": 0},
        {"scale_learning_rate": 1e3, "scale_warmup_epochs": 0},
        {"scale_learning_rate": 1e30, "scale_warmup_epochs": 0},
    ],
    ids=str,
)
def test_a_diverging_run_is_no_result(recipe: dict[str, float]) -> None:
    calls = []
    with pytest.raises(TrainingDiverged, match=r"seed 0: diverged in epoch 1 of 2 .*; nothing is recorded"):
        train(spec_of("direct", **recipe), progress=lambda *done: calls.append(done))
    assert calls == []


@pytest.mark.parametrize("name", ["conv.weight", "linear.weight", "conv.scales.sigma_basis"])
def test_nan_is_no_result(name: str, monkeypatch) -> None:
    def poisoned(spec: RunSpec) -> torch.nn.Module:
        net = build_model(spec)
        dict(net.named_parameters())[name].data.flatten()[0] = math.nan
        return net

    monkeypatch.setattr(training, "build_model", poisoned)
    with pytest.raises(TrainingDiverged, match=r"diverged in epoch 1 of 2 .*nan"):
        train(spec_of())


def test_a_scale_below_zero_is_no_result(monkeypatch) -> None:
    def negative(spec: RunSpec) -> torch.nn.Module:
        net = build_model(spec)
        net.conv.scales.sigmas.data[1] = -0.1
        return net

    monkeypatch.setattr(training, "build_model", negative)
    with pytest.raises(TrainingDiverged, match=r"internal scales \(2\.0, -0\.3, 6\.0\)"):
        train(spec_of("direct", scale_learning_rate=0.0))


@pytest.mark.parametrize(
    ("step", "weights", "scales"),
    [
        (0, 0.01, 0.0),
        (1, 0.01, 0.01 / 395),
        (200, 0.01, 0.01 * 200 / 395),
        (394, 0.01, 0.01 * 394 / 395),
        (395, 0.01, 0.01),
        (1579, 0.01, 0.01),
        (1580, 0.001, 0.0075),
        (3159, 0.001, 0.0075),
        (3160, 0.0001, 0.005625),
        (4739, 0.0001, 0.005625),
    ],
)
def test_learning_rates_of_the_paper(step: int, weights: float, scales: float) -> None:
    """10,000 images in batches of 128: 79 steps per epoch."""
    assert learning_rates(TrainingSpec(), step, 79) == pytest.approx((weights, scales), rel=1e-12)


def test_shorter_schedules() -> None:
    short = TrainingSpec.paper_shaped(6)
    assert learning_rates(short, 0, 10) == (0.01, 0.0)
    assert learning_rates(short, 5, 10) == pytest.approx((0.01, 0.01))
    assert learning_rates(short, 20, 10) == pytest.approx((0.001, 0.0075))
    assert learning_rates(TrainingSpec(scale_warmup_epochs=0), 0, 79) == (0.01, 0.01)


@pytest.mark.parametrize("parameterisation", ["isr", "step_ratio", "spacing", "direct"])
def test_shrunk_scales_learn_as_fast_in_paper_pixels(parameterisation) -> None:
    """Adam's first step has the size of the learning rate: 0.01 paper pixels for lengths, 0.01 for gammas."""
    moved = {}
    for shrink in (1, 3):
        scales = ScalesSpec(parameterisation=parameterisation)
        data = DataSpec(distribution=LogUniform(low=1, high=8), shrink=shrink)
        net = build_model(RunSpec(data=data, scales=scales))
        optimiser = make_optimiser(net)
        lengths = {id(parameter) for parameter in net.conv.scales.parameters_in_pixels()}
        before = [parameter.clone() for parameter in net.conv.scales.parameters()]
        net.conv.scales().sum().backward()
        for group, rate in zip(optimiser.param_groups, (0.01, 0.01, 0.01 / shrink), strict=True):
            group["lr"] = rate
        optimiser.step()
        moved[shrink] = [
            ((parameter - old) * (shrink if id(parameter) in lengths else 1)).abs().max().item()
            for parameter, old in zip(net.conv.scales.parameters(), before, strict=True)
        ]
    assert moved[3] == pytest.approx(moved[1], rel=1e-3) and moved[1] == pytest.approx([0.01] * len(moved[1]), rel=1e-3)


def test_learning_rates_are_used(monkeypatch) -> None:
    """The optimiser gets the schedule step by step: eight steps of three groups; lengths learn in shrunk pixels."""
    seen = []

    class Spy(torch.optim.Adam):
        def step(self) -> None:
            seen.append(tuple(group["lr"] for group in self.param_groups))
            super().step()

    monkeypatch.setattr(torch.optim, "Adam", Spy)
    spec = spec_of(scale_warmup_epochs=1)
    train(spec)
    expected = [learning_rates(spec.training, step, 4) for step in range(8)]
    assert seen == [(weights, scales, scales / spec.data.shrink) for weights, scales in expected]
    assert spec.data.shrink == 3
    assert [rates[1] for rates in seen[:5]] == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01])


@pytest.mark.parametrize(
    ("parameterisation", "kind"),
    [("fixed", FixedScales), ("isr", IsrScales), ("step_ratio", StepRatioScales), ("spacing", SpacingScales)],
)
def test_build_model(parameterisation: str, kind: type) -> None:
    net = build_model(spec_of(parameterisation))
    assert isinstance(net.conv.scales, kind)
    assert (net.image_size, net.pool.kernel_size) == (56, 14)
    same, other = build_model(spec_of(parameterisation)), build_model(spec_of(parameterisation, seed=1))
    assert torch.equal(same.conv.weight, net.conv.weight)
    assert not torch.equal(other.conv.weight, net.conv.weight)
