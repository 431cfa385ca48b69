"""Precision of a run: what is refused where, and the settings of CUDA devices, which can be read without one."""

import types
import warnings
from collections.abc import Iterator

import pytest
import torch

from scalestudy.training import device
from scalestudy.training.device import DTYPES, deterministic_convolutions, float32_products, require_precision

MATMUL, CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn


def settings() -> tuple[str, str]:
    return MATMUL.fp32_precision, CUDNN.conv.fp32_precision


@pytest.fixture(params=["as_torch_starts", "tf32", "ieee"])
def before(request) -> Iterator[tuple[str, str]]:
    """Settings that a session may have made before a run; put back after the test."""
    original = settings()
    if request.param != "as_torch_starts":
        MATMUL.fp32_precision = CUDNN.conv.fp32_precision = request.param
    yield settings()
    MATMUL.fp32_precision, CUDNN.conv.fp32_precision = original


def test_torch_starts_with_tf32_convolutions() -> None:
    """Negative control of the next test: without `float32_products`, float32 is not full float32."""
    assert CUDNN.conv.fp32_precision == "tf32"


@pytest.mark.parametrize(("name", "expected"), [("float32", "ieee"), ("float64", "ieee"), ("tf32", "tf32")])
def test_products_hold_whatever_was_set_before(name: str, expected: str, before: tuple[str, str]) -> None:
    with float32_products(name):
        assert settings() == (expected, expected)
    assert settings() == before


def test_products_end_with_an_error_too(before: tuple[str, str]) -> None:
    with pytest.raises(KeyError), float32_products("tf32"):
        raise KeyError
    assert settings() == before


def test_older_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch before 2.9 has `allow_tf32` only."""
    matmul, cudnn = types.SimpleNamespace(allow_tf32=False), types.SimpleNamespace(allow_tf32=True)
    backends = types.SimpleNamespace(cudnn=cudnn, cuda=types.SimpleNamespace(matmul=matmul))
    monkeypatch.setattr(device, "torch", types.SimpleNamespace(backends=backends))
    for name, expected in (("float32", False), ("tf32", True)):
        with float32_products(name):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (expected, expected)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, True)


def test_the_older_switches_were_not_mixed_with_the_new_ones() -> None:
    """A session that reads or sets the older ones goes on working after a run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions of torch warn of the older ones
        before = MATMUL.allow_tf32
        with float32_products("tf32"):
            pass
        assert MATMUL.allow_tf32 is before
        with float32_products("float32"):
            pass
        assert CUDNN.allow_tf32 is True


def test_convolutions_are_deterministic_inside_only() -> None:
    before = CUDNN.enabled, CUDNN.deterministic, CUDNN.benchmark
    assert before == (True, False, False)
    with deterministic_convolutions():
        assert (CUDNN.enabled, CUDNN.deterministic, CUDNN.benchmark) == (True, True, False)
    assert (CUDNN.enabled, CUDNN.deterministic, CUDNN.benchmark) == before


def test_tf32_needs_a_device_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DTYPES.keys() - {"tf32"}:
        require_precision(name, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"precision 'tf32' needs a CUDA device, got 'cpu'; use 'float32'"):
        require_precision("tf32", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ValueError, match=r"of compute capability 8.0 or more, got 'cuda:1' of 7.5; use 'float32'"):
        require_precision("tf32", torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    require_precision("tf32", torch.device("cuda"))


def test_types_of_tensors() -> None:
    assert (DTYPES["float32"], DTYPES["tf32"], DTYPES["float64"]) == (torch.float32, torch.float32, torch.float64)
