"""Answers to the questions beyond the paper, a sentence each, by the criteria of ``docs/beyond.md``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd

from scalestudy.paper import beyond
from scalestudy.paper.claims import judge
from scalestudy.paper.effects import HELD, NOT_MEASURED, UNCLEAR, Effect, effect, text
from scalestudy.paper.evidence import NotMeasured, need
from scalestudy.paper.reported import LEARNED, MARGIN, NARROW, RANGES, WIDE
from scalestudy.paper.study import Study
from scalestudy.paper.table import curves, runs
from scalestudy.tolerance import fit_tolerance
from scalestudy.training.record import Record

ON = NARROW, WIDE


def answers(study: Study, notebook: str = "") -> pd.DataFrame:
    """All questions, or those of a notebook ("10"): notebook, question, answer, or what is missing for one."""
    study, rows = study.with_beyond(), []
    for number, question, answer in QUESTIONS:
        if number.startswith(notebook):
            try:
                told = answer(study)
            except NotMeasured as missing:
                told = f"not decided: {missing}"
            rows.append((number, question, told))
    return pd.DataFrame(rows, columns=["notebook", "question", "answer"])


def slopes(records: list[Record]) -> pd.DataFrame:
    """One row an epoch at which slopes were measured, and kind of images ("seen", "held out").

    Slopes of the loss along log sigma_basis and log ISR (nats), and their standard errors over batches.
    """
    names = ["distribution", "isr", "epoch", "images", "log_sigma", "log_isr", "log_sigma_error", "log_isr_error"]
    rows = [
        (record.spec.data.distribution.label, record.spec.scales.isr, int(epoch), images, *measured)
        for record in records
        for at, measured in record.metrics.scale_slopes.items()
        for epoch, images in [at.split(" ", 1)]
    ]
    by = ["distribution", "isr", "images", "epoch"]
    return pd.DataFrame(rows, columns=names).sort_values(by, ignore_index=True)


def diagnosis(study: Study) -> str:
    """Do held-out images ask for a larger ISR where training images no longer do?"""
    rows = slopes(_records(study, "beyond_slopes")).query("isr == 1.5 and epoch > 7 * @study.epochs / 20")
    rows["errors"] = rows["log_isr"] / rows["log_isr_error"]
    verdicts, told = [], []
    for on in (WIDE, NARROW):
        late = rows[rows["distribution"] == on].pivot(index="epoch", columns="images", values=["log_isr", "errors"])
        asks = late["errors"].abs() > 2
        as_said, alike = (asks["held out"] & ~asks["seen"]).sum(), (asks["held out"] == asks["seen"]).sum()
        enough = len(asks) - 1
        verdicts.append("yes" if as_said >= enough else "no" if alike >= enough else "not decided")
        slope, errors = late["log_isr"].mean(), late["errors"].map("{:.1f}".format).agg(", ".join)
        told.append(
            f"{slope['held out']:.2f} on held-out images ({errors['held out']} standard errors) and "
            f"{slope['seen']:.2f} on training images ({errors['seen']})"
        )
    return (
        f"By its criterion {verdicts[0]} (one seed): from the ISR 1.5 on [1, 8], at late epochs, the slope of the loss "
        f"along log ISR is {told[0]}. On [1, 2.83], for which no criterion was set, the same rule says "
        f"{verdicts[1]}: {told[1]}."
    )


def methods(study: Study) -> pd.DataFrame:
    """`table.runs` of every way to learn scales from every start that has run, with a column ``method``."""
    there = {record.key: record for record in study.stored("beyond_starts") + study.stored("table3")}
    frames = {
        way: runs(there[spec.key] for spec in specs if spec.key in there) for way, specs in beyond.ways(study).items()
    }
    return pd.concat(frames, names=["method"]).reset_index("method").reset_index(drop=True)


def spreads(learned: pd.DataFrame) -> pd.DataFrame:
    """Per method (row): spread of log final ISR over its starts, mean error, and error of its best start (percent).

    Each averaged over distributions; NaN for methods that lack a start.
    """
    learned = learned.assign(log_isr=np.log(learned["isr"]), start=learned["init_sigma"] + 1j * learned["init_isr"])
    each = learned.groupby(["method", "distribution"], sort=False)
    table = pd.DataFrame({
        "spread": each["log_isr"].std(), "error": each["test_error"].mean(), "best start": each["test_error"].min(),
        "starts": each["start"].nunique(),
    })  # fmt: skip
    table = table.where(table["starts"] == learned["start"].nunique()).unstack()
    return pd.DataFrame({name: table[name].mean(axis=1, skipna=False) for name in ("spread", "error", "best start")})


def starts(study: Study) -> str:
    """Does a way to learn scales forget its start?"""
    learned = methods(study)
    wanted = sum(map(len, beyond.ways(study).values()))
    need(len(learned) == wanted, f"{len(learned)} of {wanted} runs")
    table, each = spreads(learned), learned.assign(log_isr=np.log(learned["isr"])).groupby(["method", "distribution"])
    theirs, others = table["spread"][beyond.PAPERS], table.drop(beyond.PAPERS)
    halved, least, each = others[others["spread"] <= theirs / 2], others["spread"].idxmin(), each["log_isr"].std()
    if halved.empty:
        verdict = "Not solved by its criterion, no way halves the spread"
    else:
        verdict = f'To be decided by all nine starts of "{halved["error"].idxmin()}", which halves the spread'
    told = ", ".join(f"{way} {spread:.2f}" for way, spread in others["spread"].items())
    on = " and ".join(
        f"{each[least, name]:.2f} on {name.split(' ', 1)[1]} ({each[beyond.PAPERS, name]:.2f})" for name in ON
    )
    return (
        f"{verdict}: over five starts (one seed) the standard deviation of ln ISR is {theirs:.2f} with the paper's "
        f'way, {told}; with "{least}" {on}. Mean error in percent: the paper\'s way '
        f'{table["error"][beyond.PAPERS]:.2f}, "{least}" {others["error"][least]:.2f}.'
    )


def numbers(study: Study) -> str:
    """Do more internal scales bring equivariance back?"""
    found = runs(_records(study, "beyond_numbers"))
    fixed = found[found["mode"] == "fixed"]
    errors = fixed.groupby(["num_scales", "distribution"])["test_error"]
    of_seeds = fixed.pivot(index=["num_scales", "seed"], columns="distribution", values="test_error")
    of_seeds = (of_seeds[WIDE] - of_seeds[NARROW]).unstack()
    gap, most = of_seeds.mean(axis=1), max(of_seeds.index)
    last = _known(effect(*(errors.get_group((most, on)) for on in (WIDE, NARROW))))
    closed = 1 - gap[most] / gap[3]
    need(gap[3] > 0, "no gap to close with three scales")
    back, not_closed = last.difference <= MARGIN + last.spread, closed < 0.1
    both = "is not decided, three leave too little" if back and not_closed else ""
    verdict = both or ("comes true" if back else "falls" if not_closed else "comes true in part")
    gaps = ", ".join(f"{gap[count]:.2f} with {count}" for count in gap.index)
    return (
        f"At a fixed ISR the error on [1, 8] exceeds that on [1, 2.83] by {gaps} internal scales (spread "
        f"{last.spread:.2f}); {most} close {closed:.0%} of the gap that three leave (by seed "
        f"{' and '.join(map('{:.0%}'.format, 1 - of_seeds.loc[most] / of_seeds.loc[3]))}): the paper's hope {verdict}."
    )


def enough(study: Study) -> str:
    """Does the tolerance model tell where more scales stop helping?"""
    found, told = runs(_records(study, "beyond_numbers")).query("mode == 'fixed'"), []
    dips = {count: fit_tolerance(study.ranges, num_scales=count).dips for count in (2, 3, 4, beyond.MANY)}
    for place, on in ((0, NARROW), (-1, WIDE)):
        number = next((count for count, of_fit in dips.items() if of_fit[place] <= 0.05), None)
        need(number, f"{on} is not covered by {beyond.MANY} scales")
        errors = found[found["distribution"] == on].groupby("num_scales")["test_error"]
        near = [errors.get_group(count) for count in sorted(errors.groups)]
        near = near[sorted(errors.groups).index(number) - 1 :][:3]  # one fewer, the number itself, one more if tried
        helps, *more = (_known(effect(one, two)) for one, two in pairwise(near))
        right = helps.sign > 0 and all(one.difference < one.spread for one in more)
        verdict = "wrong" if not right else "right" if more else "not to be judged"
        means = ", ".join(f"{rows.mean():.2f}" for rows in near) + " %" + ", no larger one tried" * (not more)
        told.append(f"{verdict} on {on} with {number} (from one number below: {means})")
    return f"The least number whose fit leaves no dip above 5 % is {' and '.join(told)}."


def fewer(study: Study) -> str:
    """Are more scales kept on wider data?"""
    found = runs(_records(study, "beyond_fewer"))
    found["left"] = [len(scales) for scales in found["internal_scales"]]
    left = found.pivot(index="seed", columns="distribution", values="left")
    more = (left[WIDE] > left[NARROW]).sum()
    told = (
        f"Dropping scales that win less than 1 % of the maxima keeps {left[NARROW].mean():.2g} of {beyond.MANY} on "
        f"[1, 2.83] and {left[WIDE].mean():.2g} on [1, 8], more on the wide data in {more} of {len(left)} seeds"
    )
    if more < len(left):
        return f"{told}: it does not work."
    fixed = runs(_records(study, "beyond_numbers")).query("mode == 'fixed'")
    changes = []
    for on in ON:
        errors = fixed[fixed["distribution"] == on].groupby("num_scales")["test_error"]
        own = found.loc[found["distribution"] == on, "test_error"]
        changes.append(_known(effect(own, errors.get_group(errors.mean().idxmin()))))
    worse = any(change.difference > MARGIN + change.spread for change in changes)
    return (
        f"{told}, at an error {'above' if worse else 'no worse than'} that of the best fixed number: it "
        f"{'does not work' if worse else 'works'}."
    )


def distributions(study: Study) -> str:
    """Does the tolerance model suit other distributions, and does learning one by one?"""
    found, told, holds = runs(_records(study, "beyond_distributions")), [], []
    for distribution in (beyond.NORMAL, beyond.BIMODAL):
        own = found[found["distribution"] == distribution.label]
        errors = {isr: rows["test_error"] for isr, rows in own[own["mode"] == "fixed"].groupby("init_isr")}
        best, model = min(errors, key=lambda isr: errors[isr].mean()), beyond.fitted_isr(study, distribution)
        change = _known(effect(errors[model], errors[best]))
        holds.append(change.difference <= MARGIN + change.spread)
        means = f"{text(errors[model])} at its ISR {model:g} against {text(errors[best])} at {best:g}"
        told.append(f"{'holds' if holds[-1] else 'does not hold'} on {distribution.label} ({means})")
    direct, even = (own.loc[own["mode"] == mode, "test_error"] for mode in ("direct", LEARNED))
    change = effect(direct, even)
    better = "beats" if change.sign < 0 else "does not beat"
    return (
        f"By its criterion, which asks for both, the tolerance model {'holds' if all(holds) else 'does not hold'}: it "
        f"{told[0]} and {told[1]}; on the bimodal one, learning one by one {better} the even spacing that is learned "
        f"through the ISR ({change})."
    )


def digits(study: Study) -> list[Record]:
    """Runs of Fig. 3 and Table 2 that `beyond.fashion` repeats on other images."""
    wanted = {(spec.scales, spec.data.distribution, spec.seed) for spec in beyond.fashion(study)}
    return [one for one in _shown(study) if (one.spec.scales, one.spec.data.distribution, one.spec.seed) in wanted]


def fashion_claims(study: Study) -> pd.DataFrame:
    """Claims of Figs. 3 and 4 and Table 2 that the runs on Fashion-MNIST can judge, each by its own criterion.

    Columns item, claim, verdicts on digits (of as many runs), clothes and "all digits"; measured (on clothes).
    """
    clothes, fit = _records(study, "beyond_fashion"), fit_tolerance(RANGES)
    few, other, every = (judge(runs(of), curves(of), fit) for of in (digits(study), clothes, _shown(study)))
    verdicts = {"digits": few["verdict"], "clothes": other["verdict"], "all digits": every["verdict"]}
    table = few[["item", "claim"]].assign(**verdicts, measured=other["measured"])
    judged = table["item"].isin(["Figure 3", "Figure 4", "Table 2"]) & table.ne(NOT_MEASURED).all(axis=1)
    return table[judged].reset_index(drop=True)


def _shown(study: Study) -> list[Record]:
    return list({record.key: record for group in ("figure3", "table2") for record in study.stored(group)}.values())


def fashion(study: Study) -> str:
    """Do the findings carry over to Fashion-MNIST?"""
    judged = fashion_claims(study)
    held = judged.loc[judged["digits"] == HELD, "clothes"]
    kept, unclear = (held == HELD).sum(), (held == UNCLEAR).sum()
    return (
        f"Of the {len(held)} claims that held on digits with as many runs, {kept} carry over to Fashion-MNIST, "
        f"{len(held) - kept - unclear} do not and {unclear} are unclear."
    )


def _known(change: Effect) -> Effect:
    need(np.isfinite(change.spread), "a second seed")
    return change


def _records(study: Study, group: str) -> list[Record]:
    """All of a group, not fewer."""
    records, wanted = study.stored(group), len((study.groups() | study.beyond())[group])
    need(len(records) == wanted, f"{len(records)} of {wanted} runs of {group}")
    return records


QUESTIONS: list[tuple[str, str, Callable[[Study], str]]] = [
    ("10", "Does the training loss stop depending on the scales, while that of unseen images does not?", diagnosis),
    ("10", "Can scales be learned that do not depend on their start?", starts),
    ("11", "Do more internal scales bring equivariance back?", numbers),
    ("11", "Does the tolerance model tell how many are enough?", enough),
    ("11", "Can their number be learned?", fewer),
    ("12", "Does the tolerance model suit other distributions?", distributions),
    ("13", "Do the findings carry over to other images?", fashion),
]
"""Notebook, question, and the function that answers it by the criterion of ``docs/beyond.md``."""
