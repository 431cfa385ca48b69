"""The paper's own numbers and claims: Basting et al., "Scale Learning in Scale-Equivariant Convolutional Networks",
VISAPP 2024.

Every number is as printed, misprints included (`misprints` lists them).  The claims are in our words.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources

import pandas as pd

DISTRIBUTIONS: tuple[str, ...] = ("log-uniform [1, 2.83]", "log-uniform [1, 4.76]", "log-uniform [1, 8]")
"""Data scale distributions of sections 4.1 and 4.2, from narrow to wide."""
PAPER_SEEDS = 3
"""Runs behind each mean of sections 4.1 and 4.2 (appendix: 3 realisations)."""
MNIST_SCALE_REALISATIONS = 6
"""Realisations of MNIST-Scale (appendix); see `mnist_scale_runs`."""
LEARNED_MNIST_SCALE_REALISATIONS = 5
"""Those of them that the released notebook keeps for the learned rows of Tables 5 and 6."""


@dataclass(frozen=True)
class _Schema:
    source: str
    text: tuple[str, ...]
    means: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def columns(self) -> set[str]:
        pairs = {f"{name}_{part}" for name in self.means for part in ("mean", "std")}
        return {*self.text, *self.numbers, *self.flags} | pairs


_LEARNED = ("sigma_basis", "isr", "test_error")
_TABLES = {
    "fig3": _Schema("authors' released notebook (Figure 3)", ("distribution",), ("test_error",), ("isr",)),
    "table2": _Schema("Table 2", ("distribution", "scale_learning"), _LEARNED),
    "table3": _Schema("Table 3", ("distribution",), _LEARNED, ("init_sigma_basis", "init_isr")),
    "table4": _Schema("Table 4", ("distribution", "parameterisation"), ("scale1", "scale2", "scale3", "test_error")),
    "table5": _Schema("Table 5", ("model",), ("mnist_scale", "mnist_scale_plus"), ("parameters_thousands",)),
    "table6": _Schema("Table 6", ("model",), ("scale1", "scale2", "scale3", "scale4"), flags=("augmented",)),
}


def names() -> tuple[str, ...]:
    """Names that `table` knows.

    Examples
    --------
    >>> names()
    ('fig3', 'table2', 'table3', 'table4', 'table5', 'table6')
    """
    return tuple(_TABLES)


def source(name: str) -> str:
    """Where a table comes from; errors as in `table`.

    Examples
    --------
    >>> source("table2")
    'Table 2'
    """
    return _schema(name).source


def table(name: str) -> pd.DataFrame:
    """One reported table as a typed frame, a fresh copy.

    Source: `table2` to `table6` are the tables of the paper as printed.  `fig3` holds the points of Figure 3, which
    the paper only draws: they come from the authors' released notebook.  Means and standard deviations are over 3
    seeds (Tables 5 and 6: 6 realisations by the appendix); a missing standard deviation (fixed values) is NaN.

    Parameters
    ----------
    name : str
        One of `names()`.

    Returns
    -------
    pandas.DataFrame
        Test errors in percent, scales and sigma_basis in pixels, ISR without unit, parameters in thousands.  Text
        columns hold str, `augmented` bool (training with random rescaling, "+" in the paper), all others float64.

    Raises
    ------
    ValueError
        If the name is unknown, or the packaged file lacks a column or holds a value of the wrong kind.
    """
    schema = _schema(name)
    frame = _read(name).copy()
    if set(frame.columns) != schema.columns:
        raise ValueError(
            f"{name}.csv has the columns {sorted(frame.columns)}, not {sorted(schema.columns)}: reinstall scalestudy."
        )
    for column in frame.columns:
        if column in schema.flags:
            frame[column] = frame[column].astype(bool)
        elif column not in schema.text:
            frame[column] = frame[column].astype("float64")
    return frame


def mnist_scale_runs(model: str) -> int:
    """Runs behind a mean of Tables 5 and 6: 5 in the rows "Ours" (released notebook), 6 in the others (appendix).

    Examples
    --------
    >>> mnist_scale_runs("Ours (Learn ISR)"), mnist_scale_runs("CNN")
    (5, 6)
    """
    return LEARNED_MNIST_SCALE_REALISATIONS if model.startswith("Ours") else MNIST_SCALE_REALISATIONS


def claims() -> pd.DataFrame:
    """Every claim that sections 4.1, 4.2 and 4.3 make in words, in our words.

    Returns
    -------
    pandas.DataFrame
        Columns, all str: id (stable, short), section, item (figure, table or section), claim, notebook (which tests
        it).
    """
    return _read("claims").astype(str)


def misprints() -> pd.DataFrame:
    """Misprints and inconsistencies of the paper.

    Returns
    -------
    pandas.DataFrame
        Columns, all str: item, kind (`misprint` or `inconsistent`), printed, should_be, reason.
    """
    return _read("misprints").astype(str)


def _schema(name: str) -> _Schema:
    if name not in _TABLES:
        raise ValueError(f"name={name!r} is no reported table: choose one of {', '.join(_TABLES)}.")
    return _TABLES[name]


@cache
def _read(name: str) -> pd.DataFrame:
    dtype = {"section": str, "should_be": str}
    with resources.files("scalestudy.paper").joinpath("reported_data", f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=dtype)
