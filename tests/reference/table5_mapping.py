"""How the state of the networks of Table 5 is named in their authors' code and in ours.

Reference files `table5_state_<name>.npz` hold the state under the authors' names, `params.json` the trainable
parameters.  `REFERENCES` has one entry for each name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from reference_files import arrays
from torch import Tensor, nn

from scalestudy.models import build
from scalestudy.models.dss import BLUR_TAPS
from scalestudy.models.kernels import log_radial_harmonics
from scalestudy.models.sesn import disco


@dataclass(frozen=True)
class Reference:
    """One network of the reference files; keys are authors' names, or patterns of them."""

    make: Callable[[], nn.Module]
    modules: Mapping[str, str]  # names of modules (the prefix in the state) to ours
    tensors: Mapping[str, str] = field(default_factory=dict)  # single tensors, where the last part differs, too
    parts: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)  # a view: a part of our tensor
    computed: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)  # no parameters of ours
    copies: Mapping[str, str] = field(default_factory=dict)  # to the name, also in the state, of the same tensor
    frozen: tuple[str, ...] = ()  # parameters that the authors freeze and that are none of ours

    def ours(self, name: str) -> str:
        """Our name of one of the authors' tensors; KeyError where there is none."""
        if name in self.tensors:
            return self.tensors[name]
        module, _, last = name.rpartition(".")
        return f"{self.modules[module]}.{last}"

    def part(self, name: str, ours: Tensor) -> Tensor:
        """What the authors call `name` of our tensor, or of its gradient."""
        take = _matching(self.parts, name)
        return ours if take is None else take(ours)

    def load(self, net: nn.Module, state: Mapping[str, np.ndarray]) -> None:
        """Copy the state into `net`; AssertionError where an entry of either side is left over or differs."""
        ours = net.state_dict()
        filled = set()
        for name, value in state.items():
            given = torch.from_numpy(np.asarray(value))
            if (computed := _matching(self.computed, name)) is not None:
                expected = computed().to(given.dtype)
                torch.testing.assert_close(given.view_as(expected), expected, rtol=0, atol=1e-6 * expected.abs().max())
            elif (original := _matching(self.copies, name)) is not None:
                assert np.array_equal(value, state[original]), f"{name} is no copy of {original}"
            elif _matching(dict.fromkeys(self.frozen, True), name) is None:
                target = self.part(name, ours[self.ours(name)])
                assert target.numel() == given.numel(), f"{name} {given.shape} is no {self.ours(name)} {target.shape}"
                target.copy_(given.view_as(target))
                filled.add(self.ours(name))
        assert filled == set(ours) - self._internal(ours), f"not filled: {sorted(set(ours) - filled)}"

    @staticmethod
    def _internal(ours: Mapping[str, Tensor]) -> set[str]:
        """Names that need no filling: fixed scales follow from the construction, the convolutions share the net's."""
        return {name for name in ours if name.endswith("internal_scales") or re.match(r"conv\d\.scales\.", name)}


def _matching(patterns: Mapping, name: str):
    return next((value for pattern, value in patterns.items() if re.fullmatch(pattern, name)), None)


def _blocks(prefix: str, convs: tuple, norms: tuple) -> dict[str, str]:
    numbered = {part: f"conv{i}" for i, part in enumerate(convs, 1)} | {p: f"norm{i}" for i, p in enumerate(norms, 1)}
    return {f"{prefix}{part}": ours for part, ours in numbered.items()}


def _head(prefix: str, parts: tuple) -> dict[str, str]:
    return {f"{prefix}{part}": f"head.{index}" for part, index in zip(parts, (0, 1, 4), strict=True)}


LINEAR = _head("1.linear.", (0, 1, 4))
FC = _head("1.", ("fc1", "fc1bn", "fc2"))
MAIN = _blocks("1.main.", (0, 4, 8), (3, 7, 11)) | LINEAR
NAMED = _blocks("1.", ("conv1", "conv2", "conv3"), ("bn1", "bn2"))
DSS_TAPS = {r"1\.main\.0\.kernel[xy]_0": partial(torch.tensor, BLUR_TAPS, dtype=torch.float64)}


def _dss(name: str, norms: tuple, convs: tuple, computed: Mapping) -> Reference:
    tensors = {f"1.main.{part}.weights": f"conv{i}.weight" for i, part in enumerate(convs, 1)}
    return Reference(
        partial(build, name), _blocks("1.main.", (), norms) | LINEAR, tensors, computed=DSS_TAPS | dict(computed)
    )


def _diagonal_taps(channels: int) -> Tensor:
    """The blur of the scalar DSS as a dense convolution without mixing of channels, (C, C, 9)."""
    return torch.eye(channels)[:, :, None] * torch.tensor(BLUR_TAPS, dtype=torch.float64)


DIAGONAL = {rf"1\.main\.{at}\.kernel[xy]_0": partial(_diagonal_taps, channels) for at, channels in ((6, 32), (12, 63))}


def _steered() -> dict[str, str]:
    names = {"mult_real": "weight", "mult_imag": "weight", "const_real": "const_real"}
    return {f"1.conv{i}.steer_conv.{theirs}": f"conv{i}.{ours}" for i in (1, 2, 3) for theirs, ours in names.items()}


def _half(number: int, weight: Tensor) -> Tensor:
    """mr or mi of SS-CNN, (3, O, I, 9), from the weights (O, I, 54)."""
    return weight.unflatten(2, (2, 3, 9))[:, :, number].permute(2, 0, 1, 3)


FILTER = r"1\.conv\d\.steer_conv\.filter"


def _harmonics(part: int) -> Tensor:
    return log_radial_harmonics()[part]


def _sesn(norm3: str) -> dict[str, str]:
    return _blocks("main.", (1, 5, 9), (4, 8)) | {norm3: "norm3"} | _head("linear.", (0, 1, 4))


OURS = _blocks("main.", ("conv_1", "conv_4", "conv_7"), ("BatchNorm_3", "BatchNorm_6")) | {"final_class.3": "norm3"}
OURS |= _head("final_class.", (5, 6, 9))
SHARED_SCALES = {r"main\.conv_\d\.scales_param": "scales_parameter"}
SHARED_SCALES |= {r"main\.conv_\d\.basis_min_param": "basis_min_scale"}
STEPPED = {"scales_parameter": "scales.gamma", "basis_min_scale": "scales.sigma_basis"}


def _disco(case: str) -> nn.Module:
    return disco(basis=torch.from_numpy(arrays("disco_released_basis.npz")[f"{case}/basis"]))


REFERENCES: dict[str, Reference] = {
    "CNN": Reference(partial(build, "cnn"), MAIN),
    "SiCNN": Reference(partial(build, "sicnn"), MAIN),
    "SI-ConvNet": Reference(partial(build, "si_convnet"), MAIN),
    "SEVF_vector": Reference(partial(build, "sevf"), NAMED | FC),
    "SEVF_scalar": Reference(partial(build, "sevf_scalar"), NAMED | FC),
    "DSS_vector": _dss("dss", (4, 8, 12), (1, 5, 9), {}),
    "DSS_scalar": _dss("dss_scalar", (5, 11, 17), (1, 7, 13), DIAGONAL),
    "SS-CNN": Reference(
        partial(build, "ss_cnn"),
        _blocks("1.", (), ("bn1", "bn2", "bn3_mag")) | {"1.bn3": "unused_norm"} | FC,
        tensors=_steered(),
        parts={rf"1\.conv\d\.steer_conv\.mult_{name}": partial(_half, i) for i, name in enumerate(("real", "imag"))},
        computed={rf"{FILTER}_{name}": partial(_harmonics, i) for i, name in enumerate(("real", "imag"))},
        frozen=(f"{FILTER}_(real|imag)",),
    ),
    "SESN_hermite": Reference(partial(build, "sesn"), _sesn("main.13")),
    "SESN_hermite_plus": Reference(partial(build, "sesn", augmented=True), _sesn("main.13")),
    "DISCO": Reference(partial(_disco, "DISCO_B_min1.9_mult1.5"), _sesn("pool.4")),
    "DISCO_plus": Reference(partial(_disco, "DISCO_B_min1.9_mult1.9"), _sesn("pool.4")),
    "Ours_ISR": Reference(partial(build, "ours_isr"), OURS, tensors=STEPPED, copies=SHARED_SCALES),
    "Ours_Spacings": Reference(partial(build, "ours_spacings"), OURS, tensors=STEPPED, copies=SHARED_SCALES),
    "Ours_Direct": Reference(
        partial(build, "ours_direct"),
        OURS,
        tensors={"scales_parameter": "scales.sigmas"},
        copies=SHARED_SCALES,
        frozen=("basis_min_scale",),
    ),
}
