"""Ways to learn scales that are not in the paper: who sees which images, when scales move, which are dropped."""

import pytest
import torch

from scalestudy.data import LogUniform
from scalestudy.layers.scales import FixedScales, KeptScales
from scalestudy.models.table1 import Table1Net
from scalestudy.training.scale_learning import maxima_won, scale_gradients
from scalestudy.training.spec import DataSpec, RunSpec, ScalesSpec, TrainingSpec
from scalestudy.training.state import CheckpointFile
from scalestudy.training.tasks import build_model, task_of
from scalestudy.training.train import Loop, train

pytestmark = pytest.mark.usefixtures("mnist")


def spec(mode="log", epochs=3, num_scales=3, data=(), **training):
    sizes = {"train_images": 40, "validation_images": 8, "test_images": 8, "shrink": 3, **dict(data)}
    return RunSpec(
        scales=ScalesSpec(parameterisation=mode, num_scales=num_scales),
        data=DataSpec(distribution=LogUniform(low=1, high=8), **sizes),
        training=TrainingSpec(
            **TrainingSpec.paper_shaped(epochs, 8).model_dump() | {"scale_warmup_epochs": 0} | training
        ),
    )


def test_scales_are_frozen_after_their_last_epoch():
    history = train(spec(epochs=4, scales_until=2)).metrics.internal_scales_history
    assert history[0] != history[1] != history[2] == history[3] == history[4]


def test_the_best_scale_is_never_dropped():
    assert len(train(spec("fixed", num_scales=4, drop_below=0.99)).metrics.internal_scales) >= 1


@pytest.mark.parametrize(
    "wrong", [{"held_out": 0.2}, {"held_out": 0.25, "slopes_at": (4,)}, {"held_out": 0.25, "slopes_at": (0,)}]
)
def test_what_cannot_run_is_refused(wrong):
    with pytest.raises(ValueError, match=r"held_out must be more than a batch|slopes_at must be epochs"):
        spec(**wrong)


def loop_of(run):
    task, net = task_of(run, torch.device("cpu")), build_model(run)
    return Loop(net, task, run.training), task, net


def test_weights_see_no_held_out_image_until_the_scales_are_frozen(monkeypatch):
    run = spec(held_out=0.25, scales_until=1)
    loop, task, net = loop_of(run)
    everything = task.splits["train"].batch(slice(0, 40))[0]

    def positions(images):
        return {(image == everything).flatten(1).all(1).nonzero().item() for image in images}

    of_weights, of_scales = [set(), set()], [set(), set()]
    forward = net.forward

    def seen(images):
        by_scales = any(one.requires_grad for one in net.conv.scales.parameters())
        (of_scales if by_scales else of_weights)[epoch].update(positions(images))
        return forward(images)

    monkeypatch.setattr(net, "forward", seen)
    for epoch in range(2):
        loop.epoch(epoch)
    assert of_weights == [set(range(30)), set(range(40))]
    assert of_scales[0] and of_scales[0] <= set(range(30, 40)) and not of_scales[1]


def test_scales_follow_the_held_out_gradient():
    """The first step of Adam has the sign of the gradient of a held-out batch, and the size of the rate."""
    loop, _, net = loop_of(spec(held_out=0.25, scales_until=1))
    loop.optimiser.param_groups[1]["lr"] = 0.01
    begun = loop.scale_learning.begin(0)
    assert begun == slice(30)
    loop.scale_learning.before_step()  # the first of two
    assert all(one.grad is None for one in net.conv.scales.parameters())
    loop.scale_learning.before_step()
    before = [one.item() for one in net.conv.scales.parameters()]
    gradients = [one.grad.item() for one in net.conv.scales.parameters()]
    loop.optimiser.step()
    moved = [one.item() - start for one, start in zip(net.conv.scales.parameters(), before, strict=True)]
    assert moved == pytest.approx([-0.01 if gradient > 0 else 0.01 for gradient in gradients], rel=1e-3)


def test_slopes_are_those_of_central_differences():
    run = spec(held_out=0.25, slopes_at=(1,), scale_learning_rate=0.0)
    loop, task, net = loop_of(run)
    net.double().conv.scales.log_isr.data.add_(0.02)  # away from where kernels change their size
    task.splits["train"] = type(task.splits["train"])(
        *(getattr(task.splits["train"], name) for name in ("digits", "labels", "data_scales", "canvas_size", "shrink")),
        dtype=torch.float64,
    )
    slopes = loop.scale_learning.end(0)
    assert set(slopes) == {"1 seen", "1 held out"} and loop.scale_learning.end(1) == {}

    def loss(images, labels, name, change):
        one = getattr(net.conv.scales, name)
        with torch.no_grad():
            one.add_(change)
            found = torch.nn.functional.cross_entropy(net(images), labels).item()
            one.sub_(change)
        return found

    batches = list(task.training_batches(8, slice(30, 40), shuffled=False))
    for place, name in enumerate(("log_sigma", "log_isr")):
        each = torch.tensor([(loss(*b, name, 1e-4) - loss(*b, name, -1e-4)) / 2e-4 for b in batches])
        expected = (each.mean().item(), each.std().item() / len(batches) ** 0.5)
        assert (slopes["1 held out"][place], slopes["1 held out"][place + 2]) == pytest.approx(
            expected, rel=2e-2, abs=2e-3
        )


def test_gradients_of_scales_leave_everything_as_it_was():
    net = build_model(spec())
    net.conv.scales.log_sigma.requires_grad_(False)
    images, labels = torch.randn(4, 1, 56, 56), torch.arange(4)
    assert all(gradient.abs() > 0 for gradient in scale_gradients(net, images, labels))
    assert [one.requires_grad for one in net.conv.scales.parameters()] == [False, True]
    assert all(one.grad is None for one in net.parameters())


def test_share_of_maxima_and_dropping():
    """A scale whose responses are tiny wins nothing; dropped, the network computes what it does with the others."""
    torch.manual_seed(0)
    scales = KeptScales(FixedScales.from_values([1.0, 1.5, 2.0, 6.0]))
    net, images = Table1Net(scales, image_size=56, pool_size=14).eval(), torch.rand(3, 1, 56, 56)
    won = maxima_won(net, images)
    assert won.sum().item() == pytest.approx(1) and len(won) == 4
    scales.drop(torch.tensor([True, False, True, False]))
    assert (scales.values(), scales.num_scales, net.conv.num_scales) == ([1.5, 6.0], 2, 2)
    scales.drop(torch.tensor([False, True]))
    assert scales.values() == [1.5]
    state = net.state_dict()
    again = Table1Net(KeptScales(FixedScales.from_values([1.0, 1.5, 2.0, 6.0])), image_size=56, pool_size=14).eval()
    again.load_state_dict(state)
    assert again.conv.scales.values() == [1.5] and torch.equal(again(images), net(images))


def test_dropped_scales_are_gone_from_the_record():
    history = train(spec("fixed", num_scales=6, drop_below=0.2)).metrics.internal_scales_history
    assert len(history[0]) == 6 > len(history[-1]) >= 1 and set(history[-1]) <= set(history[0])


@pytest.mark.parametrize(
    "run",
    [
        spec(held_out=0.25, scales_until=2, slopes_at=(1, 3)),
        spec("fixed", num_scales=6, drop_below=0.2),
        spec("direct", num_scales=1, data={"equivariance_images": 4, "images": "mnist"}),
    ],
    ids=["held out", "fewer", "one scale, invariance"],
)
def test_a_run_that_was_stopped_ends_as_it_would_have(run, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(done, epochs):
        if done == 2:
            raise Stopped

    monkeypatch.setattr("scalestudy.training.state._INTERVAL_SECONDS", 0.0)
    whole, file = train(run).metrics, tmp_path / "one.checkpoint"
    with pytest.raises(Stopped):
        train(run, checkpoint=CheckpointFile(file), progress=stop)
    assert train(run, checkpoint=CheckpointFile(file)).metrics == whole
    assert (whole.equivariance_error is not None) == bool(run.data.equivariance_images)
