"""Sentence and verdict of every claim, and every number beside the paper's, on the committed records of a day.

``python tests/paper/test_frozen.py`` writes them down anew, on the records of that day; say in the commit why.
"""

import json
from pathlib import Path

import pytest

from scalestudy.paper.compare import Comparison
from scalestudy.paper.study import Study
from scalestudy.runs.store import RunStore

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests" / "reference" / "frozen" / "verdicts.json"


def said(keys):
    """What is said about the committed records with these keys."""
    records = [record for record in RunStore(ROOT / "results" / "records").records() if record.key in keys]
    assert len(records) == len(keys)
    levels = {}
    for name, profile in (("overnight", "overnight"), ("paper size", "paper")):
        study = Study.open(profile)
        wanted = {spec.key for spec in study.all_specs()}
        levels[name] = (study, [record for record in records if record.key in wanted])
    comparison = Comparison(levels)
    claims = {
        name: {row.id: [row.verdict, row.unpaired, row.measured] for row in judged.itertuples()}
        for name, judged in comparison.judgements.items()
    }
    return {"keys": sorted(keys), "claims": claims, "numbers": comparison.numbers.to_numpy().tolist()}


@pytest.fixture(scope="module")
def both():
    frozen = json.loads(FILE.read_text(encoding="utf-8"))
    return frozen, said(frozen["keys"])


@pytest.mark.parametrize("size", ["overnight", "paper size"])
def test_all_29_claims(both, size):
    frozen, today = (one["claims"][size] for one in both)
    assert len(today) == 29
    assert today == frozen


def test_all_227_numbers(both):
    frozen, today = (one["numbers"] for one in both)
    assert len(today) == 227
    assert today == frozen


if __name__ == "__main__":
    content = said({path.stem for path in (ROOT / "results" / "records").glob("*.json")})
    FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
