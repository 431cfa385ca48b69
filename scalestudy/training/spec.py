"""What one training run computes: a validated, frozen description, and the key that names it.

Lengths of Sections 4.1 and 4.2 are given in pixels of the paper's 168-pixel canvas.  `DataSpec.shrink` divides them all
(canvas, digit, sigmas and their learning rate, pooling window) before anything is built, so a shrunk run
differs from the paper's in that one field, and sigmas of all runs can be compared.  Runs of Section 4.3 are never
shrunk: their lengths are pixels of the enlarged 56 x 56 images.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from scalestudy.data.distributions import ScaleDistribution

CANVAS_SIZE = 168
"""Height and width of a Dynamic Scale MNIST image in pixels (paper, Appendix)."""

POOL_SIZE = 42
"""Window of Table 1's max pooling in pixels."""

ENLARGED_SIZE = 56
"""Height and width in pixels of the MNIST-Scale images that the convolutions of Table 5's systems see."""

PAPER_REALISATIONS = 6
"""Realisations of MNIST-Scale in the paper: seeds 0 .. 5."""

Parameterisation = Literal["fixed", "isr", "step_ratio", "spacing", "direct"]

BaselineName = Literal[
    "cnn", "sicnn", "si_convnet", "sevf", "dss", "ss_cnn", "sesn", "disco", "ours_isr", "ours_spacings", "ours_direct"
]
"""Systems of Table 5, in its order."""

VariantName = Literal["sevf_scalar", "dss_scalar", "ours_isr_like_sesn", "single_scale", "interval_scales"]
"""Systems that no table of the paper has."""

BASELINES: tuple[str, ...] = get_args(BaselineName)
VARIANTS: tuple[str, ...] = get_args(VariantName)
SYSTEM_NAMES = (*BASELINES, *VARIANTS)
"""All systems that are compared on MNIST-Scale: the names of `scalestudy.models.SYSTEMS`."""

MILLISECONDS: dict[str, tuple[float, float]] = {
    "cnn": (5, 2), "sicnn": (48, 19), "si_convnet": (35, 13), "sevf": (51, 27), "dss": (11, 4), "ss_cnn": (54, 19),
    "sesn": (24, 10), "disco": (29, 15), "ours_isr": (43, 13), "ours_spacings": (44, 13), "ours_direct": (40, 12),
    "sevf_scalar": (47, 20), "dss_scalar": (11, 5), "ours_isr_like_sesn": (29, 10), "single_scale": (8, 3),
    "interval_scales": (43, 13),
}  # fmt: skip
"""Milliseconds per image of each system on one core of a server, batches of 16 and 100: training, evaluation.

Not in the paper: our choice, only to foresee the time of a run where no run of the same system is known.
"""

_WORK_PER_MILLISECOND = 6_700.0
"""Pixels that the network of Table 1 passes forward in a millisecond of one CPU core: makes `RunSpec.work` one unit."""

EQUIVARIANCE_FACTORS = tuple(2.0 ** (step / 4) for step in range(-4, 5))
"""Enlargements of the test for invariance: nine from 0.5 to 2, four per octave (not in the paper: our choice)."""

DataSet = Literal["dynamic_scale_mnist", "mnist_scale"]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ScalesSpec(_Spec):
    """Internal scales at the start of the run.

    `parameterisation` names the class of `scalestudy.layers.scales`: "fixed", "isr" (Eq. 5 as printed),
    "step_ratio" (what the released code calls ISR), "spacing" or "direct".
    """

    parameterisation: Parameterisation = "fixed"
    sigma_basis: float = Field(2.0, gt=0)
    isr: float = Field(3.0, gt=1)
    num_scales: int = Field(3, ge=2)


class DataSpec(_Spec):
    """Dynamic Scale MNIST (paper, Appendix): digits at scales drawn from a distribution.

    Counts are images per split; fewer than the paper's 10,000 / 5,000 / 50,000 are the first ones of its
    splits.  `scale_test_images` is the number of test digits shown at each of the 45 scales of Fig. 4
    (0: no such test).
    """

    distribution: ScaleDistribution
    train_images: int = Field(10_000, ge=2, le=10_000)
    validation_images: int = Field(5_000, ge=1, le=5_000)
    test_images: int = Field(50_000, ge=1, le=50_000)
    scale_test_images: int = Field(0, ge=0, le=50_000)
    shrink: Literal[1, 2, 3] = 1

    @model_validator(mode="after")
    def _scale_test_within_test(self) -> DataSpec:
        if self.scale_test_images > self.test_images:
            raise ValueError(
                f"scale_test_images must be at most test_images = {self.test_images}, got {self.scale_test_images}"
            )
        return self


class MnistScaleSpec(_Spec):
    """MNIST-Scale (paper, Section 4.3): the realisation that the run's seed names.

    Counts are images per split; fewer than 10,000 / 2,000 / 50,000 are the first ones of the published splits.
    `augmented` trains with random rescaling ("+" in Table 5).  `equivariance_images` is the number of test digits
    shown at each of `EQUIVARIANCE_FACTORS` (0: no such test).
    """

    dataset: Literal["mnist_scale"] = "mnist_scale"
    augmented: bool = False
    train_images: int = Field(10_000, ge=2, le=10_000)
    validation_images: int = Field(2_000, ge=1, le=2_000)
    test_images: int = Field(50_000, ge=1, le=50_000)
    equivariance_images: int = Field(1_000, ge=0, le=50_000)

    @model_validator(mode="after")
    def _equivariance_within_test(self) -> MnistScaleSpec:
        if self.equivariance_images > self.test_images:
            raise ValueError(
                f"equivariance_images must be at most test_images = {self.test_images}, got {self.equivariance_images}"
            )
        return self


class TrainingSpec(_Spec):
    """Optimisation (released code; the paper gives none of it).

    Adam; the learning rate is multiplied by `decay` (for the scales by `scale_decay`) at each milestone
    (in epochs); the scales' own rate first rises linearly from 0 over `scale_warmup_epochs`.
    """

    epochs: int = Field(60, ge=1)
    batch_size: int = Field(128, ge=2)
    learning_rate: float = Field(0.01, gt=0)
    decay: float = Field(0.1, gt=0, le=1)
    scale_learning_rate: float = Field(0.01, ge=0)
    scale_decay: float = Field(0.75, gt=0, le=1)
    scale_warmup_epochs: float = Field(5.0, ge=0)
    milestones: tuple[float, ...] = (20.0, 40.0)

    @classmethod
    def paper_shaped(
        cls, epochs: int = 60, batch_size: int = 128, dataset: DataSet = "dynamic_scale_mnist"
    ) -> TrainingSpec:
        """The paper's schedule with all its times stretched to `epochs` (60 gives it unchanged).

        On MNIST-Scale the scales learn at 0.005, warm up over 10 epochs and decay by 0.1 like the weights (released
        code).  Systems without learned scales share that schedule and have nothing that it applies to.
        """
        warmup, of_scales = 5, {}
        if dataset == "mnist_scale":
            warmup, of_scales = 10, {"scale_learning_rate": 0.005, "scale_decay": 0.1}
        return cls(
            epochs=epochs,
            batch_size=batch_size,
            scale_warmup_epochs=round(warmup * epochs / 60, 6),
            milestones=tuple(round(epoch * epochs / 60, 6) for epoch in (20, 40)),
            **of_scales,
        )


def _data_set(value: Any) -> DataSet:
    """Which data set a spec is about; Dynamic Scale MNIST has no field that says so (it was the only one)."""
    is_tagged = "dataset" in value if isinstance(value, dict) else isinstance(value, MnistScaleSpec)
    return "mnist_scale" if is_tagged else "dynamic_scale_mnist"


AnyData = Annotated[
    Annotated[DataSpec, Tag("dynamic_scale_mnist")] | Annotated[MnistScaleSpec, Tag("mnist_scale")],
    Discriminator(_data_set),
]


class RunSpec(_Spec):
    """One training run.

    `recipe` is a version: a change that alters what a run computes bumps it, and old records stop
    counting.  `model` is "table1" on Dynamic Scale MNIST, or a system of Table 5 on MNIST-Scale, whose name says all
    about it: then `scales` is None.  `order` is Table 1's order of ReLU and batch norm: "relu_norm" as in the released
    code, "norm_relu" as printed.  The seed selects the split (on MNIST-Scale: the realisation), the drawn scales, the
    initial weights, the shuffling, the augmentation and the dropout, as in the released code.

    `precision` is that of the network.  "float32" is full float32 on every device.  "tf32" is float32 whose products a
    CUDA device makes in TF32 (`precision`); it is refused elsewhere, and such runs do not count as the
    paper's (`is_paper_size`) until they are shown to have the test error of float32 within the spread over seeds.
    bfloat16 is not offered: no measurement says that it earns its place.

    Examples
    --------
    >>> from scalestudy.data import LogUniform
    >>> spec = RunSpec(data=DataSpec(distribution=LogUniform(low=1, high=8)))
    >>> spec.label
    'log-uniform [1, 8], fixed sigma 2 ISR 3, seed 0'
    >>> RunSpec(model="sesn", data=MnistScaleSpec(augmented=True), seed=1).label
    'MNIST-Scale+, sesn, seed 1'
    """

    recipe: Literal[1] = 1
    model: Literal["table1", BaselineName, VariantName] = "table1"
    order: Literal["relu_norm", "norm_relu"] = "relu_norm"
    scales: ScalesSpec | None = ScalesSpec()
    data: AnyData
    training: TrainingSpec = TrainingSpec()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["float32", "tf32", "float64"] = "float32"

    @model_validator(mode="before")
    @classmethod
    def _systems_have_no_scales_field(cls, fields: Any) -> Any:
        """Leaving `scales` out means None for a system, the default start for Table 1's network."""
        if isinstance(fields, dict) and "scales" not in fields and fields.get("model", "table1") != "table1":
            return {**fields, "scales": None}
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> RunSpec:
        if self.model == "table1":
            if not isinstance(self.data, DataSpec):
                raise ValueError(
                    "data must be Dynamic Scale MNIST (a distribution) for the model 'table1', got MNIST-Scale; "
                    f"name a system for it: {', '.join(SYSTEM_NAMES)}"
                )
            if self.scales is None:
                raise ValueError("scales must be given for the model 'table1', got None; leave it out for the default")
            return self
        if not isinstance(self.data, MnistScaleSpec):
            raise ValueError(
                f"data must be MNIST-Scale (dataset 'mnist_scale') for the model {self.model!r}, got Dynamic Scale "
                "MNIST; the model for that is 'table1'"
            )
        if self.scales is not None or self.order != "relu_norm":
            raise ValueError(
                f"scales must be None and order 'relu_norm' for the model {self.model!r}, whose name says all about "
                f"it, got {self.scales!r} and {self.order!r}; leave both out"
            )
        if self.seed >= PAPER_REALISATIONS:
            raise ValueError(
                f"seed must be a published realisation of MNIST-Scale, 0 .. {PAPER_REALISATIONS - 1}, for the model "
                f"{self.model!r}, got {self.seed}"
            )
        if self.data.train_images % self.training.batch_size == 1:
            raise ValueError(
                f"batch_size must not leave a last batch of one image, which batch norm refuses, got "
                f"{self.training.batch_size} with {self.data.train_images} train_images; change one of them by 1"
            )
        return self

    @classmethod
    def baseline(
        cls,
        model: str,
        seed: int = 0,
        data: MnistScaleSpec | None = None,
        epochs: int = 60,
        batch_size: int = 128,
    ) -> RunSpec:
        """A run of Table 5: a system with the released schedule, stretched to `epochs`.

        Parameters
        ----------
        model : str
            One of `SYSTEM_NAMES`.
        seed : int
            Realisation of MNIST-Scale, and everything else that is random; the published ones are 0 .. 5.
        data : MnistScaleSpec, optional
            Default: the paper's sizes without augmentation.
        epochs, batch_size : int
            60 and 128 in the released code.
        """
        training = TrainingSpec.paper_shaped(epochs, batch_size, "mnist_scale")
        return cls(model=model, scales=None, data=data or MnistScaleSpec(), training=training, seed=seed)

    @property
    def key(self) -> str:
        """16 hex digits of the SHA-256 of the canonical JSON: the name of the run's record."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def dataset(self) -> DataSet:
        """Name of the data set."""
        return _data_set(self.data)

    @property
    def label(self) -> str:
        """A short name for people."""
        if isinstance(self.data, MnistScaleSpec):
            return f"MNIST-Scale{'+' * self.data.augmented}, {self.model}, seed {self.seed}"
        scales = self.scales
        return (
            f"{self.data.distribution.label}, {scales.parameterisation} sigma {scales.sigma_basis:g} "
            f"ISR {scales.isr:g}, seed {self.seed}"
        )

    @property
    def is_paper_size(self) -> bool:
        """Whether images, lengths, schedule and precision are the paper's, so that results can be compared.

        This is the gate for precisions: nothing but float32 passes.
        """
        data = self.data
        if self.precision != "float32" or self.training != TrainingSpec.paper_shaped(dataset=self.dataset):
            return False
        if isinstance(data, MnistScaleSpec):
            paper = MnistScaleSpec(augmented=data.augmented)
            counts = ("train_images", "validation_images", "test_images")
            return all(getattr(data, name) == getattr(paper, name) for name in counts)
        paper = DataSpec(distribution=data.distribution, scale_test_images=data.scale_test_images)
        return data == paper and (self.order, self.scales.num_scales) == ("relu_norm", 3)

    @property
    def work(self) -> float:
        """Rough cost: images passed forward (training counts three times) times pixels, no unit.

        For systems on MNIST-Scale `MILLISECONDS` takes the place of pixels, in the same unit.
        Our choice: only ratios matter, to foresee the time of a run from that of others.
        """
        data, epochs = self.data, self.training.epochs
        if isinstance(data, MnistScaleSpec):
            train, evaluate = MILLISECONDS[self.model]
            shown = epochs * data.validation_images + data.test_images
            shown += (1 + len(EQUIVARIANCE_FACTORS)) * data.equivariance_images
            return (epochs * data.train_images * train + shown * evaluate) * _WORK_PER_MILLISECOND
        images = (
            epochs * (3 * data.train_images + data.validation_images) + data.test_images + 45 * data.scale_test_images
        )
        return images * math.pow(CANVAS_SIZE / data.shrink, 2)
