"""The paper's grids of runs (section 4) at the sizes of a profile: ``params/<profile>.yaml``, and changes to it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import product
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from scalestudy import files
from scalestudy.data.distributions import LogUniform, ScaleDistribution
from scalestudy.models.systems import SYSTEMS
from scalestudy.paper.beyond import BEYOND
from scalestudy.paper.parameters import check_names, complaints, parse_changes, profiles, read_profile
from scalestudy.paper.reported import LEARNED, START
from scalestudy.runs.batch import plan, run_all
from scalestudy.runs.store import RunStore
from scalestudy.training.device import usable_cores
from scalestudy.training.record import Record
from scalestudy.training.spec import (
    CANVAS_SIZE,
    PAPER_REALISATIONS,
    DataSpec,
    MnistScaleSpec,
    RunSpec,
    ScalesSpec,
    TrainingSpec,
)

TELLING_ISRS = (1.5, 2.38, 3.0, 4.76, 5.35, 7.56)
"""Fixed ISRs to run first: both ends, the default start, and the paper's best one for each distribution."""

WANTED_REALISATIONS = 3  # of every system are run before the others

PATIENCE = 120  # seconds of training that a cell of a notebook may take

GROUPS = ("table2", "table4", "eq5_as_printed", "figure3", "figure4", "table3", "table5")
"""Groups of runs: methods of `Study`."""

NOTEBOOK_GROUPS = {
    "00": GROUPS,
    "03": ("figure3",),
    "04": ("figure3",),
    "05": ("table2", "eq5_as_printed", "figure3"),
    "06": ("table3", "table2", "figure3"),
    "07": ("table4",),
    "08": ("table5",),
}
"""Those that the notebooks read, by the number in front of the notebook's name."""


class Study(BaseModel):
    """All runs of section 4 at one size; `Study.open` makes one, ``params/paper.yaml`` says what the fields mean.

    Lists of runs of sections 4.1 and 4.2 go seed by seed: stopped half-way, they have whole seeds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    profile: str = Field(min_length=1)
    shrink: int
    train_images: int
    validation_images: int
    test_images: int
    scale_test_images: int
    epochs: int
    batch_size: int
    ranges: tuple[tuple[float, float], ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    isrs: tuple[float, ...] = Field(min_length=1)
    scale_test_isrs: tuple[float, ...]
    initial_sigmas: tuple[float, ...] = Field(min_length=1)
    initial_isrs: tuple[float, ...] = Field(min_length=1)
    initialisation_seeds: tuple[int, ...] = Field(min_length=1)
    baseline_models: tuple[str, ...]
    baseline_seeds: tuple[int, ...] = Field(min_length=1)
    baseline_augmented: bool
    baseline_train_images: int
    baseline_validation_images: int
    baseline_test_images: int
    baseline_epochs: int
    baseline_batch_size: int
    equivariance_images: int
    beyond_seeds: tuple[int, ...]

    _options: str = PrivateAttr("")  # of a command about this study

    @classmethod
    def open(cls, profile: str, changes: Mapping[str, Any] | Iterable[str] = ()) -> Study:
        """Read a profile, put changes in place of its values, and check all of them.

        Parameters
        ----------
        profile : str
            Name of a file in ``params/``.
        changes : mapping, or iterable of str
            Values by parameter name, or texts ``name=value``.

        Returns
        -------
        Study
            Where the changes change anything, its `profile` is ``<profile>-custom``, so that the results of the
            profile itself are not overwritten; a change of ``profile`` to a new name names it otherwise.

        Raises
        ------
        ValueError
            On a project without profiles, an unknown profile, a file or change that cannot be read, and a parameter
            that is unknown, missing or out of its range.

        Examples
        --------
        >>> Study.open("quick", ["epochs=3"]).profile
        'quick-custom'
        """
        values, changes, given, prefix = read_profile(profile), parse_changes(changes), {}, ""
        check_names([*values, *changes], cls.model_fields)
        try:
            unchanged, study = cls.model_validate(values), cls.model_validate(values | changes)
            given = dict(study)
            study._check_lists()
            study._tables_2_to_4()
            prefix = "baseline_"
            study.table5()
        except ValidationError as error:
            where = f"profile {profile}{', runs on MNIST-Scale' * bool(prefix)}"
            raise ValueError(f"{where}: {complaints(error, given, prefix)}") from error
        files.results(study.profile)  # a plain name
        if study.profile != profile and study.profile in {*profiles(), "records", "runs", "benchmarks"}:
            raise ValueError(f"profile must be a new name, got {study.profile!r}, which has results of its own")
        if study.profile == profile and study != unchanged:
            study = study.model_copy(update={"profile": f"{profile}-custom"})
        study._options = shlex.join([f"--profile={profile}", *(f"-p{name}={value}" for name, value in changes.items())])
        return study

    def _check_lists(self) -> None:
        for name, given in {**dict(self), "baseline_models": self.systems}.items():
            if isinstance(given, tuple) and len(set(given)) < len(given):
                raise ValueError(f"{name} must be distinct values, got {list(given)}; remove the repeated ones")
        if not set(self.scale_test_isrs) <= set(self.isrs):
            told = f"got {list(self.scale_test_isrs)}; add the missing ones to isrs"
            raise ValueError(f"scale_test_isrs must be values of isrs = {list(self.isrs)}, {told}")
        if unknown := set(self.systems) - set(SYSTEMS):
            raise ValueError(
                f"baseline_models must be table5, variants or names of {', '.join(SYSTEMS)}, got {sorted(unknown)}; "
                "--import the module that registers it, if it is yours"
            )

    @property
    def distributions(self) -> tuple[LogUniform, ...]:
        """Data scale distributions of sections 4.1 and 4.2, from narrow to wide."""
        return tuple(LogUniform(low=low, high=high) for low, high in self.ranges)

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems to compare on MNIST-Scale, as `baseline_models` says."""
        groups = {"table5": [], "variants": []}
        for name, system in SYSTEMS.items():
            groups["table5" if system.in_table5 else "variants"].append(name)
        return tuple(name for given in self.baseline_models for name in groups.get(given, [given]))

    @property
    def description(self) -> str:
        """One line for people: these sizes beside the paper's."""
        canvas, seeds = CANVAS_SIZE // self.shrink, len(self.seeds)
        return (
            f"Size of these runs: {self.train_images:,} training, {self.validation_images:,} validation and "
            f"{self.test_images:,} test digits, {canvas} x {canvas} pixels, {self.epochs} epochs, "
            f"{seeds} seed{'s' * (seeds != 1)}. The paper's: 10,000 / 5,000 / 50,000 digits, 168 x 168 pixels, "
            "60 epochs, 3 seeds."
        )

    @property
    def baseline_description(self) -> str:
        """The same of the runs on MNIST-Scale."""
        seeds = len(self.baseline_seeds)
        return (
            f"Size of the runs on MNIST-Scale: {self.baseline_train_images:,} training, "
            f"{self.baseline_validation_images:,} validation and {self.baseline_test_images:,} test digits, "
            f"{self.baseline_epochs} epochs, batches of {self.baseline_batch_size}, {seeds} "
            f"realisation{'s' * (seeds != 1)}; {self.equivariance_images:,} digits in the test for invariance. The "
            f"paper's: 10,000 / 2,000 / 50,000 digits, 60 epochs, batches of 128, {PAPER_REALISATIONS} realisations."
        )

    def figure3(self) -> list[RunSpec]:
        """Fixed scales at every ISR of `isrs`, those of `scale_test_isrs` with the test of Fig. 4; see Table 2, too."""
        return self._fixed(self.isrs)

    def figure4(self) -> list[RunSpec]:
        """The runs of `figure3` that have the test at 45 data scales."""
        return self._fixed(self.scale_test_isrs)

    def table2(self) -> list[RunSpec]:
        """The learned rows of Table 2 as the released code runs them ("step_ratio"), from `START`."""
        return self.runs(LEARNED, self.seeds, [START])

    def eq5_as_printed(self) -> list[RunSpec]:
        """The learned rows of Table 2 with ISR = 1 + gamma^2 as printed in Eq. 5 ("isr")."""
        return self.runs("isr", self.seeds, [START])

    def table3(self) -> list[RunSpec]:
        """Scales learned from every pair of `initial_sigmas` and `initial_isrs`; shares runs with Table 2."""
        return self.runs(LEARNED, self.initialisation_seeds, product(self.initial_sigmas, self.initial_isrs))

    def table4(self) -> list[RunSpec]:
        """Scales learned in three ways from `START`; those of "step_ratio" are Table 2's runs."""
        modes = ("direct", "spacing", LEARNED)
        return [spec for seed in self.seeds for mode in modes for spec in self.runs(mode, [seed], [START])]

    def table5(self) -> list[RunSpec]:
        """The systems on MNIST-Scale, also for Table 6: first `WANTED_REALISATIONS` without, then with augmentation.

        Those of the table before others, cheap ones first.
        """
        systems = sorted(self.systems, key=lambda name: (not SYSTEMS[name].in_table5, SYSTEMS[name].cost))
        kinds = (False, True) if self.baseline_augmented else (False,)
        parts = (self.baseline_seeds[:WANTED_REALISATIONS], self.baseline_seeds[WANTED_REALISATIONS:])
        rows = [(model, seeds, augmented) for seeds, augmented, model in product(parts, kinds, systems)]
        return [self._baseline(model, seed, augmented) for model, seeds, augmented in rows for seed in seeds]

    def groups(self) -> dict[str, list[RunSpec]]:
        """All groups by name.  Some share runs."""
        return {name: getattr(self, name)() for name in GROUPS}

    def with_beyond(self) -> Study:
        """Itself, or in the place of a study without runs for the questions beyond the paper, `overnight`."""
        return self if self.beyond_seeds else Study.open("overnight")

    def beyond(self) -> dict[str, list[RunSpec]]:
        """Groups of runs for the questions beyond the paper, of this size."""
        return {name: make(self) for name, make in BEYOND.items()} if self.beyond_seeds else {}

    def all_specs(self) -> list[RunSpec]:
        """Every run once, most wanted first: seed and realisation 0 of everything, which is a number for every cell.

        Within that Tables 2 and 4, `TELLING_ISRS`, Table 3, all of Fig. 3, Table 5.
        """
        specs = {spec.key: spec for spec in [*self._tables_2_to_4(), *self.table5()]}.values()
        return sorted(specs, key=lambda spec: spec.seed != 0)

    def stored(self, group: str = "") -> list[Record]:
        """Records of a group of runs (none: of all) in the user's store and among the committed ones."""
        store = RunStore.open()
        return [record for spec in self._group(group) if (record := store.get(spec)) is not None]

    def read(self, group: str = "") -> tuple[list[Record], str]:
        """`stored`, for a notebook, and a line about what is missing.

        That is trained first where it takes no longer than `PATIENCE` on this machine; else the line says how long it
        would take, and which command does it.
        """
        store, specs, records = RunStore.open(), self._group(group), self.stored(group)
        there = {record.key for record in records}
        missing = [spec for spec in specs if spec.key not in there]
        seconds = plan(missing, store, device="cpu")["seconds"].sum()
        if 0 < seconds <= PATIENCE * min(usable_cores(), len(missing)):
            run_all(missing, store).require_complete()
            records, missing = self.stored(group), []
        told = f"{len(records)} of {len(specs)} runs"
        if missing:
            command = f"scalestudy run {self._options}{f' --filter {group}' * bool(group)}"
            told += f"; the others take about {seconds / 3600:.1f} hours of a CPU core: {command}"
        return records, told

    def cost(self, *groups: str) -> str:
        """How many runs of these groups are missing, and how long they take on this machine, in words."""
        todo = plan([spec for group in groups for spec in self._group(group)], RunStore.open(), device="cpu")
        return f"{sum(~todo['stored'])} runs to make, {todo['seconds'].sum() / 3600:.1f} hours on one core"

    def select(self, text: str) -> list[RunSpec]:
        """Runs whose group or label contains `text`, or else matches it as a regular expression; case is ignored.

        Those of a group of `BEYOND` by its name only.
        """
        if text in BEYOND:
            if found := self._group(text):
                return found
            raise ValueError(f"beyond_seeds must not be empty for {text}, got () in the profile {self.profile}")
        everything, groups = self.all_specs(), self.groups()
        for pattern in (re.escape(text), text):
            with suppress(re.error):
                fits = re.compile(pattern, re.IGNORECASE).search
                keys = {spec.key for name, specs in groups.items() if fits(name) for spec in specs}
                if found := [spec for spec in everything if spec.key in keys or fits(spec.label)]:
                    return found
        raise ValueError(
            f"filter must match a group ({', '.join([*groups, *BEYOND])}) or part of a label such as "
            f"{everything[0].label!r}, got {text!r}, which matches none of the {len(everything)} runs"
        )

    def for_notebooks(self, names: Iterable[str]) -> list[RunSpec]:
        """The runs that these notebooks read (`NOTEBOOK_GROUPS`), in the order of `all_specs`."""
        groups = self.groups()
        keys = {s.key for name in names for group in NOTEBOOK_GROUPS.get(name[:2], ()) for s in groups[group]}
        return [spec for spec in self.all_specs() if spec.key in keys]

    def _group(self, name: str) -> list[RunSpec]:
        if name not in ("", *GROUPS, *BEYOND):
            raise ValueError(
                f"group must be one of {', '.join((*GROUPS, *BEYOND))}, got {name!r}; leave it out for all"
            )
        return BEYOND[name](self) if name in BEYOND else getattr(self, name or "all_specs")()

    def _tables_2_to_4(self) -> list[RunSpec]:
        telling = self._fixed([isr for isr in self.isrs if isr in TELLING_ISRS])
        first = [*self.table2(), *self.table4(), *self.eq5_as_printed()]
        return [*first, *telling, *self.table3(), *self.figure3()]

    def _fixed(self, isrs: Sequence[float]) -> list[RunSpec]:
        shown = [{"scale_test_images": self.scale_test_images * (isr in self.scale_test_isrs)} for isr in isrs]
        return [
            spec
            for seed in self.seeds
            for isr, data in zip(isrs, shown, strict=True)
            for spec in self.runs("fixed", [seed], [(START[0], isr)], data=data)
        ]

    def runs(
        self,
        mode: str,
        seeds: Iterable[int],
        starts: Iterable[tuple[float, float]],
        distributions: Iterable[ScaleDistribution] | None = None,
        *,
        num_scales: int = 3,
        data: Mapping[str, Any] = MappingProxyType({}),
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> list[RunSpec]:
        """Runs with scales learned (or fixed) in one way, seed by seed; `data` and `training` are changes of specs."""
        sizes = self.model_dump(include={"train_images", "validation_images", "test_images", "shrink"}) | data
        schedule = TrainingSpec.paper_shaped(self.epochs, self.batch_size).model_dump() | training
        return [
            RunSpec(
                scales=ScalesSpec(parameterisation=mode, sigma_basis=sigma, isr=isr, num_scales=num_scales),
                data=DataSpec(distribution=distribution, **sizes),
                training=TrainingSpec(**schedule),
                seed=seed,
            )
            for seed, (sigma, isr), distribution in product(seeds, starts, distributions or self.distributions)
        ]

    def _baseline(self, model: str, seed: int, augmented: bool) -> RunSpec:
        names = ("train_images", "validation_images", "test_images")
        sizes = {name: getattr(self, f"baseline_{name}") for name in names}
        data = MnistScaleSpec(augmented=augmented, equivariance_images=self.equivariance_images, **sizes)
        return RunSpec.baseline(model, seed, data, self.baseline_epochs, self.baseline_batch_size)
