"""A twelfth system from outside the package: by a variable, a command, an entry point; trained by `scalestudy run`."""

import os
import subprocess
import sys

import pytest

from scalestudy.models import SYSTEMS, System, register

ROWS = """
from scalestudy import System, register
register("mine", System("My system", "mine_nets:Mine", cost=(1, 1)))
"""
NETS = """
from torch import nn
class Mine(nn.Sequential):
    def __init__(self, in_channels, num_classes, image_size):
        super().__init__(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(in_channels * (image_size // 4) ** 2, num_classes))
"""
LOOK = """
import sys
from scalestudy.models import SYSTEMS, build
from scalestudy.training.spec import RunSpec
assert list(SYSTEMS)[-1] == "mine" and len(SYSTEMS) == 17
assert RunSpec.baseline("mine").work < RunSpec.baseline("cnn").work
assert "torch" not in sys.modules
print(build("mine", in_channels=3, num_classes=7, image_size=32)[2])
"""
SIZES = {"baseline_models": "[mine]", "baseline_epochs": 2, "baseline_train_images": 32, "baseline_batch_size": 16,
         "baseline_validation_images": 20, "baseline_test_images": 20, "equivariance_images": 4}  # fmt: skip


@pytest.fixture
def python(tmp_path):
    """Run Python where a package of somebody else can be imported: output, or the end of what it complains of."""
    (tmp_path / "mine.py").write_text(ROWS)
    (tmp_path / "mine_nets.py").write_text(NETS)
    paths = os.pathsep.join([str(tmp_path), *sys.path])

    def run(*command, **environment):
        places = {"SCALESTUDY_RESULTS": str(tmp_path / "results"), "SCALESTUDY_RUNS": str(tmp_path / "runs")}
        environment = {**os.environ, "PYTHONPATH": paths, **places, **environment}
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
        return done.stdout or done.stderr[-1000:]

    return run


def test_a_variable_names_modules(python):
    assert python("-c", LOOK, SCALESTUDY_IMPORT="mine").startswith("Linear(in_features=192, out_features=7")
    assert "AssertionError" in python("-c", LOOK)  # negative control
    complaint = "SCALESTUDY_IMPORT must name modules that can be imported, got 'mien' (No module named 'mien'); install"
    assert complaint in python("-c", LOOK, SCALESTUDY_IMPORT="mine mien")


def test_an_entry_point_does(python, tmp_path):
    folder = tmp_path / "mine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: mine\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[scalestudy.systems]\nanything = mine\n")
    assert python("-c", LOOK).startswith("Linear(in_features=192, out_features=7")


def test_it_is_trained_by_processes_that_inherit_the_variable(python, tmp_path, mnist):
    """Which the option sets; where nobody knows the system, profile and record say so."""
    sizes = [part for name, value in SIZES.items() for part in ("-p", f"{name}={value}")]
    command = ["-m", "scalestudy.cli", "run", *sizes, "--filter", "table5", "--workers", "1", "--device", "cpu"]
    assert "1 runs: 0 read, 1 trained; 0 failed" in python(*command, "--import", "mine")
    assert "got ['mine']; --import the module that registers it, if" in python(*command)
    (record,) = tmp_path.glob("runs/*.json")
    read = "import sys, scalestudy.training.record as r; r.Record.model_validate_json(open(sys.argv[1]).read())"
    complaint = "got 'mine'; name the module that registers another one in SCALESTUDY_IMPORT"
    assert complaint in python("-c", read, str(record))


def test_a_name_stands_for_one_system(monkeypatch):
    monkeypatch.setattr(SYSTEMS, "rows", dict(SYSTEMS))
    for _ in range(2):  # a module may be executed again
        register("mine", System("My system", "mine_nets:Mine"))
    assert SYSTEMS["mine"].panel == SYSTEMS["single_scale"].panel
    for name in ("mine", "cnn", "table1"):
        with pytest.raises(
            ValueError, match=f"name must be new, got '{name}', which stands for something else; choose"
        ):
            register(name, System("Another", "mine_nets:Mine"))


@pytest.mark.parametrize(
    ("name", "system", "message"),
    [
        ("five", 5, "system must be a System whose factory is 'package.module:callable', got 5"),
        ("five", System("Five", "five"), "system must be a System whose factory is"),
        ("table5", System("Five", "five:Five"), "name must be new, got 'table5'"),
        ("", System("Five", "five:Five"), "name must be new, got ''"),
    ],
)
def test_mistaken_rows(name, system, message):
    with pytest.raises(ValueError, match=message):
        register(name, system)
