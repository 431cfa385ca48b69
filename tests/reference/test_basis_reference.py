"""The sampled bases against every case of the reference file `basis_vectors.npz`, whatever its cases are called."""

import math
import re

import numpy as np
import pytest
import torch
from reference_files import arrays, deviation, or_skipped

from scalestudy.layers.basis import HermiteBasis, SeparableBasis, VaryingOrderBasis, VaryingSigmaBasis, dynamic_size

FILE = "basis_vectors.npz"
ATOL = 1e-6  # of the largest value
KNOWN = {
    "scales", "kernel_size", "mult", "min_scale", "max_order", "shape", "norm", "sum", "nonzero_rows", "funcs", "basis",
}  # fmt: skip


CASES = or_skipped(lambda: sorted({key.rpartition("/")[0] for key in arrays(FILE)}))


def case_of(name: str) -> dict[str, np.ndarray]:
    return {key.rpartition("/")[2]: value for key, value in arrays(FILE).items() if key.rpartition("/")[0] == name}


def basis_of(case: dict[str, np.ndarray]) -> HermiteBasis:
    effective_size = math.isqrt(int(case["shape"][0]))
    if "mult" in case:
        return VaryingSigmaBasis(effective_size, int(case["max_order"]), float(case["mult"]))
    return VaryingOrderBasis(effective_size)


def sampled(case: dict[str, np.ndarray], size: int | None = None) -> SeparableBasis:
    return basis_of(case).sample(torch.from_numpy(case["scales"]), int(case["kernel_size"]) if size is None else size)


@pytest.mark.parametrize("name", CASES)
def test_every_number_of_the_case(name: str) -> None:
    case = case_of(name)
    assert set(case) <= KNOWN, f"{name}: no check knows {sorted(set(case) - KNOWN)}: add one to this test"
    basis = sampled(case)
    dense = basis.dense()
    assert dense.shape == tuple(case["shape"])
    assert deviation(dense[case["funcs"]], case["basis"]) < ATOL
    assert deviation(torch.linalg.vector_norm(dense, dim=(2, 3)), case["norm"]) < ATOL
    assert np.abs(dense.sum((2, 3)).numpy() - case["sum"]).max() < ATOL * dense.abs().sum((2, 3)).max().item()
    rows = (dense.abs().amax((0, 3)) > 0).sum(1)
    assert rows.tolist() == case["nonzero_rows"].tolist()
    assert [2 * support + 1 for support in basis.supports] == case["nonzero_rows"].tolist()
    if "min_scale" in case:
        assert float(case["min_scale"]) == pytest.approx(float(case["scales"][0]), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_kernel_size_follows_from_the_scales_or_is_named(name: str) -> None:
    case = case_of(name)
    size = int(case["kernel_size"])
    named = re.search(rf"(?<!\d){size}(?!\d)", name)
    assert named or dynamic_size(case["scales"].tolist()) == size


@pytest.mark.parametrize("name", CASES)
def test_negative_controls(name: str) -> None:
    """What must not pass: another kernel size, no truncation, swapped axes, each scale normalised by itself."""
    case = case_of(name)
    size, dense, functions = int(case["kernel_size"]), sampled(case).dense(), case["funcs"]
    for other in (size - 2, size + 2):
        assert [2 * support + 1 for support in sampled(case, max(3, other)).supports] != case["nonzero_rows"].tolist()
    if min(case["nonzero_rows"]) < size:
        assert deviation(untruncated(case)[functions], case["basis"]) > 10 * ATOL
    if any(basis_of(case).rows[f] != basis_of(case).cols[f] for f in functions):
        assert deviation(dense.mT[functions], case["basis"]) > 0.1
    if len({float(scale) for scale in case["scales"]}) > 1:
        norms = torch.linalg.vector_norm(dense, dim=(2, 3), keepdim=True)
        assert deviation((dense / norms)[functions], case["basis"]) > 0.01


def untruncated(case: dict[str, np.ndarray]) -> torch.Tensor:
    """The basis with every scale reaching over the whole kernel: each scale sampled alone, one normaliser for all."""
    alone = [basis_of(case).sample(torch.from_numpy(case["scales"][i : i + 1]), int(case["kernel_size"]))
             for i in range(len(case["scales"]))]  # fmt: skip
    dense = torch.cat([basis.dense() * norms_of(basis) for basis in alone], 1)
    return dense / norms_of(alone[0])


def norms_of(basis: SeparableBasis) -> torch.Tensor:
    return (basis.norms[list(basis.rows)] * basis.norms[list(basis.cols)])[:, None, None, None]
