"""Sentence and verdict of every claim, and every number beside the paper's, on the committed records.

They were written down before the package was rewritten; whoever changes one says why in the commit.
"""

import json
from pathlib import Path

import pytest

from scalestudy.paper.compare import scorecard
from scalestudy.paper.study import Study
from scalestudy.runs.store import RunStore

TESTS = Path(__file__).resolve().parent.parent
FROZEN = json.loads((TESTS / "reference" / "frozen" / "verdicts.json").read_text(encoding="utf-8"))
RECORDS = {"quick": TESTS / "records", "paper": TESTS.parent / "results" / "runs"}


@pytest.fixture(scope="module", params=FROZEN)
def judged(request):
    """What is frozen of a profile, and what the package says today."""
    frozen, folder = FROZEN[request.param], RECORDS[request.param]
    records = [record for record in RunStore(folder).records() if record.key in frozen["keys"]]
    assert len(records) == len(frozen["keys"])
    return frozen, scorecard(Study.open(request.param), records)


def test_all_29_claims(judged):
    frozen, card = judged
    today = {row.id: [row.verdict, row.unpaired, row.measured] for row in card.claims.itertuples()}
    assert len(today) == 29
    assert today == frozen["claims"]


def test_all_227_numbers(judged):
    frozen, card = judged
    assert len(frozen["numbers"]) == 227
    assert card.numbers.values.tolist() == frozen["numbers"]
