"""The project's own files agree with each other: pyproject, pins, environment, Makefile, CI, citation."""

import json
import re
import shutil
import subprocess
import tomllib
from functools import partial
from importlib import resources
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import scalestudy
from scalestudy.models import SYSTEMS
from scalestudy.paper.study import Study
from scalestudy.paper.table import write_summary
from scalestudy.runs.store import RunStore

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
PAPER_DOI = "10.5220/0012379800003660"
PLACE = re.compile(r"(?<![\w.~$})>-])/(?:work|root|home|Users)/")
"""An absolute path of one machine; no address and no path below another folder."""


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def pyproject():
    return tomllib.loads(read("pyproject.toml"))


def pins():
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    return [Requirement(line.split(" #")[0]) for line in lines]


def dependencies():
    project = pyproject()["project"]
    extras = project.get("optional-dependencies", {}).values()
    return [Requirement(text) for group in [project["dependencies"], *extras] for text in group]


def in_force(requirement, python):
    environment = {"python_version": python, "python_full_version": f"{python}.9"}
    environment |= {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def commands(script):
    """The lines of a shell script that do something for the project."""
    lines = [line.strip() for line in script.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]


def fenced_commands(markdown):
    blocks = re.findall(r"^ *```(?:ba|z)?(?:sh|console|shell)?\n(.*?)^ *```", markdown, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [re.sub(r"\s+#.*", "", line) for line in lines if line]


def tracked(path: str = ".") -> dict[str, bytes]:
    """Names and contents of the files below `path` in git's index, whatever lies beside them in the checkout."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    git = partial(subprocess.run, cwd=ROOT, capture_output=True, check=True)
    names = git(["git", "ls-files", "-z", path]).stdout.decode().split("\0")[:-1]
    return {name: git(["git", "show", f":{name}"]).stdout for name in names}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("dependency", dependencies(), ids=str)
def test_each_dependency_has_one_pin_that_satisfies_it(dependency, python):
    if not in_force(dependency, python):
        return
    name = canonicalize_name(dependency.name)
    found = [pin for pin in pins() if canonicalize_name(pin.name) == name and in_force(pin, python)]
    assert len(found) == 1, f"constraints.txt pins {name} {len(found)} times for Python {python}; run `make pins`"
    (specifier,) = found[0].specifier
    assert dependency.specifier.contains(specifier.version, prereleases=True), "run `make pins`"


def test_pins_are_exact_and_unambiguous():
    for pin in pins():
        (specifier,) = pin.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, f"{pin} is not an exact pin"
        assert "+" not in specifier.version and pin.url is None, f"{pin} names a local build, which no index has"
        assert not pin.extras, f"{pin}: pip refuses extras in a constraint"
    for python in PYTHONS:
        names = [canonicalize_name(pin.name) for pin in pins() if in_force(pin, python)]
        assert len(names) == len(set(names))


def test_torch_and_the_build_backend_are_pinned():
    versions = {canonicalize_name(pin.name): str(pin.specifier) for pin in pins()}
    assert versions["torch"] == "==2.13.0"
    assert re.search(r"^TORCH +:= 2\.13\.0$", read("Makefile"), flags=re.MULTILINE)
    (backend,) = (Requirement(text) for text in pyproject()["build-system"]["requires"])
    assert backend.specifier.contains(versions[backend.name].removeprefix("=="))


def test_environment_holds_nothing_of_its_own():
    environment = yaml.safe_load(read("environment.yml"))
    assert environment["name"] == pyproject()["project"]["name"]
    python, *others = environment["dependencies"]
    assert Requirement(python).name == "python"
    assert others == ["pip", {"pip": ["-c constraints.txt", "-e .[cluster,notebooks,dev]"]}]


def test_python_floor_is_the_same_everywhere():
    floor = pyproject()["project"]["requires-python"]
    assert floor == ">=3.11"
    python = Requirement(yaml.safe_load(read("environment.yml"))["dependencies"][0])
    assert floor in {str(bound) for bound in python.specifier}
    (makefile,) = re.findall(r"^PYTHON_FLOOR +:= +(\S+)$", read("Makefile"), flags=re.MULTILINE)
    assert f">={makefile}" == floor


def test_makefile_installs_what_environment_installs():
    (install,) = (line for line in read("Makefile").splitlines() if "pip install" in line and "-e " in line)
    assert "-c constraints.txt" in install and "-e '.[cluster,notebooks,dev]'" in install


def test_ci_runs_the_command_that_the_readme_names():
    script = ROOT / ".ci" / "run"
    assert commands(read(script)) == ["make test"]
    assert script.stat().st_mode & 0o111, "chmod +x .ci/run"
    assert "set -euo pipefail" in read(script)
    assert {"make test", "make reproduce"} <= set(fenced_commands(read("README.md")))


def test_makefile_documents_its_targets():
    for target in ("reproduce", "test", "lab", "lint", "clean"):
        assert re.search(rf"^{target}:.*## \S", read("Makefile"), flags=re.MULTILINE), target


def test_citation_names_the_paper_and_this_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == scalestudy.__version__
    assert citation["license"] == pyproject()["project"]["license"]
    paper = citation["preferred-citation"]
    assert paper["doi"] == PAPER_DOI
    assert paper["title"] == "Scale Learning in Scale-Equivariant Convolutional Networks"
    assert len(paper["authors"]) == 6


def test_hooks_use_the_tools_of_the_environment():
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert all(hook["language"] == "system" for hook in hooks.values())
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks.values())
    assert {"--keep-output", "--keep-count"} <= set(hooks["nbstripout"]["args"]), "nbval compares outputs and counts"


def test_package_data_is_declared_and_found():
    given = pyproject()["tool"]["setuptools"]["package-data"]
    package = Path(str(resources.files("scalestudy")))
    folders = {name: package.joinpath(*name.split(".")[1:]) for name in given}
    declared = {path for name, folder in folders.items() for pattern in given[name] for path in folder.glob(pattern)}
    inside = {path for path in package.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert any(path.parent.name == "reported_data" for path in declared)
    assert inside == declared, "[tool.setuptools.package-data] must name each file to install"


def test_no_tracked_file_names_a_place_on_one_machine():
    found = []
    for name, content in tracked().items():
        lines = enumerate(content.decode(errors="ignore").splitlines(), start=1)
        found += [f"{name}:{number}" for number, line in lines if PLACE.search(line)]
    assert not found
    here, there = '"/home' + '/x"', "https://example.org/home/x"
    assert PLACE.search(here) and not PLACE.search(there)


class TestReadme:
    """Numbers in the README and the docs come from the code: from the committed tables and measurements."""

    @staticmethod
    def block(name: str) -> str:
        return read("README.md").split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0].strip()

    def test_claims_and_sizes(self) -> None:
        assert self.block("claims") == read("results/quick/tables/verdict_by_claim.md").strip()
        assert self.block("size") == Study.open("quick").description
        assert self.block("baseline_size") == Study.open("quick").baseline_description

    def test_training_cost(self) -> None:
        """The table is that of the last committed `make bench`, at its smaller batch."""
        measured = read("results/benchmarks/training_cost.md").splitlines()
        shown = self.block("bench").splitlines()
        assert shown[:2] == measured[2:4]
        assert shown[2:] == [line for line in measured[4:] if line.split("|")[2].strip() == "16"]
        assert len(shown) == 2 + len(SYSTEMS)

    def test_throughput(self) -> None:
        rows = json.loads(read("results/benchmarks/throughput.json"))["rows"]
        (ratio,) = (row["started_ratio"] for row in rows if row["workers"] == 2)
        assert self.block("throughput") == f"{ratio:.2f}"

    def test_number_of_runs(self) -> None:
        text = read("README.md")
        for profile in ("quick", "overnight", "paper"):
            assert f"| `{profile}` | {len(Study.open(profile).all_specs())} |" in text

    def test_links_lead_somewhere(self) -> None:
        links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", read("README.md"))
        assert len(links) > 8
        assert [link for link in links if not (ROOT / link).exists()] == []

    def test_layers_example_runs(self) -> None:
        (example,) = re.findall(r"```python\n(.*?)```", read("README.md"), re.DOTALL)
        names: dict[str, object] = {}
        exec(example.replace("print(", "shown = ("), names)
        assert names["features"].shape == (2, 32, 64, 64)
        assert names["shown"] == pytest.approx([2.0, 12**0.5, 6.0])


def test_committed_records_are_whole_and_none_is_of_the_quick_profile(tmp_path: Path) -> None:
    """So that `make reproduce` on a fresh clone trains the quick runs; theirs lie in tests/records."""
    for folder in ("runs", "records"):
        (tmp_path / folder).mkdir()
        for name, content in tracked(f"results/{folder}").items():
            (tmp_path / folder / Path(name).name).write_bytes(content)
    store = RunStore(tmp_path / "runs", tmp_path / "records")
    records = store.records()
    assert store.problems == []
    assert not {record.key for record in records} & {spec.key for spec in Study.open("quick").all_specs()}
    write_summary(records, tmp_path / "summary.csv")
    table = {"results/summary.csv": (tmp_path / "summary.csv").read_bytes()}
    assert tracked("results/summary.csv") == table, "`scalestudy run --filter table2` renews it"
