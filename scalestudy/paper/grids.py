"""The paper's grids of runs (section 4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import product

from scalestudy.data.distributions import LogUniform
from scalestudy.paper.frames import (
    BASELINE_COLUMNS,
    BASELINE_SCALE_COLUMNS,
    EQUIVARIANCE_COLUMNS,
    FRAME_COLUMNS,
    SCALE_TEST_COLUMNS,
    baseline_frame,
    baseline_scale_frame,
    equivariance_frame,
    frame,
    scale_test_frame,
)
from scalestudy.paper.size import StudySize
from scalestudy.training.record import Record
from scalestudy.training.spec import VARIANTS, DataSpec, MnistScaleSpec, RunSpec, ScalesSpec, TrainingSpec

__all__ = [
    "BASELINE_COLUMNS",
    "BASELINE_SCALE_COLUMNS",
    "DISTRIBUTIONS",
    "EQUIVARIANCE_COLUMNS",
    "FRAME_COLUMNS",
    "NOTEBOOK_GROUPS",
    "SCALE_TEST_COLUMNS",
    "Study",
    "StudySize",
    "baseline_frame",
    "baseline_scale_frame",
    "equivariance_frame",
    "frame",
    "scale_test_frame",
]

DISTRIBUTIONS = (LogUniform(low=1, high=2.83), LogUniform(low=1, high=4.76), LogUniform(low=1, high=8))
"""Data scale distributions of sections 4.1 and 4.2, from narrow to wide."""

DEFAULT_INIT = (2.0, 3.0)
"""Initial sigma_basis (pixels) and ISR of Tables 2 and 4 and Fig. 6; Fig. 3 has this sigma_basis, too."""

TELLING_ISRS = (1.5, 2.38, 3.0, 4.76, 5.35, 7.56)
"""Fixed ISRs to run first: both ends, the default start, and the paper's best one for each distribution."""

WANTED_SYSTEMS = (
    "cnn", "dss", "si_convnet", "sevf", "sesn", "disco", "ours_isr", "ours_spacings", "ours_direct", "ss_cnn", "sicnn",
    *VARIANTS,
)  # fmt: skip
"""Systems of Table 5 in the order in which they are run: cheap ones first, the paper's own before the costly ones."""

WANTED_REALISATIONS = 3
"""So many realisations of every system are run before the others."""

NOTEBOOK_GROUPS = {
    "00": ("table2", "table4", "eq5_as_printed", "figure3", "table3", "table5"),
    "03": ("figure3",),
    "04": ("figure3",),
    "05": ("table2", "eq5_as_printed", "figure3"),
    "06": ("table3", "table2", "figure3"),
    "07": ("table4",),
    "08": ("table5",),
}
"""Groups of `Study.groups` that the notebooks read, by the number in front of the notebook's name."""


class Study:
    """All runs of section 4 at one size.

    Parameters
    ----------
    size : StudySize

    Notes
    -----
    Every list of sections 4.1 and 4.2 runs over the seeds first, then over the rest: stopped half-way, it has whole
    seeds.
    """

    def __init__(self, size: StudySize) -> None:
        self.size = size

    def figure3(self) -> list[RunSpec]:
        """Fixed scales, sigma_basis 2, every ISR of `isrs`; the fixed rows of Table 2 are the best of them.

        Those of `scale_test_isrs` get the test of Fig. 4, too.
        """
        return self._fixed(self.size.isrs)

    def figure4(self) -> list[RunSpec]:
        """The runs of `figure3` that have the test at 45 data scales."""
        return self._fixed(self.size.scale_test_isrs)

    def table2(self) -> list[RunSpec]:
        """The learned rows of Table 2 as the released code runs them ("step_ratio"), from `DEFAULT_INIT`."""
        return self._learned("step_ratio", self.size.seeds, [DEFAULT_INIT])

    def eq5_as_printed(self) -> list[RunSpec]:
        """The learned rows of Table 2 with ISR = 1 + gamma^2 as printed in Eq. 5 ("isr")."""
        return self._learned("isr", self.size.seeds, [DEFAULT_INIT])

    def table3(self) -> list[RunSpec]:
        """Scales learned as "step_ratio" from every pair of `initial_sigmas` and `initial_isrs`.

        The cell at `DEFAULT_INIT` is Table 2's runs, where the seeds are the same.
        """
        starts = list(product(self.size.initial_sigmas, self.size.initial_isrs))
        return self._learned("step_ratio", self.size.initialisation_seeds, starts)

    def table4(self) -> list[RunSpec]:
        """Scales learned as "direct", "spacing" and "step_ratio" from `DEFAULT_INIT`; the last are Table 2's runs."""
        return [
            spec
            for seed in self.size.seeds
            for mode in ("direct", "spacing", "step_ratio")
            for spec in self._learned(mode, (seed,), [DEFAULT_INIT])
        ]

    def table5(self) -> list[RunSpec]:
        """The systems of `systems` on MNIST-Scale; Table 6 reads the scales of the same runs.

        The first `WANTED_REALISATIONS` without, then with augmentation, then the other realisations; within each of
        these the systems as in `WANTED_SYSTEMS`.
        """
        size = self.size
        systems = sorted(size.systems, key=WANTED_SYSTEMS.index)
        kinds = (False, True) if size.baseline_augmented else (False,)
        parts = (size.baseline_seeds[:WANTED_REALISATIONS], size.baseline_seeds[WANTED_REALISATIONS:])
        return [
            self._baseline(model, seed, augmented)
            for seeds in parts
            for augmented in kinds
            for model in systems
            for seed in seeds
        ]

    def groups(self) -> dict[str, list[RunSpec]]:
        """All groups by name.  Some share runs."""
        return {
            "table2": self.table2(),
            "table4": self.table4(),
            "eq5_as_printed": self.eq5_as_printed(),
            "figure3": self.figure3(),
            "figure4": self.figure4(),
            "table3": self.table3(),
            "table5": self.table5(),
        }

    def all_specs(self) -> list[RunSpec]:
        """Every run once, most wanted first: Tables 2 and 4, `TELLING_ISRS`, Table 3, all of Fig. 3, Table 5."""
        telling = [isr for isr in self.size.isrs if isr in TELLING_ISRS]
        ordered = [
            *self.table2(),
            *self.table4(),
            *self.eq5_as_printed(),
            *self._fixed(telling),
            *self.table3(),
            *self.figure3(),
            *self.table5(),
        ]
        return _distinct(ordered)

    def select(self, text: str) -> list[RunSpec]:
        """Runs whose group or label contains `text`; if none does, those that match it as a regular expression.

        Parameters
        ----------
        text : str
            Such as ``table3``, ``[1, 8]``, ``seed 0``, ``sesn`` or ``direct.*seed 1``; case is ignored.

        Returns
        -------
        list of RunSpec
            In the order of `all_specs`.

        Raises
        ------
        ValueError
            If nothing matches.
        """
        everything, groups = self.all_specs(), self.groups()
        names = {spec.key: [spec.label] for spec in everything}
        for name, specs in groups.items():
            for spec in specs:
                names[spec.key].append(name)
        found = _keys_with(names, lambda name: text.lower() in name.lower()) or _keys_matching(names, text)
        if not found:
            raise ValueError(
                f"filter must match a group ({', '.join(groups)}) or part of a label such as "
                f"{everything[0].label!r}, got {text!r}, which matches none of the {len(everything)} runs"
            )
        return [spec for spec in everything if spec.key in found]

    def for_notebooks(self, names: Iterable[str]) -> list[RunSpec]:
        """The runs that these notebooks read (`NOTEBOOK_GROUPS`), in the order of `all_specs`."""
        groups = self.groups()
        wanted = {group for name in names for group in NOTEBOOK_GROUPS.get(name[:2], ())}
        keys = {spec.key for group in wanted for spec in groups[group]}
        return [spec for spec in self.all_specs() if spec.key in keys]

    def records_for(self, notebook: str, records: Iterable[Record]) -> list[Record]:
        """Those of some records that a notebook reads."""
        keys = {spec.key for spec in self.for_notebooks([notebook])}
        return [record for record in records if record.key in keys]

    def _fixed(self, isrs: Iterable[float]) -> list[RunSpec]:
        return [
            self._spec("fixed", (DEFAULT_INIT[0], isr), distribution, seed, self.size.has_scale_test(isr))
            for seed in self.size.seeds
            for isr in isrs
            for distribution in DISTRIBUTIONS
        ]

    def _learned(self, mode: str, seeds: Iterable[int], starts: list[tuple[float, float]]) -> list[RunSpec]:
        return [
            self._spec(mode, start, distribution, seed, scale_test=False)
            for seed in seeds
            for start in starts
            for distribution in DISTRIBUTIONS
        ]

    def _spec(
        self, mode: str, start: tuple[float, float], distribution: LogUniform, seed: int, scale_test: bool
    ) -> RunSpec:
        size = self.size
        return RunSpec(
            scales=ScalesSpec(parameterisation=mode, sigma_basis=start[0], isr=start[1], num_scales=3),
            data=DataSpec(
                distribution=distribution,
                train_images=size.train_images,
                validation_images=size.validation_images,
                test_images=size.test_images,
                scale_test_images=size.scale_test_images if scale_test else 0,
                shrink=size.shrink,
            ),
            training=TrainingSpec.paper_shaped(size.epochs, size.batch_size),
            seed=seed,
        )

    def _baseline(self, model: str, seed: int, augmented: bool) -> RunSpec:
        size = self.size
        data = MnistScaleSpec(
            augmented=augmented,
            train_images=size.baseline_train_images,
            validation_images=size.baseline_validation_images,
            test_images=size.baseline_test_images,
            equivariance_images=size.equivariance_images,
        )
        return RunSpec.baseline(model, seed, data, size.baseline_epochs, size.baseline_batch_size)


def _distinct(specs: Iterable[RunSpec]) -> list[RunSpec]:
    return list({spec.key: spec for spec in specs}.values())


def _keys_with(names: dict[str, list[str]], fits: Callable[[str], object]) -> set[str]:
    return {key for key, texts in names.items() if any(fits(text) for text in texts)}


def _keys_matching(names: dict[str, list[str]], pattern: str) -> set[str]:
    try:
        return _keys_with(names, re.compile(pattern, re.IGNORECASE).search)
    except re.error:
        return set()
