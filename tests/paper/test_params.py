"""Profiles: what is written, what may replace it, and how mistakes are told."""

import shutil
from pathlib import Path

import pytest
import yaml

from scalestudy import files
from scalestudy.paper import params
from scalestudy.paper.size import StudySize
from scalestudy.training.spec import BASELINES, SYSTEM_NAMES

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copytree(CHECKOUT / "params", tmp_path / "params")
    monkeypatch.setenv(files.ROOT_VARIABLE, str(tmp_path))
    return tmp_path


def test_both_profiles_hold_every_parameter_once(project):
    assert set(params.profiles()) >= {"paper", "quick"}
    for profile in ("paper", "quick"):
        written = yaml.safe_load(files.params(profile).read_text())
        assert list(written) == list(StudySize.model_fields)
        assert params.load(profile).parameters() == written


def test_paper_has_the_papers_sizes(project):
    size = params.load("paper")
    assert (size.train_images, size.validation_images, size.test_images) == (10_000, 5_000, 50_000)
    assert (size.shrink, size.epochs, size.batch_size, size.seeds) == (1, 60, 128, (0, 1, 2))
    assert size.isrs == tuple(float(f"{1.5 * 2 ** (j / 6):.2f}") for j in range(15))
    assert size.scale_test_isrs == size.isrs[::2]
    assert (size.baseline_train_images, size.baseline_validation_images, size.baseline_test_images) == (
        10_000, 2_000, 50_000,
    )  # fmt: skip
    assert (size.baseline_epochs, size.baseline_batch_size, size.baseline_augmented) == (60, 128, True)
    assert (size.systems, size.baseline_seeds, size.equivariance_images) == (SYSTEM_NAMES, (0, 1, 2, 3, 4, 5), 1_000)


def test_overrides(project):
    size = params.load("quick", params.parse_overrides(["epochs=3", "seeds=[7]", "initial_sigmas=[1e0, 2]"]))
    assert (size.epochs, size.seeds, size.initial_sigmas) == (3, (7,), (1.0, 2.0))


def test_systems_by_name(project):
    size = params.load(
        "quick", params.parse_overrides(["baseline_models=[sesn, variants]", "baseline_augmented=false"])
    )
    assert size.systems[:2] == ("sesn", "sevf_scalar") and len(size.systems) == 6 and not size.baseline_augmented
    quick = params.load("quick").systems
    assert quick[: len(BASELINES)] == BASELINES
    assert quick[len(BASELINES) :] == ("ours_isr_like_sesn", "single_scale", "interval_scales")
    assert params.load("quick", {"baseline_models": []}).systems == ()


def test_descriptions(project):
    size = params.load("paper")
    assert size.baseline_description.startswith(
        "Size of the runs on MNIST-Scale: 10,000 training, 2,000 validation and 50,000 test digits, 60 epochs, batch"
    )
    quick = params.load("quick").baseline_description
    assert "1 realisation; 25 digits in the test for invariance. The paper's" in quick


@pytest.mark.parametrize(
    ("assignments", "profile"),
    [
        ([], "quick"),
        (["epochs=6", "isrs=[1.5, 2.38, 4.76, 7.56]"], "quick"),
        (["epochs=1"], "quick-custom"),
        (["epochs=1", "profile=mine"], "mine"),
        (["profile=mine"], "mine"),
        (["epochs=1", "profile=quick"], "quick"),
    ],
)
def test_changed_values_do_not_go_under_the_name_of_the_profile(project, assignments, profile):
    assert params.load("quick", params.parse_overrides(assignments)).profile == profile


def test_folder_without_params(tmp_path, monkeypatch):
    monkeypatch.setenv(files.ROOT_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=rf"no folder params in {tmp_path}; .* variable SCALESTUDY_ROOT"):
        params.load("quick")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epocs=3", r"unknown parameter 'epocs' on the command line: did you mean epochs\?"),
        ("zzz=3", "unknown parameter 'zzz' on the command line: allowed are baseline_augmented, .* batch_size, epochs"),
        ("epochs=0", "profile quick: epochs: Input should be greater than or equal to 1, got 0"),
        ("epochs=many", "epochs: Input should be a valid integer.* got 'many'"),
        ("isrs=[1.0]", r"isrs.0: Input should be greater than 1, got 1.0"),
        ("seeds=[1, 1]", r"seeds must be distinct values, got \[1, 1\]; remove"),
        ("seeds=[]", "seeds: Tuple should have at least 1 item"),
        ("scale_test_isrs=[9.0]", r"scale_test_isrs must be values of isrs = .* got \[9.0\]; add"),
        ("scale_test_images=40000", "scale_test_images must be at most test_images = .* got 40000; lower it"),
        ("baseline_models=[sesm]", "baseline_models.0: Input should be 'table5', 'variants', 'cnn', .* got 'sesm'"),
        ("baseline_models=[table5, cnn]", r"baseline_models must be distinct values, got .*; remove"),
        ("baseline_models=sesn", "baseline_models: Input should be a valid tuple, got 'sesn'"),
        ("baseline_seeds=[0, 0]", r"baseline_seeds must be distinct values, got \[0, 0\]; remove"),
        ("baseline_seeds=[-1]", "baseline_seeds.0: Input should be greater than or equal to 0, got -1"),
        ("baseline_validation_images=2001", "baseline_validation_images: .* less than or equal to 2000, got 2001"),
        ("equivariance_images=40000", "equivariance_images must be at most baseline_test_images = .* got 40000; lower"),
        ("baseline_train_images=33", "baseline_batch_size must not leave a last batch of one image, got 16 .* = 33"),
        ("shrink=4", "shrink: Input should be 1, 2 or 3, got 4"),
        ("profile=../x", "profile must be a plain name of .* got '../x'"),
        ("profile=5", "profile: Input should be a valid string, got 5"),
        ("epochs", "a parameter must be written name=value, got 'epochs'; for example"),
        ("seeds=[0", r"seeds must be a number, a text or a list like \[0, 1\], got '\[0'"),
    ],
)
def test_mistaken_overrides(project, assignment, message):
    with pytest.raises(ValueError, match=message):
        params.load("quick", params.parse_overrides([assignment]))


def test_unknown_profile_lists_those_there_are(project):
    with pytest.raises(ValueError, match=r"profile must be one of paper, quick, got 'qick'; add .*qick.yaml"):
        params.load("qick")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must hold one 'name: value' per line, got list"),
        ("a: [", "is not valid YAML"),
        ("profile: own\nepochz: 1", r"unknown parameter 'epochz' in own.yaml: did you mean epochs\?"),
        ("profile: quick", "profile must be 'own' in .*own.yaml, got 'quick'"),
        ("profile: own", "shrink: Field required"),
    ],
)
def test_mistaken_profile(project, text, message):
    files.params("own").write_text(text)
    with pytest.raises(ValueError, match=message):
        params.load("own")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("25m", 1500), ("1h30m", 5400), ("0.5h", 1800)])
def test_durations(text, seconds):
    assert params.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "m", "5 minutes"])
def test_mistaken_durations(text):
    with pytest.raises(ValueError, match="a duration must be more than 0, such as 90s, 25m or 1h30m, got"):
        params.parse_seconds(text)
