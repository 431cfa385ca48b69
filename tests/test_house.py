"""The shape of the package: each wing imports only those before it, and nothing lies outside the wings."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import scalestudy

ROOT = Path(__file__).resolve().parent.parent
_SPEC = importlib.util.spec_from_file_location("draw_design", ROOT / "docs" / "draw_design.py")
design = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(design)
ORDER = list(design.WINGS)
MODULES = design.modules()


def test_nothing_lies_outside_the_wings():
    assert {name.split(".")[0] for name in MODULES} == {*ORDER, "__init__"}


def test_each_wing_imports_only_those_before_it():
    arrows = design.arrows()
    assert len(arrows) > 10
    assert [pair for pair in arrows if ORDER.index(pair[1]) >= ORDER.index(pair[0])] == []


@pytest.mark.parametrize("wing", ["files", "tolerance"])
def test_the_lowest_wings_import_nothing(wing):
    assert [pair for pair in design.arrows() if pair[0] == wing] == []


def test_no_module_imports_itself_by_a_detour():
    below = {name: design.imported(path) for name, path in MODULES.items() if path.name != "__init__.py"}
    below = {
        name: {other for other in below for one in found if one == other or one.startswith(f"{other}.")}
        for name, found in below.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle of imports: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name not in done:
            for other in below[name] - {name}:
                visit(other, (*trail, name))
            done.add(name)

    for name in below:
        visit(name, ())


def test_functions_have_at_most_50_lines():
    long = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and node.end_lineno - body[0].lineno + 1 > 50:
                    long.append(f"{name}.{node.name}")
    assert long == []


def test_public_names_are_there():
    assert {getattr(scalestudy, name).__name__ for name in scalestudy.__all__} == set(scalestudy.__all__)
    assert set(scalestudy.__all__) <= set(dir(scalestudy))
    with pytest.raises(AttributeError, match=r"no attribute 'LiftingConvolution'"):
        scalestudy.LiftingConvolution  # noqa: B018


def test_type_checkers_see_the_public_names():
    """In the block that is never run: without it they would take each name for anything."""
    tree = ast.parse(Path(scalestudy.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names if alias.name == alias.asname}
    assert seen == {name: f"scalestudy.{home}" for name, home in scalestudy._HOME.items()}
    assert (Path(scalestudy.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("module", ["scalestudy", "scalestudy.models", "scalestudy.cli"])
def test_importing_does_not_import_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
