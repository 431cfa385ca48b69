"""The machine under a run: what is refused where, settings of CUDA devices (readable without one), seeds, memory."""

import ctypes
import subprocess
import sys
import types
import warnings
from contextlib import nullcontext

import pytest
import torch

from scalestudy.training import device as module
from scalestudy.training.device import keep_freed_memory, repeatable_products, reproducible, require_precision

MATMUL, CUDNN, CPU = torch.backends.cuda.matmul, torch.backends.cudnn, torch.device("cpu")


def settings():
    flags = CUDNN.enabled, CUDNN.deterministic, CUDNN.benchmark
    return MATMUL.fp32_precision, CUDNN.conv.fp32_precision, *flags


@pytest.fixture(params=["as_torch_starts", "tf32", "ieee"])
def before(request):
    """Settings that a session may have made before a run; put back after the test."""
    original = settings()
    assert original[1:] == ("tf32", True, False, False)  # by itself float32 is not full float32
    if request.param != "as_torch_starts":
        MATMUL.fp32_precision = CUDNN.conv.fp32_precision = request.param
    yield settings()
    MATMUL.fp32_precision, CUDNN.conv.fp32_precision = original[:2]


@pytest.mark.parametrize(("name", "expected"), [("float32", "ieee"), ("float64", "ieee"), ("tf32", "tf32")])
def test_products_hold_whatever_was_set_before(name, expected, before):
    with repeatable_products(name):
        assert settings() == (expected, expected, True, True, False)
    assert settings() == before
    with pytest.raises(KeyError), repeatable_products(name):
        raise KeyError
    assert settings() == before


def test_older_switches(monkeypatch):
    """Torch before 2.9 has `allow_tf32` only."""
    matmul = types.SimpleNamespace(allow_tf32=False)
    cudnn = types.SimpleNamespace(allow_tf32=True, enabled=True, deterministic=False, benchmark=False)
    backends = types.SimpleNamespace(cudnn=cudnn, cuda=types.SimpleNamespace(matmul=matmul))
    monkeypatch.setattr(torch, "backends", backends)
    for name, expected in (("float32", False), ("tf32", True)):
        with repeatable_products(name):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (expected, expected)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, True)


def test_the_older_switches_were_not_mixed_with_the_new_ones():
    """A session that reads or sets the older ones goes on working after a run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions of torch warn of the older ones
        before = MATMUL.allow_tf32, CUDNN.allow_tf32
        with repeatable_products("tf32"):
            pass
        assert (MATMUL.allow_tf32, CUDNN.allow_tf32) == before


def test_tf32_needs_a_device_that_has_it(monkeypatch):
    require_precision("float32", CPU)
    message = "precision 'tf32' needs a CUDA device of compute capability 8.0 or more, got {}; use 'float32'"
    with pytest.raises(ValueError, match=message.format("'cpu'")):
        require_precision("tf32", CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ValueError, match=message.format("'cuda:1' of 7.5")):
        require_precision("tf32", torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    require_precision("tf32", torch.device("cuda"))


def test_a_run_has_its_own_global_stream():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with reproducible("float32", 2, CPU) as generators:
        assert generators == [torch.default_generator]
        inside = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(inside, torch.rand(3, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize(("device", "number"), [("cuda", 1), ("cuda:0", 0)])
def test_a_run_on_a_gpu_has_its_generator(device, number, monkeypatch):
    """On a GPU dropout draws from it; here two generators of the CPU stand for those of two GPUs."""
    gpus, entered, fork = tuple(torch.Generator() for _ in range(2)), [], torch.random.fork_rng
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "default_generators", gpus)
    monkeypatch.setattr(torch.cuda, "device", lambda index: entered.append(index) or nullcontext())
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: entered.append(devices) or fork(devices=[]))
    with reproducible("float32", 3, torch.device(device)) as generators:
        assert generators == [torch.default_generator, gpus[number]]
        assert [generator.initial_seed() for generator in generators] == [3, 3]
    assert entered == [number, [number]]


PROGRAM = """
import resource, sys
from scalestudy.training.device import keep_freed_memory
assert sys.argv[1] == "give back" or keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(64 << 20)
    block[::4096] = bytes(len(block) // 4096)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_freed_memory_is_used_again():
    """Pages that the system had to hand out for 64 MiB, 16,384 small pages, of which as much had been freed before."""
    commands = [[sys.executable, "-c", PROGRAM, argument] for argument in ("keep", "give back")]
    kept, given = (int(subprocess.run(one, capture_output=True, text=True, check=True).stdout) for one in commands)
    assert kept < 100
    assert given > 1000  # negative control


def test_other_libraries_say_no(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"": "max 100000"}, 6),
        ({"": "250000 100000"}, 2),
        ({"": "50000 100000"}, 1),
        ({"": "900000 100000"}, 6),
        ({}, 6),
        ({"jobs/one": "300000 100000"}, 3),
        ({"jobs/one": "max 100000", "jobs": "200000 100000", "": "500000 100000"}, 2),
    ],
)
def test_cores_within_affinity_and_quotas(quotas, cores, tmp_path, monkeypatch):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/elsewhere\n0::/jobs/one\n")
    (tmp_path / "sys/fs/cgroup/jobs/one").mkdir(parents=True)
    for group, quota in quotas.items():
        (tmp_path / "sys/fs/cgroup" / group / "cpu.max").write_text(quota)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    monkeypatch.setattr(module, "Path", lambda path: tmp_path / path.lstrip("/"))
    assert module.usable_cores() == cores
