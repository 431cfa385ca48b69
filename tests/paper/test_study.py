"""The paper's grids: which runs, in which order; profiles, what may replace their values, how mistakes are told."""

from collections import Counter

import pytest
import yaml
from fake_training import record_of

from scalestudy import files
from scalestudy.models import systems
from scalestudy.paper import reported, study
from scalestudy.paper.parameters import parse_seconds, profiles
from scalestudy.paper.study import NOTEBOOK_GROUPS, Study
from scalestudy.runs.store import RunStore
from scalestudy.training.spec import MnistScaleSpec, RunSpec, TrainingSpec

ELEVEN = [name for name, system in systems.SYSTEMS.items() if system.in_table5]
VARIANTS = [name for name in systems.SYSTEMS if name not in ELEVEN]


@pytest.fixture(scope="module", params=["paper", "quick"])
def either(request):
    return Study.open(request.param)


def keys(specs):
    return {spec.key for spec in specs}


class TestGrids:
    def test_the_paper_has_234_runs_and_table5(self, paper):
        groups = {name: keys(specs) for name, specs in paper.groups().items()}
        assert {name: len(group) for name, group in groups.items()} == {
            "table2": 9, "table4": 27, "eq5_as_printed": 9, "figure3": 135, "figure4": 72, "table3": 81,
            "table5": 16 * 6 * 2,
        }  # fmt: skip
        everything = keys(paper.all_specs())
        assert len(everything) == len(paper.all_specs()) == 234 + 9 + 192
        assert set.union(*groups.values()) == everything

    def test_the_papers_runs_are_the_recipe_that_is_the_default(self, paper):
        for spec in paper.all_specs():
            assert spec.is_paper_size
            if spec.dataset == "mnist_scale":
                assert spec == RunSpec.baseline(spec.model, spec.seed, spec.data)
            else:
                assert (spec.training, spec.order, spec.precision) == (TrainingSpec(), "relu_norm", "float32")
                assert (spec.model, spec.scales.num_scales) == ("table1", 3)

    @pytest.mark.parametrize(("item", "group"), [("Figure 3", "figure3"), ("Table 3", "table3"), ("Table 4", "table4")])
    def test_every_printed_number_has_its_three_runs(self, paper, item, group):
        wanted = set(reported.numbers(item)[reported.KEYS[2:]].itertuples(index=False, name=None))
        found = Counter(
            (s.data.distribution.label, s.scales.parameterisation, s.scales.sigma_basis, s.scales.isr)
            for s in paper.groups()[group]
        )
        assert found == dict.fromkeys(wanted, 3)

    def test_shared_runs(self, either):
        assert keys(either.table2()) <= keys(either.table4())
        assert keys(either.figure4()) <= keys(either.figure3())
        assert not keys(either.table2()) & keys(either.eq5_as_printed())
        shared = keys(either.table2()) & keys(either.table3())
        assert len(shared) == len(either.ranges) * len(set(either.seeds) & set(either.initialisation_seeds))

    def test_only_figure_4_has_the_scale_test(self, either):
        tested = keys(either.figure4())
        for spec in either.figure3() + either.table3():
            assert spec.data.scale_test_images == either.scale_test_images * (spec.key in tested)

    def test_most_wanted_first(self, paper):
        everything = paper.all_specs()
        assert [spec.seed != 0 for spec in everything] == sorted(spec.seed != 0 for spec in everything)
        order = [spec.key for spec in everything if spec.seed == 0]
        first = {name: keys(specs) & set(order) for name, specs in paper.groups().items()}
        last = {name: max(map(order.index, specs)) for name, specs in first.items()}
        assert last["table2"] < last["table4"] < last["eq5_as_printed"] < last["table3"] < last["figure3"]
        assert last["figure3"] < min(map(order.index, first["table5"]))
        telling = keys(s for s in paper.figure3() if s.scales.isr in study.TELLING_ISRS and s.seed == 0)
        assert len(telling) == 6 * 3 and max(map(order.index, telling)) < last["table3"]
        assert [spec.seed for spec in paper.table2()] == [0] * 3 + [1] * 3 + [2] * 3

    def test_most_wanted_first_on_mnist_scale(self, paper):
        """Realisations 0..2 of all systems, then with "+", then 3..5; cheap systems first, variants last."""
        cheap_first = sorted(ELEVEN, key=lambda name: systems.SYSTEMS[name].cost)
        cheap_first += sorted(VARIANTS, key=lambda name: systems.SYSTEMS[name].cost)
        assert [(spec.model, spec.data.augmented, spec.seed) for spec in paper.table5()] == [
            (model, augmented, seed)
            for seeds in ((0, 1, 2), (3, 4, 5))
            for augmented in (False, True)
            for model in cheap_first
            for seed in seeds
        ]

    def test_runs_on_mnist_scale_have_the_sizes_of_the_study(self):
        spec = Study.open("quick", {"equivariance_images": 7, "baseline_validation_images": 99}).table5()[0]
        sizes = {"train_images": 200, "validation_images": 99, "test_images": 250, "equivariance_images": 7}
        assert spec.data == MnistScaleSpec(**sizes)
        assert spec.training == TrainingSpec.paper_shaped(3, 16, "mnist_scale")

    def test_systems_by_name(self):
        some = Study.open("quick", ["baseline_models=[sesn, variants, cnn]"])
        assert some.systems == ("sesn", *VARIANTS, "cnn")
        assert Study.open("quick", {"baseline_models": []}).table5() == []


class TestSelection:
    @pytest.mark.parametrize(
        ("text", "count"),
        [
            ("table3", 81), ("TABLE2", 9), ("[1, 8]", 81), ("direct", 9 + 12), (r"direct.*seed 1", 3 + 2),
            ("isr 7.56", 9), ("figure", 135), ("table5", 192), ("sesn", 2 * 12), ("MNIST-Scale+, sesn", 6),
            (r"MNIST-Scale\+?, (sesn|cnn), seed [01]$", 2 * 2 * 2),
        ],
    )  # fmt: skip
    def test_select(self, paper, text, count):
        found = paper.select(text)
        assert len(found) == count
        wanted = keys(found)
        assert [spec for spec in paper.all_specs() if spec.key in wanted] == found

    @pytest.mark.parametrize("text", ["table7", "[unclosed", "seed 6"])
    def test_select_of_nothing(self, paper, text):
        with pytest.raises(ValueError, match=r"filter must match a group \(table2, .*got .* matches none of the 435"):
            paper.select(text)

    def test_runs_of_notebooks(self, paper):
        assert keys(paper.for_notebooks(["00_overview"])) == keys(paper.all_specs())
        assert keys(paper.for_notebooks(["07_parameterisation"])) == keys(paper.table4())
        assert paper.for_notebooks(["01_datasets"]) == []
        assert {group for groups in NOTEBOOK_GROUPS.values() for group in groups} <= set(paper.groups())


class TestReading:
    @pytest.fixture
    def store(self, project):
        return RunStore.open()

    def test_what_is_there_and_a_line_about_the_rest(self, store):
        overnight = Study.open("overnight", {"seeds": [0, 1]})
        for spec in overnight.table2()[:2]:
            store.put(record_of(spec, seconds=3600))
        records, told = overnight.read("table2")
        assert [record.spec for record in records] == overnight.table2()[:2]
        assert told.startswith("2 of 6 runs; the others take about ") and told.endswith(
            " hours of a CPU core: scalestudy run --profile=overnight '-pseeds=[0, 1]' --filter table2"
        )
        assert overnight.read()[0] == records and len(store.records()) == 2

    def test_no_such_group(self, store):
        with pytest.raises(ValueError, match=r"group must be one of table2, .* got 'tableX'; leave it out for all"):
            Study.open("overnight").read("tableX")

    def test_committed_records_count_behind_those_of_the_user(self, store):
        study = Study.open("overnight")
        for place, error in ((RunStore(files.records()), 3.0), (store, 5.0)):
            for spec in study.table2()[:2] if error == 3 else study.table2()[:1]:
                place.put(record_of(spec, error))
        assert [record.metrics.test_error for record in study.stored("table2")] == [5.0, 3.0]

    def test_what_takes_no_longer_than_a_cell_may_is_trained(self, store, monkeypatch):
        quick = Study.open("quick", {"seeds": [0]})
        monkeypatch.setattr("scalestudy.runs.batch.DEFAULT_TRAIN", "fake_training:quick")
        records, told = quick.read("table2")
        assert [record.spec for record in records] == quick.table2() and told == "2 of 2 runs"


class TestProfiles:
    @pytest.mark.parametrize(("profile", "count"), [("paper", 435), ("overnight", 213), ("quick", 65)])
    def test_hold_every_parameter_once(self, profile, count):
        written = yaml.safe_load(files.params(profile).read_text())
        assert ["profile", *written] == list(Study.model_fields)
        opened = Study.open(profile)
        assert opened.model_dump(mode="json") == {"profile": profile, **written} and len(opened.all_specs()) == count
        assert profile in profiles()

    def test_paper_has_the_grid_of_figure_3(self, paper):
        assert paper.isrs == tuple(float(f"{1.5 * 2 ** (j / 6):.2f}") for j in range(15))
        assert paper.scale_test_isrs == paper.isrs[::2]
        assert paper.systems == tuple(systems.SYSTEMS)

    def test_descriptions(self, paper):
        assert "60 epochs, 3 seeds. The paper's: 10,000 / 5,000 / 50,000 digits" in paper.description
        assert paper.baseline_description.startswith("Size of the runs on MNIST-Scale: 10,000 training, 2,000 valid")
        quick = Study.open("quick").baseline_description
        assert "1 realisation; 25 digits in the test for invariance. The paper's" in quick

    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ([], "quick"), (["epochs=6", "isrs=[1.5, 3, 7.56]"], "quick"), (["epochs=1"], "quick-custom"),
            ({"epochs": 1}, "quick-custom"), (["epochs=1", "profile=mine"], "mine"), (["profile=mine"], "mine"),
            (["epochs=1", "profile=quick"], "quick-custom"),
        ],
    )  # fmt: skip
    def test_changed_values_do_not_go_under_the_name_of_the_profile(self, changes, name):
        assert Study.open("quick", changes).profile == name

    def test_folder_without_params(self, tmp_path, monkeypatch):
        monkeypatch.setenv(files.ROOT_VARIABLE, str(tmp_path))
        with pytest.raises(ValueError, match="profile must be one of those of the project that SCALESTUDY_ROOT names"):
            Study.open("quick")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("- 1", "must hold one 'name: value' per line"), ("a: [", "must hold one 'name: value' per line"),
            ("epochz: 1", r"unknown parameter 'epochz': did you mean epochs"), ("", "must hold one 'name: value'"),
            ("epochs: 1", "shrink: Field required"),
        ],
    )  # fmt: skip
    def test_mistaken_profile(self, project, text, message):
        with pytest.raises(
            ValueError, match=r"profile must be one of overnight, paper, quick, got 'own'; add .*own.yaml"
        ):
            Study.open("own")
        files.params("own").write_text(text)
        with pytest.raises(ValueError, match=message):
            Study.open("own")


class TestChanges:
    def test_values(self):
        changed = Study.open("quick", ["epochs=3", "seeds=[010, 011]", "initial_sigmas=[1e0, 2]", "isrs = [1.5, 7.56]"])
        assert (changed.epochs, changed.seeds, changed.initial_sigmas) == (3, (10, 11), (1.0, 2.0))
        assert changed.isrs == (1.5, 7.56)

    @pytest.mark.parametrize(
        ("assignment", "message"),
        [
            ("epocs=3", r"unknown parameter 'epocs': did you mean epochs\?"),
            ("zzz=3", "unknown parameter 'zzz': allowed are baseline_augmented, .* batch_size, be"),
            ("epochs=0", "profile quick: epochs: Input should be greater than or equal to 1, got 0"),
            ("epochs=1:30", "epochs: Input should be a valid integer, .* got '1:30'"),
            ("isrs=[1.0, 1.5, 7.56]", "quick: isrs: Input should be greater than 1, got 1.0"),
            ("initial_isrs=[1.0]", "quick: initial_isrs: Input should be greater than 1, got 1.0"),
            ("initial_sigmas=[-1]", "quick: initial_sigmas: Input should be greater than 0, got -1.0"),
            ("initialisation_seeds=[-2]", "quick: initialisation_seeds: .* greater than or equal to 0, got -2"),
            ("ranges=[[8, 1]]", r"8"),
            ("seeds=[1, 1]", r"seeds must be distinct values, got \[1, 1\]; remove"),
            ("scale_test_isrs=[9.0]", r"scale_test_isrs must be values of isrs = .* got \[9.0\]; add"),
            ("scale_test_images=40000", "scale_test_images must be at most test_images = .* got 40000"),
            ("baseline_models=[sesm]", r"baseline_models must be table5, variants or names of cnn, .* got \['sesm'\]"),
            ("baseline_models=[table5, cnn]", r"baseline_models must be distinct values, got .*; remove"),
            ("baseline_models=sesn", "baseline_models: Input should be a valid tuple, got 'sesn'"),
            ("baseline_seeds=[6]", "MNIST-Scale: seed must be a published realisation .* got 6"),
            ("baseline_validation_images=2001", "baseline_validation_images: .* less than or equal to 2000, got 2001"),
            ("baseline_epochs=0", "runs on MNIST-Scale: baseline_epochs: .* greater than or equal to 1, got 0"),
            ("epochs=true", "epochs: Input should be a valid integer, .* got 'true'"),
            ("baseline_augmented=maybe", "baseline_augmented: Input should be a valid boolean, .* got 'maybe'"),
            ("seeds=[]", "seeds: Tuple should have at least 1 item"),
            ("equivariance_images=40000", "equivariance_images must be at most test_images = .* got 40000"),
            ("baseline_train_images=33", "MNIST-Scale: batch_size must not leave a last batch of one image.* got 16"),
            ("shrink=4", "shrink: Input should be 1, 2 or 3, got 4"),
            ("profile=overnight", "profile must be a new name, got 'overnight'"),
            ("profile=records", "profile must be a new name, got 'records'"),
            ("profile=../x", "profile must be a plain name of .* got '../x'"),
            ("epochs", "a parameter must be written name=value, got 'epochs'; for example"),
            ("seeds=[0", r"seeds must be a number, a text or a list like \[0, 1\], got '\[0'"),
        ],
    )  # fmt: skip
    def test_mistakes(self, assignment, message):
        with pytest.raises(ValueError, match=message):
            Study.open("quick", [assignment])


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("25m", 1500), ("1h30m", 5400), ("0.5h", 1800)])
def test_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "m", "5 minutes"])
def test_mistaken_durations(text):
    with pytest.raises(ValueError, match="a duration must be more than 0, such as 90s, 25m or 1h30m, got"):
        parse_seconds(text)
