"""Our runs beside the printed numbers: the right cell beside the right number, a verdict each, and the scorecard."""

import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fake_training import record_of

from scalestudy.models import systems
from scalestudy.paper import compare, reported
from scalestudy.paper.compare import beside, scorecard, table
from scalestudy.paper.effects import welch_interval
from scalestudy.paper.reported import DISTRIBUTIONS, MIDDLE, RANGES, WIDE
from scalestudy.paper.study import Study
from scalestudy.paper.table import best_fixed, runs
from scalestudy.runs.store import RunStore
from scalestudy.tolerance import fit_tolerance

ROOT = Path(__file__).resolve().parents[2]
ITEMS = ["Figure 3", "Table 2", "Table 3", "Table 4", "Table 5", "Table 6"]
OFFSETS = (-0.006, 0.0, 0.006, 0.0, 0.0, 0.0)  # of the seeds: "reproduced" where the paper's own spread allows it


@pytest.fixture(scope="module")
def fit():
    return fit_tolerance(RANGES)


@pytest.fixture(scope="module")
def paper():
    return Study.open("paper")


@pytest.fixture(scope="module")
def quick():
    """The study and the committed runs of the quick profile."""
    study = Study.open("quick")
    return study, study.records(RunStore(ROOT / "tests" / "records").records())


def made(specs, error, scales=None):
    """Records of some specs; `error` and `scales` of a spec, errors with the offset of the seed."""
    records = []
    for spec in specs:
        record = record_of(spec, error(spec) + OFFSETS[spec.seed])
        changes = {"internal_scales": tuple(scales(spec))} if scales else {}
        records.append(type(record).of(spec, record.metrics.model_copy(update=changes), record.provenance))
    return records


def printed(item, quantity):
    """What the paper prints, by its configuration."""
    rows = reported.numbers(item).query("quantity == @quantity and mode != 'fixed' or item == 'Figure 3'")
    keys = reported.KEYS[:2] if item in ("Table 5", "Table 6") else ["distribution", "mode", "init_sigma", "init_isr"]
    return rows.set_index(keys)["mean"].to_dict()


def key(spec):
    start = spec.scales
    return spec.data.distribution.label, start.parameterisation, start.sigma_basis, start.isr


def cell(frame, **keys):
    (chosen,) = np.flatnonzero((frame[list(keys)] == pd.Series(keys)).all(axis=1))
    return frame.iloc[chosen]


@pytest.mark.parametrize(
    ("ours", "paper", "verdict"),
    [
        ([2.30, 2.31, 2.29], (2.30, 0.01, 3), "reproduced"), ([2.80, 2.81, 2.79], (2.30, 0.01, 3), "different"),
        ([2.35, 2.39, 2.43, 2.35, 2.39, 2.43], (2.30, 0.03, 6), "trivially different"),
        ([2.1, 2.5, 2.3], (2.30, 0.2, 3), "inconclusive"), ([2.9, 2.1, 2.8], (2.30, 0.2, 3), "inconclusive"),
        ([2.30], (2.30, 0.01, 3), "inconclusive"), ([2.30, 2.31, 2.29], (2.30, np.nan, 1), "inconclusive"),
        ([], (2.30, 0.01, 3), "not measured"), ([2.30], (np.nan, np.nan, np.nan), "-"),
    ],
)  # fmt: skip
def test_verdicts(ours, paper, verdict):
    values = pd.Series(ours, dtype=float)
    names = ["mean_ours", "std_ours", "n_ours", "mean_paper", "std_paper", "n_paper", "margin", "paper_size"]
    row = pd.DataFrame([(values.mean(), values.std(), len(values), *paper, 0.11, True)], columns=names)
    judged = compare.judged(row).iloc[0]
    assert judged["verdict"] == verdict
    if len(ours) > 1 and paper[2] > 1:
        assert judged["low"] < judged["difference"] < judged["high"]
    smaller = compare.judged(row.assign(paper_size=False)).iloc[0]
    assert smaller["verdict"] == (verdict if verdict in ("-", "not measured") else "not comparable")
    assert compare.judged(row.assign(margin=np.nan)).iloc[0]["verdict"] == ("-" if verdict == "-" else "setting")


@pytest.mark.parametrize("item", ITEMS)
def test_tables_of_the_committed_runs_are_the_committed_ones(quick, item):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    ours = table(item, beside(*quick))
    if item == "Figure 3":
        ours = ours[ours["verdict"] != "not measured"]
    name = item.lower().replace(" ", "")
    committed = subprocess.run(  # `make reproduce` writes its own over the file in the checkout
        ["git", "show", f"HEAD:results/quick/tables/{name}.csv"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ours.to_csv(index=False) == committed.stdout


@pytest.mark.parametrize(
    ("item", "group"), [("Figure 3", "figure3"), ("Table 3", "table3"), ("Table 4", "table4"), ("Table 6", "table5")]
)
def test_every_cell_stands_beside_its_own_number(paper, item, group):
    """Ours are made of the paper's numbers: each pair of columns must say the same mean."""
    names = ["test_error", "sigma_basis", "isr", "scale1", "scale2", "scale3", "scale4"]
    means = {name: printed(item, name) for name in names}
    of = (lambda spec: (spec.model, spec.data.augmented)) if item == "Table 6" else key

    def scales(spec):
        if sigma := means["sigma_basis"].get(of(spec)):
            return sigma, sigma * means["isr"][of(spec)]
        return [means[name][of(spec)] for name in names[3:] if of(spec) in means[name]] or (2.0, 6.0)

    specs = [spec for spec in paper.groups()[group] if item != "Table 6" or of(spec) in means["scale1"]]
    wide = table(item, beside(paper, made(specs, lambda spec: means["test_error"].get(of(spec), 1.0), scales)))
    for title in {column.removesuffix(", ours") for column in wide if column.endswith(", ours")}:
        pair = wide[[f"{title}, ours", f"{title}, paper"]].apply(lambda column: column.str.split(" ").str[0])
        pair = pair[(pair != "-").all(axis=1)].astype(float)
        np.testing.assert_allclose(*pair.to_numpy().T, atol=0.0101)
        assert len(pair) > 5
    assert set(wide["verdict"]) <= {"reproduced", "inconclusive", "setting"}


def test_figure_3_and_table_2(paper):
    error = printed("Figure 3", "test_error")
    learned = made([*paper.table2(), *paper.eq5_as_printed()], lambda spec: 2.872)
    fixed = made(paper.figure3(), lambda spec: error[key(spec)], lambda spec: (2.0, 2.0 * spec.scales.isr))
    both = beside(paper, fixed + learned)
    row = cell(table("Figure 3", both), distribution=WIDE, isr=5.35)
    assert row[["test error, ours", "test error, paper"]].tolist() == ["2.81 ± 0.01 (n=3)", "2.81 ± 0.03 (n=3)"]
    assert row["verdict"] == "reproduced" and row["difference"].startswith(("+0.00 [", "-0.00 ["))
    wide = table("Table 2", both)
    kinds = ["learned: step ratio (released code)", "learned: Eq. 5 as printed", "best fixed"]
    assert wide["scale learning"].tolist() == kinds * 3
    assert wide["distribution"].tolist() == [name for name in DISTRIBUTIONS for _ in kinds]
    released, by_eq5, fixed = (cell(wide, **{"distribution": WIDE, "scale learning": kind}) for kind in kinds)
    assert released["test error, paper"] == by_eq5["test error, paper"] == "2.87 ± 0.07 (n=3)"
    assert released["test error, ours"] == by_eq5["test error, ours"] == "2.87 ± 0.01 (n=3)"
    assert fixed[["isr, ours", "isr, paper", "verdict"]].tolist() == ["5.35 ± 0.00 (n=3)", "5.35 (n=3)", "reproduced"]


def test_table_5(paper):
    error = printed("Table 5", "test_error")
    specs = [spec for spec in paper.table5() if spec.model in ("dss", "ours_isr")]
    records = made(specs, lambda spec: error[spec.model, spec.data.augmented] + 0.5 * spec.data.augmented)
    both = beside(paper, records)
    wide = table("Table 5", both)
    row = cell(wide, model="DSS")
    assert (row["parameters, ours"], row["parameters, paper"]) == ("494,359", "475k")
    assert row["test error, ours"] == "1.97 ± 0.00 (n=6)" and row["test error, paper"] == "1.97 ± 0.08 (n=6)"
    assert (row["verdict"], row["verdict+"]) == ("reproduced", "different")
    low, high = welch_interval((1.57 + 0.5, pd.Series(OFFSETS).std(), 6), (1.57, 0.09, 6))
    assert row["difference+"] == f"+0.50 [{low:+.2f}, {high:+.2f}]"
    ours = cell(both, item="Table 5", model="ours_isr", augmented=False, quantity="test_error")
    assert (ours["n_paper"], ours["n_ours"]) == (5, 6)
    assert wide["model"].tolist() == [one.title for one in systems.SYSTEMS.values() if one.in_table5]


def test_table_6(paper):
    scales = {"ours_isr": (1.39, 1.89, 2.572, 3.503), "disco": (1.9, 2.394, 3.021, 3.8)}
    specs = [spec for spec in paper.table5() if spec.model in scales]
    wide = table("Table 6", beside(paper, made(specs, lambda spec: 1.7, lambda spec: scales[spec.model])))
    row = cell(wide, model="Ours (Learn ISR)")
    assert (row["scale 4, ours"], row["scale 4, paper"]) == ("3.50 ± 0.00 (n=6)", "3.50 ± 0.34 (n=5)")
    assert row[["largest / smallest, paper", "verdict"]].tolist() == ["2.52", "reproduced"]
    names = ["scale 4, ours", "scale 4, paper", "largest / smallest, ours", "verdict"]
    assert cell(wide, model="DISCO")[names].tolist() == ["3.80 ± 0.00 (n=6)", "3.60", "2.00 ± 0.00 (n=6)", "setting"]
    assert cell(wide, model="DISCO+")[["scale 4, paper", "verdict"]].tolist() == ["-", "-"]
    # the least favourable scale decides: only the smallest is off, by 0.2 pixels, three margins
    records = made(specs, lambda spec: 1.7, lambda spec: (1.59 + 0.001 * spec.seed, *scales["ours_isr"][1:]))
    assert cell(table("Table 6", beside(paper, records)), model="Ours (Learn ISR)")["verdict"] == "different"


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_new_system_is_a_row_of_the_tables(paper, monkeypatch):
    groups, new = paper.groups(), replace(systems.SYSTEMS["interval_scales"], title="Twelfth", in_table5=True)
    monkeypatch.setitem(systems.SYSTEMS, "twelfth", new)
    specs = [spec for spec in groups["table5"] if spec.model == "single_scale" and spec.seed < 2]
    records = made(specs, lambda spec: 2.5, lambda spec: (1.4,))
    for record in list(records):
        spec = record.spec.model_copy(update={"model": "twelfth"})  # specs know the names of the import
        specs.append(spec)
        records.append(record.model_copy(update={"spec": spec, "key": spec.key}))
    both = beside(SimpleNamespace(groups=lambda: groups | {"table5": specs}), records)
    five, six = table("Table 5", both), table("Table 6", both)
    titles = ["One learned scale (as NJet-Net)", "Twelfth"]
    assert five["model"].tolist()[11:] == titles
    told = ["parameters, paper", "test error, paper", "difference", "verdict", "test error+, paper", "verdict+"]
    assert set(five.iloc[-1][told]) == {"-"} and five.iloc[-1]["test error, ours"] == "2.50 ± 0.00 (n=2)"
    assert six["model"].tolist()[5:7] == titles and "CNN" not in set(six["model"])
    names = ["scale 1, ours", "scale 2, ours", "largest / smallest, ours", "scale 1, paper", "verdict"]
    assert cell(six, model=titles[0])[names].tolist() == ["1.40 ± 0.00 (n=2)", "-", "1.00 ± 0.00 (n=2)", "-", "-"]


def test_best_fixed_is_the_lowest_mean_and_not_the_best_seed(paper):
    errors = {1.5: (1.0, 9.0, 9.0), 3.0: (4.0, 4.0, 4.0), 6.0: (4.0, 4.0, 4.0)}
    specs = [s for s in paper.figure3() if s.scales.isr in errors and s.data.distribution.label != MIDDLE]
    frame = runs(record_of(spec, errors[spec.scales.isr][spec.seed]) for spec in [*specs, *paper.table2()])
    best = best_fixed(frame)
    assert set(best["distribution"]) == {DISTRIBUTIONS[0], WIDE}
    assert set(best["init_isr"]) == {3.0} and set(best["mode"]) == {"fixed"} and len(best) == 6
    nothing = best_fixed(frame[frame["mode"] != "fixed"])
    assert nothing.empty and list(nothing.columns) == list(frame.columns)


def test_every_printed_number_appears_once(quick, fit):
    """Independent of the code under test: the printed means, row by row, all but settings."""
    rows = scorecard(*quick, fit).numbers
    numbers = reported.numbers()
    means = numbers[numbers["margin"].notna()]["mean"]
    assert rows["paper"].str.split(" ").str[0].tolist() == [*(f"{mean:.2f}" for mean in means), "0.459"]
    assert len(rows) == 227 == 45 + 18 + 81 + 36 + 22 + 24 + 1
    assert not rows.duplicated(["item", "configuration", "quantity"]).any() and not rows.isna().any().any()


def test_tau(paper, fit):
    row = scorecard(paper, [], replace(fit, tau=0.4596)).numbers.iloc[-1]
    assert row.tolist()[3:] == ["0.460", "0.459", "+0.0006", "different"]


def test_records_of_another_study_do_not_count(quick, paper, fit):
    card = scorecard(paper, quick[1], fit)
    assert set(card.numbers["verdict"]) == {"not measured", "reproduced"}
    assert set(card.claims["verdict"]) == {"not measured", "held"}


def test_scorecard_in_words(quick, fit):
    card = scorecard(*quick, fit)
    counts = card.counts()
    assert list(counts.columns) == ["kind", "verdict", "count"]
    assert counts.groupby("kind")["count"].sum().to_dict() == {"claim": 29, "number": 227}
    lines = card.text().splitlines()
    assert lines[0] == "Claims of the paper:" and lines[30] == "Numbers of the paper:"
    for line, one in zip(lines[1:30], card.claims.itertuples(), strict=True):
        assert line.startswith(f"  {one.verdict}") and line.endswith(f"  {one.item}: {one.claim}")
    numbers = card.numbers["verdict"].value_counts()
    assert lines[31:] == [f"  {count:4d} {verdict}" for verdict, count in numbers.items()]
