"""The project's own files agree with each other: pyproject, pins, environment, Makefile, CI, citation."""

import importlib.util
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
from scalestudy.paper.parameters import profiles
from scalestudy.paper.study import Study
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


def test_what_is_installed_is_the_same_everywhere():
    """By pip, conda and make."""
    project, environment, makefile = pyproject()["project"], yaml.safe_load(read("environment.yml")), read("Makefile")
    python, *others = environment["dependencies"]
    assert environment["name"] == project["name"]
    assert others == ["pip", {"pip": ["-c constraints.txt", "-e .[cluster,notebooks,dev]"]}]
    assert "install -qq --no-input -c constraints.txt --no-build-isolation -e '.[cluster,notebooks,dev]'\n" in makefile
    assert Requirement(python).name == "python"
    assert project["requires-python"] in {str(bound) for bound in Requirement(python).specifier}
    assert f"\nPYTHON_FLOOR := {project['requires-python'].removeprefix('>=')}\n" in makefile


def test_the_commands_of_the_readme_are_documented_and_what_ci_runs():
    makefile, readme, script = read("Makefile"), read("README.md"), ROOT / ".ci" / "run"
    assert "set -euo pipefail" in read(script) and read(script).endswith("\nmake test\n")
    assert script.stat().st_mode & 0o111, "chmod +x .ci/run"
    for target in ("reproduce", "test", "lab", "lint", "clean"):
        assert re.search(rf"^{target}:.*## \S", makefile, flags=re.MULTILINE), target
        assert f"make {target}" in readme or target in ("lint", "clean")


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_lead_somewhere(page):
    text = read(page)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", text)
    for path, _, anchor in (link.partition("#") for link in links):
        assert (ROOT / page).parent.joinpath(path).exists() if path else anchor in anchors, (path, anchor)


def test_citation_names_the_paper_and_this_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == scalestudy.__version__
    assert citation["license"] == pyproject()["project"]["license"]
    paper = citation["preferred-citation"]
    assert paper["doi"] == PAPER_DOI
    assert paper["title"] == "Scale Learning in Scale-Equivariant Convolutional Networks"
    assert len(paper["authors"]) == 6


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

    @pytest.mark.parametrize("page", ["README.md", "docs/running.md", "docs/systems.md"])
    def test_blocks_are_filled_by_the_code(self, page: str) -> None:
        spec = importlib.util.spec_from_file_location("fill", ROOT / "docs" / "fill.py")
        fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(fill)
        text = read(page)
        assert set(re.findall(r"<!-- (\w+) -->", text)) == set(fill.BLOCKS[page])
        assert fill.filled(page) == text, "`make notebooks` renews it"

    def test_first_screen(self) -> None:
        """What was found, a picture, and one table of at most ten rows."""
        lines = read("README.md").splitlines()
        head = lines[: lines.index("<!-- /claims -->")]
        assert len(head) <= 40 and len(lines) <= 160
        assert sum(line.startswith("!") for line in head) == 1
        assert sum(line.startswith("|") for line in head) <= 2 + 10

    def test_number_of_runs(self) -> None:
        text, count = read("docs/running.md"), {name: len(Study.open(name).all_specs()) for name in profiles()}
        assert re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE) == [
            (name, str(count[name])) for name in ("quick", "overnight", "paper")
        ]
        assert f"trains the {count['quick']} runs of the profile `quick`" in read("README.md")

    def test_examples_run(self) -> None:
        names: dict[str, object] = {}
        for example in re.findall(r"```python\n(.*?)```", read("README.md"), re.DOTALL):
            exec(example.replace("print(", "shown = ("), names)
        assert names["features"].shape == (2, 32, 32, 32)
        assert names["shown"] == pytest.approx([2.0, 12**0.5, 6.0])
        assert len(names["losses"]) == 2 and not names["net"].training


def test_committed_records_are_whole_and_none_is_of_the_quick_profile(tmp_path: Path) -> None:
    """So that `make reproduce` on a fresh clone trains the quick runs."""
    there = tracked("results/records")
    del there["results/records/summary.csv"]
    for name, content in there.items():
        (tmp_path / Path(name).name).write_bytes(content)
    store = RunStore(tmp_path)
    records = store.records()
    assert len(records) == len(there)
    assert not {record.key for record in records} & {spec.key for spec in Study.open("quick").all_specs()}
