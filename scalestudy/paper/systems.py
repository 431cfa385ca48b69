"""The systems compared on MNIST-Scale (section 4.3): their parameters, and what the paper does not print of them."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pandas as pd

from scalestudy.models.systems import SYSTEMS, build
from scalestudy.paper.effects import text

MARKS = {False: "", True: "+"}  # how names and columns say whether runs were trained with random rescaling


@cache
def parameters(name: str) -> int:
    """Parameters of a system, counted on the network; the global random state is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return sum(one.numel() for one in build(name).parameters())


def run_sizes(frame: pd.DataFrame) -> str:
    """Images, epochs and seeds of runs, in words; where there are several sizes, all of them."""
    images, epochs = (" or ".join(map(str, sorted(set(frame[name])))) for name in ("train_images", "epochs"))
    counts, shrink = frame.groupby("model")["seed"].nunique(), frame["shrink"].dropna().astype(int).max()
    seeds = " to ".join(map(str, sorted({counts.min(), counts.max()}))) if len(counts) else "0"
    noun = "realisation" if (frame["dataset"] == "mnist_scale").all() else "seed"
    counted = f"{images} images, {epochs} epoch{'s' * (epochs != '1')}, {seeds} {noun}{'s' * (seeds != '1')}"
    return counted + (f", lengths / {shrink}" if shrink > 1 else "")


def timed_on(frame: pd.DataFrame) -> pd.Series:
    """Device and number of threads of each run, in words."""
    threads = frame["threads"].map(lambda count: f", {count} thread{'s' * (count != 1)}")
    return frame["device"].astype(str) + threads.astype(str)


def systems_table(frame: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Each system's error, invariance, error by data scale, time and size, from `runs` and `curves` of MNIST-Scale.

    Not in the paper: our choice, because a test error alone does not say whether a system is equivariant, or at what
    price.  A row per system that there are runs of, without, then with "+".  Errors and changed predictions in percent,
    "change of logits" is relative: means over the factors other than 1 and over the runs; a scale-invariant network
    has 0.  Milliseconds are medians of the machine that made most runs.  Empty where it was not measured.
    """
    rows = []
    for (augmented, mark), name in product(MARKS.items(), SYSTEMS):
        own = frame[(frame["model"] == name) & (frame["augmented"] == augmented)]
        if len(own):
            rows.append({"model": SYSTEMS[name].title + mark} | _row(own, points[points["key"].isin(own["key"])]))
    return pd.DataFrame(rows)


def _row(own: pd.DataFrame, points: pd.DataFrame) -> dict[str, str]:
    changed = points[~np.isclose(points["at"], 1.0)]
    logits, predictions = (changed[changed["what"] == f"{name} change"] for name in ("relative", "prediction"))
    by_scale = points[points["what"] == "by data scale"]
    machine = timed_on(own).mode()[0]
    timed = own[timed_on(own) == machine]
    scales = [scales for scales in own["internal_scales"] if len(scales)]
    return {
        "parameters": f"{parameters(own['model'].iloc[0]):,}",
        "test error": _mean(own["test_error"]),
        "change of logits": _mean(logits.groupby("key")["value"].mean()),
        "at 0.5": _mean(_at(logits, 0.5)),
        "at 2": _mean(_at(logits, 2.0)),
        "changed predictions": _mean(predictions.groupby("key")["value"].mean(), 1),
        "error at data scale 0.3-0.4": _mean(_at(by_scale, 0.3), 1),
        "error at data scale 0.9-1.0": _mean(_at(by_scale, 0.9), 1),
        "training, ms per image": _median(timed["train_ms"]),
        "inference, ms per image": _median(timed["inference_ms"]),
        "timed on": machine,
        "internal scales": ", ".join(f"{value:.2f}" for value in np.mean(scales, axis=0)) if scales else "",
        "size": run_sizes(own),
    }


def _at(points: pd.DataFrame, at: float) -> pd.Series:
    return points.loc[np.isclose(points["at"], at), "value"]


def _mean(values: pd.Series, digits: int = 2) -> str:
    return text(values, digits).split(" (n=")[0]


def _median(values: pd.Series) -> str:
    return f"{values.median():.3g}" if values.notna().any() else ""
