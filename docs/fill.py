"""Fill the marked blocks of README and docs, ``<!-- name -->..<!-- /name -->``, and the table of committed records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from scalestudy.paper.study import Study
from scalestudy.paper.table import write_summary
from scalestudy.runs.estimate import Clock
from scalestudy.runs.store import RunStore

ROOT = Path(__file__).resolve().parents[1]
RECORDS = RunStore(ROOT / "results" / "records")


def hours(profile: str, device: str) -> str:
    """One process for all runs of a profile, by the seconds of the committed records of all profiles."""
    clock = Clock(device, RECORDS.records())
    return f"{sum(map(clock.seconds, Study.open(profile).all_specs())) / 3600:.0f}"


def bench() -> str:
    """The table of the last committed `make bench`, at its smaller batch."""
    measured = (ROOT / "results" / "benchmarks" / "training_cost.md").read_text().splitlines()
    return "\n".join([*measured[2:4], *(line for line in measured[4:] if line.split("|")[2].strip() == "16")])


def cost() -> str:
    """Milliseconds of a training step of Table 1's network by algorithm, from the last committed `make bench`."""
    rows = pd.DataFrame(json.loads((ROOT / "results" / "benchmarks" / "scale_convolution.json").read_text())["rows"])
    steps = rows.query("sweep == 'isr' and phase == 'step' and parameterisation == 'fixed' and isr in (1.5, 3, 7.56)")
    told = []
    for algorithm, name in (("ours", "ours"), ("fft", "by FFT"), ("dense", "by the released algorithm")):
        cases = steps[steps["algorithm"] == algorithm].sort_values("isr")
        least, medians = (", ".join(map("{:.0f}".format, cases[f"{kind}_ms"])) for kind in ("least", "median"))
        told.append(f"{name} {least} ({medians})")
    return "; ".join(told)


def throughput() -> str:
    """Runs a minute with two worker processes over one."""
    rows = json.loads((ROOT / "results" / "benchmarks" / "throughput.json").read_text())["rows"]
    return f"{next(row['started_ratio'] for row in rows if row['workers'] == 2):.2f}"


def table(name: str) -> str:
    """A text or table that notebook 00 has written."""
    return (ROOT / "results" / "overnight" / "tables" / f"{name}.md").read_text(encoding="utf-8").strip()


def beyond() -> str:
    """The answers that notebook 00 has written, a line each."""
    rows = pd.read_csv(ROOT / "results" / "overnight" / "tables" / "beyond.csv", dtype=str)
    decided = rows[~rows["answer"].str.startswith("not decided")].itertuples()
    told = [f"- **{row.question}** {row.answer} (notebook {row.notebook})" for row in decided]
    return "\n".join([*told, f"- Not answered yet: {len(rows) - len(told)} of {len(rows)} questions."])


def more_images() -> str:
    """Where learned scales end on the paper's number of images, from a table that notebook 05 has written."""
    rows = pd.read_csv(ROOT / "results" / "overnight" / "tables" / "table2_more_images.csv", index_col=0)
    (column,) = (name for name in rows if name.startswith("ISR, 10000 images"))
    return ", ".join(f"{isr} on {name.removeprefix('log-uniform ')}" for name, isr in rows[column].items())


BLOCKS = {
    "README.md": {
        "findings": lambda: table("findings"),
        "claims": lambda: table("claims_by_item"),
        "beyond": beyond,
        "more_images": more_images,
        "cost": cost,
    },
    "docs/running.md": {
        "throughput": throughput,
        "overnight_hours": lambda: hours("overnight", "cpu"),
        "paper_hours": lambda: hours("paper", "cuda"),
    },
    "docs/systems.md": {"bench": bench},
}


def filled(page: str) -> str:
    """A page with all its blocks filled anew; what was multi-line stays so."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, make in BLOCKS[page].items():
        content = make()
        inner = f"\n{content}\n" if "\n" in content else content
        text, count = re.subn(
            f"(<!-- {name} -->).*?(<!-- /{name} -->)",
            lambda marks, inner=inner: marks[1] + inner + marks[2],
            text,
            flags=re.DOTALL,
        )
        assert count == 1, f"{page} has {count} blocks {name}"
    return text


if __name__ == "__main__":
    write_summary(RECORDS.records(), RECORDS.folder / "summary.csv")
    for page in BLOCKS:
        (ROOT / page).write_text(filled(page), encoding="utf-8")
