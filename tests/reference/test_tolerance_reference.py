"""The tolerance fit against every value of the reference file `tolerance.json`.

The file may hold more keys than tau and the objective at the start.  Every key must be understood: values are found by
patterns of names, prose is skipped, and a key that no pattern knows fails with its path.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal

import numpy as np
import pytest
from reference_files import reference_file

from scalestudy.tolerance import (
    FIG2_GRID,
    FIG2_ISR,
    FIG2_NUM_SCALES,
    FIG2_RANGE,
    FIG2_START,
    JOINT_GRID,
    PAPER_RANGES,
    START,
    TAIL_OCTAVES,
    ToleranceFit,
    fit_tolerance,
)

RTOL = 1e-3
PROSE = r"note|comment|remark|source|origin|description|about|unit|version|method|optimi[sz]er|direction|log"
FIG2 = r"fig(ure)?[\W_]*2|sesn|single|example"
DISTRIBUTION = re.compile(r"(?<![\d.])(2\.83|4\.76|8(?:\.0+)?)(?![\d.])")
POSITION = re.compile(r"(?:^|[a-z_\W])([0-3])$")


@pytest.fixture(scope="module")
def fits() -> dict[str, ToleranceFit]:
    return {
        "joint": fit_tolerance(),
        "fig2": fit_tolerance([FIG2_RANGE], FIG2_NUM_SCALES, FIG2_ISR, FIG2_START, FIG2_GRID),
    }


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Walk nested dicts; a list of dicts counts as a dict by position, any other list is one leaf."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, str(key)))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for position, inner in enumerate(value):
            yield from leaves(inner, (*path, f"#{position}"))
    else:
        yield path, value


def scope(path: tuple[str, ...]) -> str:
    return "fig2" if any(re.search(FIG2, part, re.IGNORECASE) for part in path) else "joint"


def candidates(fit: ToleranceFit, which: str) -> list[tuple[str, object]]:
    """Pattern of the name, value it should have; the first pattern that matches decides."""
    start = START if which == "joint" else FIG2_START
    count = len(fit.ranges)
    full_start = [start[0]] * count + ([start[1]] * count if which == "joint" else []) + [start[2]]
    isrs = list(fit.isrs) if which == "joint" else []
    whole = np.array([*fit.reference_scales, *isrs, fit.tau])
    grid = JOINT_GRID if which == "joint" else FIG2_GRID
    ranges = PAPER_RANGES if which == "joint" else FIG2_RANGE
    return [
        (r"(objective|kl|loss|fun|value).*(start|init|x0)", fit.objective_at_start),
        (r"(start|init).*(objective|kl|loss|fun)", fit.objective_at_start),
        (r"^(start|x0|init)", np.array(full_start)),
        (r"tail", TAIL_OCTAVES),
        (r"tau|tol", fit.tau),
        (r"objective|loss|^fun$|total|sum", fit.objective),
        (r"kl|divergence", np.array(fit.divergences)),
        (r"^(fit|fitted|optimum|solution|params?|parameters|result|x)$", whole),
        (r"^(n|num|nr|number)(_?(of_?)?(internal_?)?scales)?$", fit.num_scales),
        (r"ref", np.array(fit.reference_scales)),
        (r"log2?_?(scales|centres|centers)|^mus?$|^means?$", np.log2(fit.internal_scales)),
        (r"internal|scales$|centre|center", np.array(fit.internal_scales)),
        (r"isr", np.array(fit.isrs)),
        (r"points|grid_?(n|size)", grid.points),
        (r"range|bounds_of_data|distributions?$", np.array(ranges)),
        (r"grid.*(log|oct)", np.array([grid.octaves[0], grid.octaves[-1]])),
        (r"grid", np.array([grid.low, grid.high])),
    ]  # fmt: skip


def expectation(path: tuple[str, ...], fits: dict[str, ToleranceFit]) -> object:
    """Value that the key should have; None for a key that no pattern knows."""
    which = scope(path)
    named = [part for part in path if not part.startswith("#") and not DISTRIBUTION.search(part)]
    for part in reversed(named):
        for pattern, value in candidates(fits[which], which):
            if re.search(pattern, re.sub(FIG2, "", part, flags=re.IGNORECASE).strip("_ "), re.IGNORECASE):
                return pick(value, path)
    return None


def pick(value: object, path: tuple[str, ...]) -> object:
    """Entry of one distribution where the path names one, such as `isr_2`, `[1, 2.83]` or a position in a list."""
    if not isinstance(value, np.ndarray):
        return value
    if len(value) == 3:
        for part in path:
            found = DISTRIBUTION.findall(part)
            if found:
                return value[["2.83", "4.76", "8"].index(found[-1].rstrip("0").rstrip("."))]
            if part.startswith("#"):
                return value[int(part[1:])]
        position = POSITION.search(path[-1])
        if position:  # names such as ref_1 .. ref_3
            return value[int(position[1]) - 1]
    return value


def tolerance(printed: object) -> float:
    """Half a unit of the last printed digit, absolute (with room for binary rounding)."""
    if isinstance(printed, Decimal):
        return 0.5 * 10.0 ** int(printed.as_tuple().exponent) * (1 + 1e-9)
    return 0.0


def check(path: tuple[str, ...], printed: object, fits: dict[str, ToleranceFit]) -> None:
    """Fail unless the printed value is prose or agrees with the fit."""
    name = "/".join(path)
    if printed is None or isinstance(printed, (str, bool)):
        return
    expected = expectation(path, fits)
    if expected is None and re.search(PROSE, path[-1], re.IGNORECASE):
        return
    assert expected is not None, (
        f"tolerance.json: no pattern knows the key {name!r} (value {printed}): add one to this test"
    )
    flat = np.array(printed, dtype=object).ravel()
    wanted = np.asarray(expected, dtype=float).ravel()
    assert flat.size == wanted.size, (
        f"tolerance.json: {name!r} holds {flat.size} values, the fit {wanted.size}: {wanted}"
    )
    is_start = "start" in name.lower()
    is_tau = wanted.size == 1 and not is_start and wanted[0] == fits[scope(path)].tau
    for got, value in zip(flat, wanted, strict=True):
        rtol = 1e-6 if is_start else 0.0 if is_tau and tolerance(got) > 1e-5 else RTOL
        allowed = max(rtol * abs(value), tolerance(got) if not is_start else 0.0)
        assert abs(float(got) - value) <= allowed, f"tolerance.json: {name!r} is {got}, the fit gives {value:.10g}"


def test_every_key_of_the_reference_file(fits):
    content = json.loads(reference_file("tolerance.json").read_text(encoding="utf-8"), parse_float=Decimal)
    found = list(leaves(content))
    assert found, "tolerance.json holds nothing"
    for path, printed in found:
        check(path, printed, fits)


def test_tau_and_start_of_the_reference_file(fits):
    content = json.loads(reference_file("tolerance.json").read_text(encoding="utf-8"))
    assert fits["joint"].tau == pytest.approx(content["tau"], abs=5e-4)
    assert fits["joint"].objective_at_start == pytest.approx(content["objective_at_start"], rel=1e-6)


def test_unknown_key_and_wrong_value_fail_by_name(fits):
    with pytest.raises(AssertionError, match="no pattern knows the key 'joint/mystery'"):
        check(("joint", "mystery"), Decimal("1.0"), fits)
    with pytest.raises(AssertionError, match=r"'tau' is 0\.461"):
        check(("tau",), Decimal("0.461"), fits)
    with pytest.raises(AssertionError, match="'refs' holds 2 values"):
        check(("refs",), [Decimal("1.0"), Decimal("1.0")], fits)


def forms(fit: ToleranceFit) -> dict[str, object]:
    """Ways in which the fitted values may be written."""
    labels = fit.labels
    return {
        "ref": list(fit.reference_scales),
        "ISR": dict(zip(labels, fit.isrs, strict=True)),
        "isrs": {"2.83": fit.isrs[0], "4.76": fit.isrs[1], "8": fit.isrs[2]},
        "reference_scales": {"[1, 2.83]": fit.reference_scales[0], "[1, 8.0]": fit.reference_scales[2]},
        "ref_1": fit.reference_scales[0],
        "isr_3": fit.isrs[2],
        "objective": fit.objective,
        "objective_at_optimum": fit.objective,
        "kl": list(fit.divergences),
        "tau_full": fit.tau,
        "log-uniform [1, 4.76]": {"ref": fit.reference_scales[1], "isr": fit.isrs[1], "kl": fit.divergences[1]},
        "fits": [{"isr": isr, "scales": list(s)} for isr, s in zip(fit.isrs, fit.internal_scales, strict=True)],
        "x": [*fit.reference_scales, *fit.isrs, fit.tau],
        "internal_scales": [list(s) for s in fit.internal_scales],
        "start": [1, 1, 1, 2, 2, 2, 0.1],
        "num_scales": 3,
        "ranges": [[1, 2.83], [1, 4.76], [1, 8]],
    }


def test_all_expected_forms_are_understood(fits):
    fig2 = fits["fig2"]
    content = forms(fits["joint"]) | {
        "fig2": {"ref": fig2.reference_scales[0], "tau": fig2.tau, "objective": fig2.objective, "ISR": 2, "note": "x"},
        "tau_fig2": fig2.tau,
        "figure_2_objective_at_start": fig2.objective_at_start,
    }
    for path, printed in leaves(json.loads(json.dumps(content), parse_float=Decimal)):
        check(path, printed, fits)
        if isinstance(printed, Decimal):
            with pytest.raises(AssertionError, match=r"tolerance\.json"):
                check(path, printed * Decimal("1.01"), fits)
