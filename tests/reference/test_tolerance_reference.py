"""The tolerance fit against every value of the reference file `tolerance.json`.

The file may hold more keys than tau and the objective at the start.  Every key must be understood: the distribution is
stripped from its name first, then start, bounds and log2, and what is left names the quantity.  Prose is skipped, and a
key that no pattern knows fails with its path.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    MIN_ISR,
    MIN_REFERENCE,
    MIN_TAU,
    PAPER_RANGES,
    START,
    TAIL_OCTAVES,
    ToleranceFit,
    fit_tolerance,
)

RTOL = 1e-3
PROSE = (
    r"note|comment|remark|source|origin|description|about|unit|version|method|optimi[sz]er|direction|base$|label|name"
    r"|nfev|nit$|iterations|evaluations|[fx]a?tol|maxiter|decimals|digits|date|year|paper|arxiv"
)
FIG2 = r"fig(ure)?[\W_]*2(?![.\d])|sesn|single|example"
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
LIMITS = ("2.83", "4.76", "8")
LABEL = re.compile(
    r"(?:log[-_ ]?uniform)?[\W_]*(?<![\d.])(?:1(?:\.0+)?[\s,_:;-]+(?:to_?)?)?"
    r"(?:(2[._p]83)|(4[._p]76)|(8(?:\.0+)?))(?![\d.])[\W_]*"
)
WORD = re.compile(r"(?<![a-z])(?:(narrow(?:est)?)|(mid(?:dle)?|medium)|(wid(?:e|est)))(?![a-z])", re.IGNORECASE)
POSITION = re.compile(r"(?:^|(?<=[a-z_\W]))[\W_]*([1-3])$", re.IGNORECASE)
LOG2 = re.compile(r"(?<![a-z])log[\W_]*2(?![.\d])|octaves?|(?<![a-z])log(?![a-z]|[-_ ]?uniform)", re.IGNORECASE)
STARTS = re.compile(r"start|init|(?<![a-z])x0|guess", re.IGNORECASE)
BOUNDS = re.compile(r"bound|(?<![a-z])lower|(?<![a-z])min(?![a-z])", re.IGNORECASE)
QUANTITIES = {
    "objective": r"objective|loss|^fun$|total|(^|_)sum|kl|divergence",
    "value": r"value",
    "converged": r"converged|success",
    "tail": r"tail",
    "tau": r"tau|toleranc|^tol",
    "num_scales": r"^(n|num|nr|number)(_?(of_?)?(internal_?)?(scales|cent(re|er)s))?$",
    "ref": r"(small|low)est|first_(scale|cent)|(^|_)ref",
    "isr": r"isr|scale_?range",
    "grid": r"grid|points",
    "centres": r"internal|scales?$|cent(re|er)|(^|_)mus?$|^means?$",
    "ranges": r"range|distributions?$|limits?$|interval|^(lower|upper|low|high|min|max)$",
    "whole": r"^(fit|fitted|optimum|solution|params?|parameters|results?|x)$",
}  # the first pattern that matches decides


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


@dataclass(frozen=True)
class Key:
    """What a path says: quantity, distribution (0 to 2), whether start, bounds or log2 of it, fig2 or the joint fit."""

    quantity: str | None
    part: str
    index: int | None
    start: bool
    bounds: bool
    log2: bool
    which: str


def strip_distribution(part: str) -> tuple[str, int | None]:
    """Part of a path without Fig. 2 and without the distribution, which is a limit, a word or a position."""
    part = re.sub(FIG2, "", part, flags=re.IGNORECASE)
    if part.startswith("#"):
        return "", int(part[1:])
    for pattern in (LABEL, WORD):
        found = pattern.search(part)
        if found:
            index = next(i for i, group in enumerate(found.groups()) if group)
            return (part[: found.start()] + "_" + part[found.end() :]).strip("_- "), index
    return part.strip("_- "), None


def read_key(path: tuple[str, ...]) -> Key:
    """Strip the distribution, then start, bounds and log2; the last part that then names a quantity decides."""
    which = scope(path)
    index = position = None
    start = bounds = log2 = False
    named = []
    for part in path:
        part, found = strip_distribution(part)
        index = index if found is None else found
        log2 |= bool(LOG2.search(part))
        part = LOG2.sub("", part).strip("_- ()[]")
        number = POSITION.search(part)
        if number:
            position = int(number[1]) - 1
            part = part[: number.start()]
        start |= bool(STARTS.search(part))
        bounds |= bool(BOUNDS.search(part))
        named.append(part)
    quantity, chosen = None, ""
    for part in reversed(named):
        quantity = next((name for name, pattern in QUANTITIES.items() if re.search(pattern, part, re.IGNORECASE)), None)
        # A grid may have its own "start", "min" or "points"; its ancestor tells.
        if quantity in (None, "ranges", "num_scales", "value") and any(re.search("grid", one, re.I) for one in named):
            quantity = "grid"
        if quantity:
            chosen = part
            break
    if quantity == "ranges" and BOUNDS.search(chosen) and index is None:
        quantity = None
    if quantity == "value" and not start:
        quantity = None
    if index is None and position is not None:
        index = position
    elif position is not None and quantity == "centres":
        chosen = f"{chosen}#{position}"
    return Key(quantity, "/".join(named) if quantity == "grid" else chosen, index, start, bounds, log2, which)


def alternatives(key: Key, fit: ToleranceFit) -> list[object]:
    """Values that the key may have, told apart by their number; empty where nothing is known."""
    joint = key.which == "joint"
    count = len(fit.ranges)
    index = (0 if not joint else key.index) if count == 1 or key.index is not None else None
    first = START if joint else FIG2_START
    if key.quantity in ("objective", "value") and key.start:
        return [fit.objective_at_start, *settings_alternatives(first, count, joint)]
    if key.quantity == "objective":
        return [fit.objective if index is None else fit.divergences[index], *([fit.divergences] * (index is None))]
    if key.quantity in ("converged", "num_scales"):
        return [getattr(fit, key.quantity)]
    if key.quantity == "tail":
        return [TAIL_OCTAVES]
    if key.quantity == "grid":
        return grid_alternatives(key)
    if key.start or key.bounds:
        settings = first if key.start else (MIN_REFERENCE, MIN_ISR, MIN_TAU)
        if key.quantity in ("ref", "isr", "tau"):
            value = settings[("ref", "isr", "tau").index(key.quantity)]
            return [value, [value] * count] if index is None and key.quantity != "tau" else [value]
        if key.quantity in (None, "whole"):
            return settings_alternatives(settings, count, joint)
    if key.quantity == "tau":
        return [fit.tau]
    if key.quantity == "whole":
        isrs = fit.isrs if joint else ()
        if index is None or not joint:
            return [[*fit.reference_scales, *isrs, fit.tau]]
        return [[fit.reference_scales[index], fit.isrs[index], fit.tau], [fit.reference_scales[index], fit.isrs[index]]]
    ranges = PAPER_RANGES if joint else [FIG2_RANGE]
    if key.quantity == "ranges":
        side = re.search(r"(?:^|_)(?:(low|min)|(up|high|max))", key.part, re.IGNORECASE)
        if side:
            ends = [pair[0 if side[1] else 1] for pair in ranges]
            return [ends if index is None else ends[index]]
        return [ranges, [high for _, high in ranges]] if index is None else [ranges[index], ranges[index][1]]
    values = {"ref": fit.reference_scales, "isr": fit.isrs, "centres": fit.internal_scales}.get(key.quantity or "")
    if values is None:
        return []
    if index is None:
        return [values]
    chosen = np.asarray(values[index])
    return [chosen[int(key.part.split("#")[1])]] if "#" in key.part else [chosen]


def settings_alternatives(settings: Sequence[float], count: int, joint: bool) -> list[object]:
    """Reference scale, ISR and tau: once, or as the whole vector of the fit."""
    ref, isr, tau = settings
    return [[ref, isr, tau], [ref] * count + ([isr] * count if joint else []) + [tau]]


def grid_alternatives(key: Key) -> list[object]:
    """Limits and number of points of the grid; a word that is no part of a grid is not known."""
    grid = JOINT_GRID if key.which == "joint" else FIG2_GRID
    words = [word for word in re.split(r"[\W_]+", key.part.lower()) if word]
    last = words[-1]
    if any(word in ("points", "n", "num", "number", "size", "count") for word in words):
        return [grid.points]
    if last in ("low", "lower", "min", "start", "from", "begin", "first"):
        return [grid.low]
    if last in ("high", "upper", "max", "stop", "end", "to", "last"):
        return [grid.high]
    if last in ("grid", "limits", "bounds", "range", "interval", "scales", "axis"):
        return [[grid.low, grid.high], [grid.low, grid.high, grid.points]]
    return []


def parsed(printed: object) -> object:
    """Numbers written as text become numbers, also within lists; other text becomes None."""
    if isinstance(printed, list):
        return [parsed(one) for one in printed]
    if isinstance(printed, str):
        return Decimal(printed.strip()) if NUMBER.fullmatch(printed.strip()) else None
    return printed


def flattened(values: object) -> list[object]:
    if isinstance(values, list):
        return [inner for one in values for inner in flattened(one)]
    return [values]


def tolerance(printed: object) -> float:
    """Half a unit of the last printed digit, absolute (with room for binary rounding)."""
    if isinstance(printed, Decimal):
        return 0.5 * 10.0 ** int(printed.as_tuple().exponent) * (1 + 1e-9)
    return 0.0


def check(path: tuple[str, ...], printed: object, fits: dict[str, ToleranceFit]) -> None:
    """Fail unless the printed value is prose or agrees with the fit."""
    name = "/".join(path)
    flat = flattened(parsed(printed))
    if all(one is None for one in flat):
        return
    key = read_key(path)
    fit = fits[key.which]
    known = [np.asarray(one, dtype=float).ravel() for one in alternatives(key, fit)]
    if not known and re.search(PROSE, path[-1], re.IGNORECASE):
        return
    assert known, f"tolerance.json: no pattern knows the key {name!r} (value {printed}): add one to this test"
    if key.bounds and None in flat:  # no upper bound
        flat = [one for one in flat if one is not None]
    assert None not in flat, f"tolerance.json: {name!r} mixes numbers and text: {printed}"
    wanted = next((one for one in known if one.size == len(flat)), None)
    sizes = " or ".join(str(one.size) for one in known)
    assert wanted is not None, f"tolerance.json: {name!r} holds {len(flat)} values, the fit {sizes}: {known}"
    assert (key.quantity == "converged") == all(isinstance(one, bool) for one in flat), (
        f"tolerance.json: {name!r} is {printed}: only `converged` is true or false"
    )
    in_log2 = key.log2 and key.quantity in ("ref", "isr", "centres", "ranges", "grid") and "points" not in key.part
    if (in_log2 and key.quantity != "grid") or re.fullmatch(r"mus?|means?", key.part, re.IGNORECASE):
        wanted, in_log2 = np.log2(wanted), True
    elif in_log2:
        wanted = np.array([*np.log2(wanted[:2]), *wanted[2:]])
    bound = key.bounds and key.quantity != "objective"
    setting = key.start or bound or key.quantity in ("tail", "grid", "num_scales")
    for got, value in zip(flat, wanted, strict=True):
        rtol = 1e-6 if setting else 0.0 if key.quantity == "tau" and tolerance(got) > 1e-5 else RTOL
        scale = max(abs(value), 1.0) if in_log2 else abs(value)  # a log2 may be near 0
        allowed = max(rtol * scale, tolerance(got) if not key.start else 0.0)
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


def more_forms(fit: ToleranceFit) -> dict[str, object]:
    """Further ways: distributions named in the key or by a word, settings, log2, text and truth values."""
    ref, isr, kl = fit.reference_scales, fit.isrs, fit.divergences
    nested = [{"ref": r, "isr": i, "KL": k} for r, i, k in zip(ref, isr, kl, strict=True)]
    return {
        "isr_1_8": isr[2],
        "isr_2.83": isr[0],
        "ref_8": ref[2],
        "ref_log-uniform [1, 4.76]": ref[1],
        "kl_4.76": kl[1],
        "words": dict(zip(("narrow", "middle", "wide"), nested, strict=True)),
        "mid": nested[1],
        "wide_isr": isr[2],
        "labels": dict(zip(fit.labels, nested, strict=True)),
        "limits": dict(zip(("2.83", "4.76", "8"), nested, strict=True)),
        "isr": dict(zip(("narrow", "mid", "wide"), isr, strict=True)),
        "KL": fit.objective,
        "kl_at_optimum": fit.objective,
        "kl_sum": fit.objective,
        "kl_min": round(fit.objective, 7),
        "KL_divergences": list(kl),
        "optimum": {"objective": list(kl), "internal_scale_range": list(isr), "smallest_centre": list(ref)},
        "internal_scale_range_8": isr[2],
        "smallest_centre_2.83": ref[0],
        "log2_ref": np.log2(ref).tolist(),
        "log2": {"ref_8": float(np.log2(ref[2])), "isr": np.log2(isr).tolist()},
        "ref_log2_4.76": float(np.log2(ref[1])),
        "mu": np.log2(fit.internal_scales).tolist(),
        "tau_octaves": fit.tau,
        "as_text": {"tau": "0.459", "isr": [f"{one:.3f}" for one in isr], "ref_8": f"{ref[2]:.4f}", "method": "exact"},
        "table": {"wide": {"scale_1": fit.internal_scales[2][0], "scale_3": fit.internal_scales[2][2]}},
        "narrow": {"range": [1, 2.83], "low": 1, "high": 2.83},
    }


def settings_forms(fit: ToleranceFit) -> dict[str, object]:
    """Ways in which the settings of the fit may be written."""
    return {
        "start": {"ref": 1, "isr": 2, "tau": 0.1, "objective": fit.objective_at_start},
        "starts": {"ref": [1, 1, 1], "isr_8": 2.0, "narrow": [1.0, 2.0, 0.1]},
        "start_isr": 2.0,
        "initial_tau": "0.1",
        "x0": [1.0, 2.0, 0.1],
        "value_at_start": fit.objective_at_start,
        "bounds": {"ref": [0.5, None], "isr": 1.5, "tau": "0.1"},
        "bounds_list": [[0.5, None], [1.5, None], [0.1, None]],
        "lower_bounds": [0.5, 0.5, 0.5, 1.5, 1.5, 1.5, 0.1],
        "min_isr": 1.5,
        "grid": {"low": 0.5, "high": 17.0, "points": 10000},
        "grid_limits": [0.5, 17.0],
        "Grid": {"start": 0.5, "stop": 17, "num": 10000},
        "grid_points": 10000,
        "log2_grid": [float(np.log2(0.5)), float(np.log2(17))],
        "tail": 0.4,
        "tail_octaves": 0.4,
    }


def planted_errors(value: object) -> Iterator[object]:
    """The value with one number changed, for every number in it; truth values are swapped."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            for wrong in planted_errors(inner):
                yield [*value[:i], wrong, *value[i + 1 :]]
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, Decimal):
        yield value * Decimal("1.02") + (Decimal("0.01") if abs(value) > Decimal("0.02") else 0)
    elif isinstance(value, str) and NUMBER.fullmatch(value):
        yield str(Decimal(value) * Decimal("1.02"))


@pytest.mark.parametrize("written", [more_forms, settings_forms, lambda fit: {"converged": fit.converged}])
def test_further_forms_are_understood_and_planted_errors_fail(written, fits):
    checked = 0
    for path, printed in leaves(json.loads(json.dumps(written(fits["joint"])), parse_float=Decimal)):
        check(path, printed, fits)
        for wrong in planted_errors(printed):
            with pytest.raises(AssertionError, match=r"tolerance\.json"):
                check(path, wrong, fits)
            checked += 1
    assert checked


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("isr_1_9",), "4.3"),
        (("wide", "mystery"), Decimal("1.0")),
        (("mystery_8",), "1.0"),
        (("grid", "mystery"), 3),
        (("mystery",), True),
    ],
)
def test_unknown_keys_of_any_kind_fail_by_name(path, value, fits):
    with pytest.raises(AssertionError, match="/".join(path)):
        check(path, value, fits)


def test_swapped_distributions_fail(fits):
    isrs = fits["joint"].isrs
    for key in ("isr_8", "isr_1_8", "wide_isr", "isr_3"):
        with pytest.raises(AssertionError, match=key):
            check((key,), isrs[0], fits)


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
