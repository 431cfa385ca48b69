"""The scorecard: every number and every claim once, judged by whatever runs are there."""

import dataclasses
from pathlib import Path

import pytest

from scalestudy.paper import params, reported, scorecard, tables
from scalestudy.paper.frames import baseline_frame, frame, scale_test_frame
from scalestudy.paper.grids import Study
from scalestudy.runs.store import RunStore
from scalestudy.tolerance import fit_tolerance
from scalestudy.training.record import Record
from scalestudy.training.spec import BASELINES

RECORDS = Path(__file__).resolve().parent / "records"
WIDE = reported.DISTRIBUTIONS[-1]
ITEMS = {"Figure 3": "fig3", "Table 2": "table2", "Table 3": "table3", "Table 4": "table4"}
NUMBERS = 227
COLUMNS = ["item", "configuration", "quantity", "ours", "paper", "difference", "verdict"]


@pytest.fixture(scope="module")
def fit():
    return fit_tolerance()


@pytest.fixture(scope="module")
def study():
    return Study(params.load("quick"))


@pytest.fixture(scope="module")
def records(study):
    """The committed runs of sections 4.1 and 4.2; those on MNIST-Scale are made where a test needs them."""
    store = RunStore(RECORDS)
    return [store.get(spec) for spec in study.all_specs() if spec.model == "table1"]


@pytest.fixture(scope="module")
def card(study, records, fit):
    return scorecard.scorecard(study, records, fit)


def row_of(card, **keys):
    rows = card.numbers
    for key, value in keys.items():
        rows = rows[rows[key] == value]
    assert len(rows) == 1, rows.to_string()
    return rows.iloc[0]


class TestNumbers:
    @pytest.mark.parametrize(("item", "name"), ITEMS.items(), ids=list(ITEMS))
    def test_every_reported_number_appears_once(self, card, item, name):
        table, rows = reported.table(name), card.numbers.query("item == @item")
        values = [column.removesuffix("_mean") for column in table.columns if column.endswith("_mean")]
        assert len(rows) == len(table) * len(values) == {"fig3": 45, "table2": 18, "table3": 81, "table4": 36}[name]
        assert not rows.duplicated(["configuration", "quantity"]).any()
        for value in values:
            printed = rows[rows["quantity"] == value.replace("_", " ")]["paper"].str.split(" ").str[0]
            assert printed.tolist() == [f"{mean:.2f}" for mean in table[f"{value}_mean"]]

    def test_nothing_else_but_tau(self, card):
        assert list(card.numbers.columns) == COLUMNS
        assert len(card.numbers) == NUMBERS == 45 + 18 + 81 + 36 + 22 + 24 + 1
        assert not card.numbers.isna().any().any()

    def test_tau(self, card, study, fit):
        row = row_of(card, item="Section 4.1")
        assert row.tolist()[1:5] == ["joint tolerance fit", "tau", "0.459", "0.459"]
        assert row["verdict"] == "reproduced"
        other = scorecard.scorecard(study, [], dataclasses.replace(fit, tau=0.4596))
        row = row_of(other, item="Section 4.1")
        assert row.tolist()[3:] == ["0.460", "0.459", "+0.0006", "different"]

    def test_quick_numbers_are_shown_but_not_compared(self, card, records):
        row = row_of(card, configuration=f"{WIDE}, isr 7.56", quantity="test error")
        ours = tables.mean_std(
            frame(records).query("distribution == @WIDE and scale_learning == 'fixed' and init_isr == 7.56"),
            ["distribution"],
            "test_error",
        )
        assert (row["ours"], row["difference"], row["verdict"]) == (ours["test_error"].item(), "-", "not comparable")
        numbers = card.numbers[card.numbers["item"] != "Section 4.1"]
        assert set(numbers["verdict"]) == {"not comparable", "not measured"}
        assert set(numbers[numbers["verdict"] == "not measured"]["ours"]) == {"-"}
        assert set(numbers["difference"]) == {"-"}

    def test_learned_and_best_fixed_rows_of_table_2(self, card, records):
        learned = row_of(card, configuration=f"{WIDE}, learned", quantity="test error")["ours"]
        fixed = row_of(card, configuration=f"{WIDE}, fixed", quantity="isr")["ours"]
        runs = frame(records).query("distribution == @WIDE")
        default = runs.query("scale_learning == 'step_ratio' and init_sigma_basis == 2 and init_isr == 3")
        assert learned == tables.mean_std(default, ["distribution"], "test_error")["test_error"].item()
        assert fixed.startswith(f"{tables.best_fixed(runs)['init_isr'].iloc[0]:.2f} ± 0.00")

    def test_paper_sized_runs_get_real_verdicts(self, records, fit):
        """The metrics of the quick runs under specs of the paper's size: errors of 30 % are different from 3 %."""
        paper = Study(params.load("paper"))
        names = [(paper.figure3, "fixed"), (paper.table2, "step_ratio")]
        made = [
            Record.of(
                spec, records[0].metrics.model_copy(update={"test_error": 30.0 + spec.seed}), records[0].provenance
            )
            for specs, _ in names
            for spec in specs()
        ]
        card = scorecard.scorecard(paper, made, fit)
        assert set(card.numbers.query("item == 'Figure 3'")["verdict"]) == {"different"}
        learned = row_of(card, configuration=f"{WIDE}, learned", quantity="test error")
        assert learned["ours"] == "31.00 ± 1.00 (n=3)" and learned["difference"].startswith("+28.13 [")
        assert set(card.numbers.query("item == 'Table 4' and configuration.str.contains('direct')")["verdict"]) == {
            "not measured"
        }


@pytest.fixture(scope="module")
def baselines(records):
    """Table 5 at the paper's size: errors 2.0 .. 2.5 by seed, 1 less with "+"; scales of Ours widen with "+"."""
    paper = Study(params.load("paper"))
    made = []
    for spec in paper.table5():
        top = 3.6 + spec.data.augmented + 0.01 * spec.seed
        scales = {"sesn": (1.5, 1.89, 2.38, 3.0), "disco": (1.9, 2.394, 3.021, 3.8)}.get(spec.model, ())
        if spec.model.startswith("ours"):
            scales = (1.39, 1.9, 2.6, top)
        error = 2.0 + 0.1 * spec.seed - spec.data.augmented
        metrics = records[0].metrics.model_copy(update={"internal_scales": scales, "test_error": error})
        made.append(Record.of(spec, metrics, records[0].provenance))
    return paper, made


class TestMnistScale:
    def test_every_reported_number_appears_once(self, card):
        """Independent of the code under test: the printed means, row by row and column by column."""
        table5, table6 = reported.table("table5"), reported.table("table6")
        rows = card.numbers.query("item == 'Table 5'")
        printed = [*table5["mnist_scale_mean"], *table5["mnist_scale_plus_mean"]]
        assert rows["paper"].str.split(" ").str[0].tolist() == [f"{mean:.2f}" for mean in printed]
        assert rows["configuration"].tolist() == [
            *table5["model"], *(f"{name}, with random rescaling (+)" for name in table5["model"])
        ]  # fmt: skip
        rows = card.numbers.query("item == 'Table 6'")
        learned = table6.dropna()  # the scales of SESN and DISCO are settings: no numbers to reproduce
        printed = [mean for k in "1234" for mean in learned[f"scale{k}_mean"]]
        assert rows["paper"].str.split(" ").str[0].tolist() == [f"{mean:.2f}" for mean in printed]
        assert not card.numbers.duplicated(["item", "configuration", "quantity"]).any()
        assert set(card.numbers[card.numbers["item"].isin(["Table 5", "Table 6"])]["verdict"]) == {"not measured"}

    def test_runs_of_the_papers_size_get_verdicts(self, baselines, fit):
        card = scorecard.scorecard(*baselines, fit)
        row = row_of(card, item="Table 5", configuration="CNN")
        assert (row["ours"], row["quantity"]) == ("2.25 ± 0.19 (n=6)", "test error")
        assert row["paper"] == "2.02 ± 0.07 (n=6)"
        row = row_of(card, item="Table 5", configuration="Ours (Learn ISR), with random rescaling (+)")
        assert (row["ours"], row["paper"]) == ("1.25 ± 0.19 (n=6)", "1.44 ± 0.09 (n=5)")
        assert card.numbers.query("item == 'Table 6' and configuration in ('SESN (Hermite)', 'DISCO')").empty
        spacings = card.numbers.query("item == 'Table 6' and configuration == 'Ours (Learn Spacings)'")
        assert spacings["quantity"].tolist() == ["scale1", "scale2", "scale3", "scale4"]
        assert spacings["ours"].str.contains("n=6").all() and spacings["paper"].str.contains("n=5").all()

    def test_claims_are_judged(self, baselines, fit):
        verdicts = scorecard.scorecard(*baselines, fit).claims.set_index("id")["verdict"]
        ids = ["learned_on_par_with_sesn", "learned_scales_wider_than_sesn", "augmentation_widens_learned_scales"]
        assert verdicts[ids].tolist() == ["held"] * 3
        without = [record for record in baselines[1] if not record.spec.data.augmented]
        verdicts = scorecard.scorecard(baselines[0], without, fit).claims.set_index("id")["verdict"]
        assert verdicts[ids].tolist() == ["not measured"] * 3
        claims = scorecard.notebook_claims("08_baselines", baselines=baseline_frame(baselines[1]))
        assert claims["verdict"].tolist() == ["held"] * 3

    def test_small_runs_are_shown_but_not_compared(self, baselines, study, fit):
        """Metrics of runs at the quick size; variants belong to no table."""
        made = [Record.of(spec, baselines[1][0].metrics, baselines[1][0].provenance) for spec in study.table5()]
        assert {record.spec.model for record in made} > set(BASELINES)
        rows = scorecard.scorecard(study, made, fit).numbers.query("item == 'Table 5'")
        augmented = rows["configuration"].str.contains("+", regex=False)
        assert len(rows) == 22 and augmented.sum() == 11
        assert set(rows[~augmented]["verdict"]) == {"not comparable"} and set(rows["difference"]) == {"-"}
        assert set(rows[~augmented]["ours"]) == {"2.00 (n=1)"}
        assert set(rows[augmented]["verdict"]) == {"not measured"}

    def test_records_of_another_size_are_not_numbers_of_this_study(self, baselines, study, fit):
        rows = scorecard.scorecard(study, baselines[1], fit).numbers.query("item == 'Table 5'")
        assert set(rows["verdict"]) == {"not measured"}


class TestClaims:
    def test_every_claim_once(self, card):
        assert card.claims["id"].tolist() == reported.claims()["id"].tolist()
        assert card.claims["measured"].str.len().gt(0).all()

    def test_learned_means_the_step_ratio(self, study, records, fit, monkeypatch):
        """As in the released code, which produced the paper's numbers; `ClaimSettings` by itself means Eq. 5."""
        seen = []
        judge = scorecard.claim_verdicts
        monkeypatch.setattr(
            scorecard,
            "claim_verdicts",
            lambda *args, settings: seen.append(settings) or judge(*args, settings=settings),
        )
        without = [record for record in records if record.spec.scales.parameterisation != "step_ratio"]
        verdicts = scorecard.scorecard(study, without, fit).claims.set_index("id")["verdict"]
        scorecard.notebook_claims("05_learned_scales", frame(records))
        assert [settings.learned for settings in seen] == ["step_ratio"] * 2
        full = scorecard.scorecard(study, records, fit).claims.set_index("id")["verdict"]
        learned = ["learned_isr_grows_except_narrowest", "init_matters", "isr_best_on_wide"]
        assert set(verdicts[learned]) == {"not measured"} and "not measured" not in set(full[learned])
        printed = [record for record in records if record.spec.scales.parameterisation != "isr"]
        assert full.equals(scorecard.scorecard(study, printed, fit).claims.set_index("id")["verdict"])


class TestPartialStores:
    def test_nothing_but_the_fit(self, study, fit):
        card = scorecard.scorecard(study, [], fit)
        assert card.numbers["verdict"].value_counts().to_dict() == {"not measured": NUMBERS - 1, "reproduced": 1}
        on_runs = card.claims[~card.claims["id"].str.startswith("tolerance")]
        assert set(on_runs["verdict"]) == {"not measured"} and on_runs["measured"].str.startswith("missing: ").all()
        assert "held" in set(card.claims["verdict"])

    @pytest.mark.parametrize("group", ["figure3", "table2", "table3", "table4", "eq5_as_printed"])
    def test_one_group(self, study, records, fit, group):
        keys = {spec.key for spec in study.groups()[group]}
        card = scorecard.scorecard(study, iter([record for record in records if record.key in keys]), fit)
        measured = set(card.numbers.query("verdict == 'not comparable'")["item"])
        own = {"figure3": "Figure 3", "table2": "Table 2", "table3": "Table 3", "table4": "Table 4"}
        assert own.get(group, "") in measured | {""}
        assert len(card.numbers) == NUMBERS

    def test_one_run(self, study, records, fit):
        card = scorecard.scorecard(study, records[:1], fit)
        assert row_of(card, item="Table 2", configuration=f"{reported.DISTRIBUTIONS[0]}, learned", quantity="isr")[
            "ours"
        ].endswith("(n=1)")

    def test_the_fit_is_made_where_none_is_given(self, study, fit, monkeypatch):
        monkeypatch.setattr(scorecard, "fit_tolerance", lambda: dataclasses.replace(fit, tau=0.5))
        assert row_of(scorecard.scorecard(study, []), item="Section 4.1")["ours"] == "0.500"


class TestSummaries:
    def test_counts(self, card):
        counts = card.counts()
        assert list(counts.columns) == ["kind", "verdict", "count"]
        assert counts.groupby("kind")["count"].sum().to_dict() == {"claim": len(card.claims), "number": NUMBERS}
        for kind, verdicts in (("number", card.numbers["verdict"]), ("claim", card.claims["verdict"])):
            counted = counts[counts["kind"] == kind].set_index("verdict")["count"]
            assert counted.to_dict() == verdicts.value_counts().to_dict()
            assert counted.is_monotonic_decreasing

    def test_text(self, card):
        lines = card.text().splitlines()
        claims, numbers = lines.index("Claims of the paper:"), lines.index("Numbers of the paper:")
        assert claims == 0 and numbers == len(card.claims) + 1
        for line, claim in zip(lines[1:numbers], card.claims.itertuples(), strict=True):
            assert line.split("  ", 2)[1].strip() == claim.verdict
            assert line.endswith(f"  {claim.item}: {claim.claim}")
        assert sorted(lines[numbers + 1 :]) == sorted(
            f"  {count:4d} {verdict}" for verdict, count in card.numbers["verdict"].value_counts().items()
        )


class TestNotebookClaims:
    @pytest.mark.parametrize("notebook", sorted(set(reported.claims()["notebook"])))
    def test_are_its_own(self, card, records, fit, notebook):
        claims = scorecard.notebook_claims(notebook, frame(records), scale_test_frame(records), fit)
        expected = card.claims[card.claims["notebook"] == notebook]
        assert list(claims.columns) == ["item", "claim", "measured", "verdict"]
        assert claims["claim"].tolist() == expected["claim"].tolist() and len(claims)
        assert claims["verdict"].tolist() == expected["verdict"].tolist()

    def test_scale_test_and_fit_may_be_missing(self, records):
        claims = scorecard.notebook_claims("03_tolerance_model", frame(records))
        assert set(claims["verdict"]) == {"not measured"}

    def test_unknown_notebook(self):
        with pytest.raises(ValueError, match=r"notebook must be one of \['03_tolerance_model.*got '08_none'"):
            scorecard.notebook_claims("08_none", frame([]))
