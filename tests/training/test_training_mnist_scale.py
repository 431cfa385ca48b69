"""Training runs on MNIST-Scale: what they share with the others, and what is their own; small networks, real digits."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scalestudy.training.train as training
from scalestudy import models
from scalestudy.data import MnistScaleSplit, mnist_scale
from scalestudy.layers.scales import FixedScales, SpacingScales
from scalestudy.models.frame import MnistScaleNet
from scalestudy.training import tasks
from scalestudy.training.record import Record
from scalestudy.training.spec import EQUIVARIANCE_FACTORS, SYSTEM_NAMES, MnistScaleSpec, RunSpec, TrainingSpec
from scalestudy.training.train import TrainingDiverged, build_model, learning_rates, make_optimiser, train

pytestmark = pytest.mark.usefixtures("mnist")


class Small(MnistScaleNet):
    """Averages, with the mean of its scales as a gain; dropout as in the head of all systems."""

    def __init__(self, scales: nn.Module | None, dropout: float = 0.5) -> None:
        super().__init__()
        self.scales = scales
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(196, 10))

    def features(self, x: Tensor) -> Tensor:
        gain = 1 if self.scales is None else self.scales().mean().to(x)
        return self.norm(nn.functional.avg_pool2d(x, 4)) * gain


@pytest.fixture(autouse=True)
def built(monkeypatch):
    """Arguments of `models.build`, which makes networks of `Small` in these tests."""
    calls = []
    scales = {"sesn": lambda: FixedScales(1.5, 2.0, 4), "ours_spacings": lambda: SpacingScales(1.5, 2.0, 4)}

    def build(name, *, augmented):
        calls.append((name, augmented))
        return Small(scales.get(name, lambda: None)())

    monkeypatch.setattr(tasks, "build", build)
    return calls


def spec_of(
    model: str = "cnn", seed: int = 0, augmented: bool = False, equivariance: int = 0, precision="float32", **recipe
) -> RunSpec:
    data = MnistScaleSpec(
        augmented=augmented, train_images=64, validation_images=40, test_images=300, equivariance_images=equivariance
    )
    recipe = {"epochs": 2, "batch_size": 16, "milestones": (1.5,), "scale_warmup_epochs": 0.5} | recipe
    return RunSpec(model=model, data=data, training=TrainingSpec(**recipe), seed=seed, precision=precision)


def test_a_system_without_scales_has_none_in_its_record() -> None:
    record = train(spec_of())
    assert Record.model_validate_json(record.model_dump_json()) == record
    metrics = record.metrics
    assert (metrics.internal_scales, metrics.internal_scales_history) == ((), ((), (), ()))
    assert (len(metrics.train_loss_history), len(metrics.validation_error_history)) == (2, 2)


def test_fixed_and_learned_scales() -> None:
    start = (1.5, 1.889882, 2.381102, 3.0)
    assert train(spec_of("sesn")).metrics.internal_scales_history == (start,) * 3
    history = train(spec_of("ours_spacings")).metrics.internal_scales_history
    assert history[0] == pytest.approx(start, abs=1e-5)
    assert all(after != before for after, before in zip(history[1], start, strict=True))


@pytest.mark.parametrize("name", SYSTEM_NAMES)
def test_scale_parameters_of_the_systems_are_found(name: str, monkeypatch) -> None:
    """Every parameter of a system's own scales is in the groups with the scales' learning rate, no other is."""
    monkeypatch.setattr(tasks, "build", models.build)
    net = build_model(RunSpec.baseline(name))
    weights, unitless, lengths = (group["params"] for group in make_optimiser(net).param_groups)
    assert len(weights) + len(unitless) + len(lengths) == len(list(net.parameters()))
    by_id = {id(parameter): label for label, parameter in net.named_parameters()}
    found = {by_id[id(parameter)].split(".")[-1] for parameter in (*unitless, *lengths)}
    expected = {
        "ours_isr": {"sigma_basis", "gamma"}, "ours_isr_like_sesn": {"sigma_basis", "gamma"},
        "ours_spacings": {"sigma_basis", "gamma"}, "ours_direct": {"sigmas"}, "single_scale": {"sigmas"},
        "interval_scales": {"theta"},
    }  # fmt: skip
    assert found == expected.get(name, set())
    assert not any(by_id[id(parameter)].startswith("scales") for parameter in weights)


def test_what_reaches_the_network(built) -> None:
    for augmented in (True, False):
        build_model(spec_of("dss", augmented=augmented))
    assert built == [("dss", True), ("dss", False)]
    net = build_model(spec_of(precision="float64"))
    assert all(parameter.dtype == torch.float64 for parameter in net.parameters())
    assert train(spec_of(precision="float64")).metrics.test_error <= 100


def test_same_seed_same_metrics_whatever_the_global_state() -> None:
    record = train(spec_of(augmented=True))
    torch.manual_seed(12345)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert train(spec_of(augmented=True)).metrics == record.metrics
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert train(spec_of(augmented=True, seed=1)).metrics.train_loss_history != record.metrics.train_loss_history


def test_dropout_draws_from_the_seed(monkeypatch) -> None:
    """Negative control: with another stream for dropout alone the losses differ; without dropout they do not."""
    losses = {}
    for dropout in (0.5, 0.0):
        monkeypatch.setattr(tasks, "build", lambda name, *, augmented, dropout=dropout: Small(None, dropout))
        for shift in (0, 1):
            stream = lambda purpose, seed, shift=shift: tasks.random_stream(purpose, seed + shift)  # noqa: E731
            monkeypatch.setattr(training, "random_stream", stream)
            losses[dropout, shift] = train(spec_of()).metrics.train_loss_history
    assert losses[0.5, 0] != losses[0.5, 1]
    assert losses[0.0, 0] == losses[0.0, 1]


def test_only_training_images_are_augmented_and_afresh(monkeypatch) -> None:
    seen = []
    forward = Small.forward
    monkeypatch.setattr(Small, "forward", lambda net, x: (seen.append((net.training, x.clone())), forward(net, x))[1])
    images = {}
    for augmented in (False, True):
        seen.clear()
        train(spec_of(augmented=augmented, equivariance=0))
        images[augmented] = {mode: [x for training_mode, x in seen if training_mode == mode] for mode in (True, False)}
    assert len(images[True][True]) == 8  # two epochs of four steps
    assert not any(torch.equal(*pair) for pair in zip(images[True][True], images[False][True], strict=True))
    assert all(torch.equal(*pair) for pair in zip(images[True][False], images[False][False], strict=True))
    epochs = [torch.cat(images[False][True][part]).sum((1, 2, 3)).sort().values for part in (slice(4), slice(4, 8))]
    assert torch.allclose(*epochs)  # the same images in another order
    epochs = [torch.cat(images[True][True][part]).sum((1, 2, 3)).sort().values for part in (slice(4), slice(4, 8))]
    assert not torch.allclose(*epochs)


def test_error_by_data_scale_adds_up_to_the_test_error() -> None:
    metrics = train(spec_of(equivariance=0)).metrics
    scales = mnist_scale(0, counts=(64, 40, 300))["test"].data_scales
    keys = [f"{edge:.1f}000" for edge in np.arange(0.3, 0.95, 0.1)]
    assert list(metrics.test_error_by_scale) == keys
    counts = [int(((scales >= float(key)) & (scales < float(key) + 0.1)).sum()) for key in keys]
    assert sum(counts) == 300
    wrong = sum(error * count for error, count in zip(metrics.test_error_by_scale.values(), counts, strict=True))
    assert wrong / 300 == pytest.approx(metrics.test_error, abs=1e-4)


def test_bins_hold_their_lower_edge_and_empty_ones_are_left_out() -> None:
    scales = torch.tensor([0.3, 0.4, 0.4999999, 0.9999], dtype=torch.float64)
    errors = tasks.error_by_data_scale(torch.tensor([False, True, False, True]), scales)
    assert errors == {"0.3000": 0.0, "0.4000": 50.0, "0.9000": 100.0}


def test_change_of_outputs_by_factor() -> None:
    metrics = train(spec_of(equivariance=20)).metrics
    keys = ["0.5000", "0.5946", "0.7071", "0.8409", "1.0000", "1.1892", "1.4142", "1.6818", "2.0000"]
    assert list(metrics.equivariance_error) == list(metrics.prediction_change) == keys
    assert (metrics.equivariance_error["1.0000"], metrics.prediction_change["1.0000"]) == (0, 0)
    assert all(metrics.equivariance_error[key] > 0 for key in keys if key != "1.0000")
    assert all(change == pytest.approx(5 * round(change / 5)) for change in metrics.prediction_change.values())
    none = train(spec_of(equivariance=0)).metrics
    assert (none.equivariance_error, none.prediction_change) == (None, None)


def test_digits_of_that_test_are_rendered_from_the_originals(monkeypatch) -> None:
    asked = []
    batch = MnistScaleSplit.batch

    def spy(split, indices, data_scale=None):
        if data_scale is not None:
            asked.append((indices, data_scale))
        return batch(split, indices, data_scale)

    monkeypatch.setattr(MnistScaleSplit, "batch", spy)
    train(spec_of(equivariance=20))
    assert all(indices == slice(0, 20) for indices, _ in asked)
    assert {scale for _, scale in asked} == {0.5 * factor for factor in EQUIVARIANCE_FACTORS}
    assert (min(EQUIVARIANCE_FACTORS), max(EQUIVARIANCE_FACTORS), len(EQUIVARIANCE_FACTORS)) == (0.5, 2.0, 9)


def test_a_large_scale_is_no_result() -> None:
    """The bound is the side of the enlarged images, 56 pixels."""
    with pytest.raises(TrainingDiverged, match=r"MNIST-Scale, ours_spacings, seed 0: diverged .* images of 56 pixels"):
        train(spec_of("ours_spacings", scale_learning_rate=60.0, scale_warmup_epochs=0))


def test_nan_is_no_result(monkeypatch) -> None:
    def poisoned(spec: RunSpec) -> nn.Module:
        net = build_model(spec)
        net.head[1].weight.data[0, 0] = float("nan")
        return net

    monkeypatch.setattr(training, "build_model", poisoned)
    with pytest.raises(TrainingDiverged, match=r"diverged in epoch 1 of 2 .*mean loss nan"):
        train(spec_of())


@pytest.mark.parametrize(
    ("step", "weights", "scales"),
    [
        (0, 0.01, 0.0),
        (1, 0.01, 0.005 / 790),
        (789, 0.01, 0.005 * 789 / 790),
        (790, 0.01, 0.005),
        (1579, 0.01, 0.005),
        (1580, 0.001, 0.0005),
        (3160, 0.0001, 0.00005),
        (4739, 0.0001, 0.00005),
    ],
)
def test_learning_rates_of_the_paper(step: int, weights: float, scales: float) -> None:
    schedule = TrainingSpec.paper_shaped(dataset="mnist_scale")
    assert learning_rates(schedule, step, 79) == pytest.approx((weights, scales), rel=1e-12)


def test_timings_and_progress() -> None:
    calls = []
    made = train(spec_of(), progress=lambda done, epochs: calls.append((done, epochs))).provenance
    assert calls == [(1, 2), (2, 2)]
    assert 0 < made.train_ms_per_image < 1000 * made.seconds / (2 * 64)
    assert 0 < made.inference_ms_per_image < 1000 * made.seconds / 300


def test_streams_of_one_seed_are_independent() -> None:
    names = ("augmentation", "dropout")
    draws = [tasks.random_stream(name, seed).initial_seed() for name in names for seed in (0, 1)]
    assert len({*draws, 0, 1}) == 6
    assert draws == [tasks.random_stream(name, seed).initial_seed() for name in names for seed in (0, 1)]
