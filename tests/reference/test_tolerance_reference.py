"""The joint tolerance fit against every value of the reference file `tolerance.json`."""

import json

import pytest
from reference_files import reference_file

from scalestudy.tolerance import fit_tolerance


def test_tau_and_the_objective_at_the_start():
    content = json.loads(reference_file("tolerance.json").read_text(encoding="utf-8"))
    assert sorted(content) == ["note", "objective_at_start", "tau"]
    fit = fit_tolerance()
    assert fit.tau == pytest.approx(content["tau"], abs=5e-4)
    assert fit.objective_at_start == pytest.approx(content["objective_at_start"], rel=1e-6)
