"""What one training run computes: a validated, frozen description, and the key that names it.

Lengths are in pixels of the paper's 168-pixel canvas; `DataSpec.shrink` divides them all (canvas, digit, sigmas and
their learning rate, pooling window) before anything is built, so sigmas of all runs can be compared.  On MNIST-Scale
they are pixels of the enlarged 56 x 56 images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_serializer, model_validator

from scalestudy.data.distributions import ScaleDistribution
from scalestudy.models.systems import IMPORT_VARIABLE, SYSTEMS

CANVAS_SIZE, POOL_SIZE = 168, 42  # pixels: Dynamic Scale MNIST's images (paper, Appendix), Table 1's pooling window
ENLARGED_SIZE = 56  # pixels of the MNIST-Scale images that the convolutions of Table 5's systems see
PAPER_REALISATIONS = 6  # of MNIST-Scale: seeds 0 .. 5
# Enlargements of the test for invariance: nine from 0.5 to 2, four per octave (not in the paper: our choice).
EQUIVARIANCE_FACTORS = tuple(2.0 ** (step / 4) for step in range(-4, 5))
_WORK_PER_MILLISECOND = 6_700.0  # pixels that Table 1's network passes forward in a millisecond of one CPU core

DataSet = Literal["dynamic_scale_mnist", "mnist_scale"]


class Part(BaseModel):
    """Part of a spec or of a record.

    `_later` names fields that came after records had been stored: at their defaults they are not written, so that
    keys, checksums and files from before stay what they were, byte for byte.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    _later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        unsaid = self._later - self.added.keys()
        return {name: value for name, value in serialise(self).items() if name not in unsaid}

    @property
    def added(self) -> dict[str, Any]:
        """Those of `_later` that are not at their defaults, by name."""
        fields = type(self).model_fields
        given = {name: getattr(self, name) for name in fields if name in self._later}
        return {name: value for name, value in given.items() if value != fields[name].default}

    def digest(self, *without: str) -> str:
        """16 hex digits of the SHA-256 of the canonical JSON, without some fields."""
        content = self.model_dump(mode="json", exclude=set(without))
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class ScalesSpec(Part):
    """Internal scales at the start of a run: "isr" is Eq. 5, "step_ratio" what the released code calls ISR.

    One scale has no range: `isr` says nothing then.
    """

    parameterisation: Literal["fixed", "isr", "step_ratio", "spacing", "direct", "log"] = "fixed"
    sigma_basis: float = Field(2.0, gt=0)
    isr: float = Field(3.0, gt=1)
    num_scales: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _spans_a_range(self) -> ScalesSpec:
        if self.num_scales == 1 and self.parameterisation not in ("fixed", "direct"):
            raise ValueError(f"parameterisation must be fixed or direct for one scale, got {self.parameterisation!r}")
        return self


class _Images(Part):
    _shown: ClassVar[str]  # names the number of test images that an additional test shows again (0: no such test)
    test_images: int = Field(50_000, ge=1, le=50_000)

    @model_validator(mode="after")
    def _shown_within_test(self) -> _Images:
        if (shown := getattr(self, self._shown)) > self.test_images:
            raise ValueError(f"{self._shown} must be at most test_images = {self.test_images}, got {shown}; lower it")
        return self


class DataSpec(_Images):
    """Dynamic Scale MNIST (paper, Appendix); fewer images than the paper's are the first ones of its splits.

    `scale_test_images` test digits are shown at each of the 45 scales of Fig. 4.  Not in the paper: `images` other than
    digits, and `equivariance_images` shown at each of `EQUIVARIANCE_FACTORS`.
    """

    _shown = "scale_test_images"
    _later = frozenset({"images", "equivariance_images"})
    distribution: ScaleDistribution
    train_images: int = Field(10_000, ge=2, le=10_000)
    validation_images: int = Field(5_000, ge=1, le=5_000)
    scale_test_images: int = Field(0, ge=0, le=50_000)
    shrink: Literal[1, 2, 3] = 1
    images: Literal["mnist", "fashion_mnist"] = "mnist"
    equivariance_images: int = Field(0, ge=0, le=50_000)


class MnistScaleSpec(_Images):
    """MNIST-Scale (paper, Section 4.3): the first images of the splits of the realisation that the run's seed names.

    `augmented` trains with random rescaling ("+" in Table 5).  `equivariance_images` test digits are shown at each of
    `EQUIVARIANCE_FACTORS`.
    """

    _shown = "equivariance_images"
    dataset: Literal["mnist_scale"] = "mnist_scale"
    augmented: bool = False
    train_images: int = Field(10_000, ge=2, le=10_000)
    validation_images: int = Field(2_000, ge=1, le=2_000)
    equivariance_images: int = Field(1_000, ge=0, le=50_000)


class TrainingSpec(Part):
    """Optimisation by Adam (released code; the paper gives none of it); milestones are in epochs.

    Not in the paper: the weights do not see the `held_out` last share of the training images, whose loss the scales
    follow, until both end with epoch `scales_until`; then all images train the weights, with these scales.  (Running
    averages of batch norm do see them, as the loss is that of a step.)  Scales that
    win less than `drop_below` of the maxima in an epoch are dropped.  `slopes_at` the ends of these epochs the slope of
    the loss along the logarithms of sigma_basis and ISR is measured, on seen and on held-out images.
    """

    _later = frozenset({"held_out", "scales_until", "drop_below", "slopes_at"})
    epochs: int = Field(60, ge=1)
    batch_size: int = Field(128, ge=2)
    learning_rate: float = Field(0.01, gt=0)
    decay: float = Field(0.1, gt=0, le=1)
    scale_learning_rate: float = Field(0.01, ge=0)
    scale_decay: float = Field(0.75, gt=0, le=1)
    scale_warmup_epochs: float = Field(5.0, ge=0)
    milestones: tuple[float, ...] = (20.0, 40.0)
    held_out: float = Field(0.0, ge=0, le=0.5)
    scales_until: int | None = Field(None, ge=1)
    drop_below: float = Field(0.0, ge=0, lt=1)
    slopes_at: tuple[int, ...] = ()

    @classmethod
    def paper_shaped(
        cls, epochs: int = 60, batch_size: int = 128, dataset: DataSet = "dynamic_scale_mnist"
    ) -> TrainingSpec:
        """The paper's schedule (released code's, on MNIST-Scale), its times stretched from 60 epochs to `epochs`."""
        warmup, of_scales = 5, {}
        if dataset == "mnist_scale":
            warmup, of_scales = 10, {"scale_learning_rate": 0.005, "scale_decay": 0.1}
        warmup, *milestones = (round(epoch * epochs / 60, 6) for epoch in (warmup, 20, 40))
        of_scales |= {"scale_warmup_epochs": warmup, "milestones": tuple(milestones)}
        return cls(epochs=epochs, batch_size=batch_size, **of_scales)


def _data_set(value: Any) -> DataSet:
    """Which data set a spec is about; only MNIST-Scale's has a field that says so (the other was the first one)."""
    is_tagged = "dataset" in value if isinstance(value, dict) else isinstance(value, MnistScaleSpec)
    return "mnist_scale" if is_tagged else "dynamic_scale_mnist"


class RunSpec(Part):
    """One training run: of the model "table1" on Dynamic Scale MNIST, or of one of `models.SYSTEMS` on MNIST-Scale.

    A change that alters what a run computes bumps `recipe`, and old records stop counting.  `order` is that of ReLU and
    batch norm in Table 1: as in the released code, or as printed.  The name of a system says all about its scales.
    `seed` selects the split (on MNIST-Scale: the realisation) and everything random, as in the released code.
    "float32" is full float32 on every device, "tf32" has its products made in TF32 and is refused where a device
    cannot; such runs do not count as the paper's until they are shown to have the same test error.

    >>> from scalestudy.data.distributions import LogUniform
    >>> RunSpec(data=DataSpec(distribution=LogUniform(low=1, high=8))).label
    'log-uniform [1, 8], fixed sigma 2 ISR 3, seed 0'
    >>> RunSpec(model="sesn", data=MnistScaleSpec(augmented=True), seed=1).label
    'MNIST-Scale+, sesn, seed 1'
    """

    recipe: Literal[1] = 1
    model: str = "table1"
    order: Literal["relu_norm", "norm_relu"] = "relu_norm"
    scales: ScalesSpec | None = ScalesSpec()
    data: Annotated[
        Annotated[DataSpec, Tag("dynamic_scale_mnist")] | Annotated[MnistScaleSpec, Tag("mnist_scale")],
        Discriminator(_data_set),
    ]
    training: TrainingSpec = TrainingSpec()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["float32", "tf32", "float64"] = "float32"

    @model_validator(mode="before")
    @classmethod
    def _systems_have_no_scales_field(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and "scales" not in fields and fields.get("model", "table1") != "table1":
            return {**fields, "scales": None}
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> RunSpec:
        if self.model not in ("table1", *SYSTEMS):
            remedy = f"name the module that registers another one in {IMPORT_VARIABLE}"
            raise ValueError(f"model must be one of table1, {', '.join(SYSTEMS)}, got {self.model!r}; {remedy}")
        of_model, images, batch_size = f"for the model {self.model!r}", self.data.train_images, self.training.batch_size
        data_set = "dynamic_scale_mnist" if self.model == "table1" else "mnist_scale"
        if self.dataset != data_set:
            remedy = f"'table1' is for Dynamic Scale MNIST, {', '.join(SYSTEMS)} for MNIST-Scale"
            raise ValueError(f"data must be of {data_set} {of_model}, got {self.dataset}; {remedy}")
        training = self.training
        if self.model == "table1":
            if self.scales is None:
                raise ValueError(f"scales must be given {of_model}, got None; leave it out for the default")
            mode, held_out = self.scales.parameterisation, round(training.held_out * images)
            if training.slopes_at and not (mode == "log" and held_out):
                raise ValueError("slopes_at must go with the parameterisation 'log' and held_out images; give both")
            if training.held_out and held_out <= batch_size:
                raise ValueError(f"held_out must be more than a batch of {batch_size} images, got {held_out}")
            if not set(training.slopes_at) <= set(range(1, training.epochs + 1)):
                raise ValueError(f"slopes_at must be epochs, 1 .. {training.epochs}, got {training.slopes_at}")
        elif self.scales is not None or self.order != "relu_norm":
            raise ValueError(
                f"scales must be None and order 'relu_norm' {of_model}, whose name says all about it, got "
                f"{self.scales!r} and {self.order!r}; leave both out"
            )
        elif self.seed >= PAPER_REALISATIONS:
            published = f"a published realisation of MNIST-Scale, 0 .. {PAPER_REALISATIONS - 1},"
            raise ValueError(f"seed must be {published} {of_model}, got {self.seed}")
        elif added := training.added.keys() & TrainingSpec._later:
            raise ValueError(f"{', '.join(sorted(added))} must be left out {of_model}, got {training.added}")
        elif images % batch_size == 1:
            raise ValueError(
                "batch_size must not leave a last batch of one image, which batch norm refuses, got "
                f"{batch_size} with {images} train_images; change one of them by 1"
            )
        return self

    @classmethod
    def baseline(
        cls, model: str, seed: int = 0, data: MnistScaleSpec | None = None, epochs: int = 60, batch_size: int = 128
    ) -> RunSpec:
        """A run of a system with the released schedule, stretched to `epochs`; by default of the paper's size."""
        training = TrainingSpec.paper_shaped(epochs, batch_size, "mnist_scale")
        return cls(model=model, data=data or MnistScaleSpec(), training=training, seed=seed)

    @property
    def key(self) -> str:
        """The name of the run's record."""
        return self.digest()

    @property
    def dataset(self) -> DataSet:
        return _data_set(self.data)

    @property
    def label(self) -> str:
        if isinstance(self.data, MnistScaleSpec):
            return f"MNIST-Scale{'+' * self.data.augmented}, {self.model}, seed {self.seed}"
        scales, rate = self.scales, self.training.scale_learning_rate
        start = f"{scales.parameterisation} sigma {scales.sigma_basis:g} ISR {scales.isr:g}"
        parts = [self.data.distribution.label, start] + [f"{scales.num_scales} scales"] * (scales.num_scales != 3)
        parts += [f"{name} {value}" for name, value in {**self.data.added, **self.training.added}.items()]
        parts += [f"scale_learning_rate {rate:g}"] * (rate != TrainingSpec().scale_learning_rate)
        return ", ".join([*parts, f"seed {self.seed}"])

    @property
    def is_paper_size(self) -> bool:
        """Whether images, lengths, schedule and precision are the paper's, so that results can be compared."""
        data = self.data
        if self.precision != "float32" or self.training != TrainingSpec.paper_shaped(dataset=self.dataset):
            return False
        if isinstance(data, MnistScaleSpec):
            return data == MnistScaleSpec(augmented=data.augmented, equivariance_images=data.equivariance_images)
        shown = {name: getattr(data, name) for name in ("scale_test_images", "equivariance_images")}
        paper = DataSpec(distribution=data.distribution, **shown)
        return data == paper and (self.order, self.scales.num_scales) == ("relu_norm", 3)

    @property
    def work(self) -> float:
        """Rough cost, to foresee times by ratios: images passed forward (training: three times) times pixels."""
        data, epochs = self.data, self.training.epochs
        shown = epochs * data.validation_images + data.test_images
        if isinstance(data, MnistScaleSpec):
            train, evaluate = SYSTEMS[self.model].cost  # milliseconds per image
            shown += (1 + len(EQUIVARIANCE_FACTORS)) * data.equivariance_images
            return (epochs * data.train_images * train + shown * evaluate) * _WORK_PER_MILLISECOND
        shown += len(EQUIVARIANCE_FACTORS) * data.equivariance_images + 45 * data.scale_test_images
        images = 3 * epochs * data.train_images + shown
        return images * (CANVAS_SIZE / data.shrink) ** 2 * (2 + self.scales.num_scales) / 5
