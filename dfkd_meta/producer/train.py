"""``train``: a built-in architecture from scratch, on labeled data."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, field_validator
from torch import Tensor

from dfkd_meta.batches import shuffled
from dfkd_meta.config import Config
from dfkd_meta.data import Dataset, real_pool
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.distillation.evaluation import require_evaluable
from dfkd_meta.distillation.training import fit
from dfkd_meta.errors import DataError, UsageError
from dfkd_meta.progress import Progress
from dfkd_meta.seeding import derive_seed, generator_for
from dfkd_meta.sidecar import InputSpec, OutputSpec
from dfkd_meta.sidecar.manifest import Texts
from dfkd_meta.teachers import (
    COLOR_ORDERS,
    Teacher,
    build_model,
    check_inputs,
    for_all_channels,
    suited_layout,
)


class TrainConfig(Config):
    """How a network is trained on real data.

    ``shape`` (channels, height, width) resizes the images; ``mean`` and ``std`` per channel default
    to those of the training images themselves; ``width`` scales the architecture's hidden layers.
    ``value_range`` (lowest, highest) is what raw values may be: beyond [0, 1] it is by default that
    of the images up to the next power of two, so that nobody's extremes are published.
    """

    seed: int = 0
    width: float = Field(1.0, gt=0)
    shape: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)] | None = None
    mean: list[float] | None = None
    std: list[PositiveFloat] | None = None
    value_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    label_names: Texts | None = None
    training: TrainingConfig = TrainingConfig(
        losses={"hard": 1.0}, batch_size=128, mixup=0.0, cutmix=0.0
    )

    @field_validator("value_range")
    @classmethod
    def _ascends(cls, ends: list[float] | None) -> list[float] | None:
        if ends is not None and not -math.inf < ends[0] < ends[1] < math.inf:
            raise ValueError("the first number must be less than the second")
        return ends


def train_network(
    architecture: str,
    dataset: Dataset,
    config: TrainConfig,
    *,
    device: torch.device | None = None,
    evaluation: Dataset | None = None,
    progress: Progress | None = None,
) -> Teacher:
    """Train ``architecture`` on ``dataset`` and return it as a teacher.

    ``evaluation`` is not looked at, but what could not be evaluated on later is refused before.
    Raises DataError (no labels, shapes that disagree), UsageError (unknown name, wrong option).
    """
    if dataset.labels is None:
        raise DataError("training needs labels", where=dataset.name)
    device = device or torch.device("cpu")
    if int(dataset.labels.max()) < 1:
        raise DataError("training needs at least two classes", where=dataset.name)
    inputs = input_spec(dataset, config)
    names = config.label_names or dataset.class_names
    classes = max(int(dataset.labels.max()) + 1, len(dataset.class_names or ()))
    if names is not None and len(names) != classes:
        raise UsageError(f"label_names has {len(names)} names for {classes} classes")
    try:
        outputs = OutputSpec(num_classes=classes, label_names=names)
    except ValidationError as error:  # folders may be called anything
        raise UsageError(
            "a class has a name that the standard does not allow",
            where=dataset.name,
            hint="name the classes: --set label_names=[...]",
        ) from error
    if evaluation is not None:
        require_evaluable(evaluation, inputs, outputs)
    arguments: dict[str, Any] = {
        "num_classes": outputs.num_classes,
        "shape": list(inputs.shape),
        "width": config.width,
    }
    module = build_model(architecture, arguments, seed=derive_seed(config.seed, "student"))
    suited_layout(module, inputs.shape)
    generator = generator_for(config.seed, "training")
    pool = real_pool(dataset, inputs).to(device)
    stream = shuffled(pool, batch_size=config.training.batch_size, generator=generator)
    fit(module.to(device), stream, config.training, generator, progress=progress)
    return Teacher(
        module=module.cpu().requires_grad_(False),
        source="builtin",
        architecture=architecture,
        arguments=arguments,
        inputs=inputs,
        outputs=outputs,
    )


def input_spec(dataset: Dataset, config: TrainConfig) -> InputSpec:
    """The input block for training on ``dataset``: its shape, range and normalization.

    Mean and standard deviation are population moments per channel over (at most 10,000 of) the
    training images, each of the same weight whatever its size. Raises DataError.
    """
    shapes, (low, high), mean, std = _measure(dataset)
    if config.shape is None and len(shapes) > 1:
        raise DataError(
            f"the images have {len(shapes)} different shapes, such as "
            + " and ".join(str(list(one)) for one in sorted(shapes)[:2]),
            where=dataset.name,
            hint="resize them all: --set shape=[channels,height,width]",
        )
    if not bool(torch.isfinite(torch.tensor([low, high, *mean])).all()):
        raise DataError("the images hold NaN or infinity", where=dataset.name)
    if config.std is None and not bool((std >= 5e-5).all()):
        raise DataError(
            "a channel has the same value everywhere",
            where=dataset.name,
            hint="look at the data, or state the scale: --set std=[1]",
        )
    ends = config.value_range or [0.0 - _outward(-low), max(1.0, _outward(high))]
    if low < ends[0] or high > ends[1]:
        raise DataError(
            f"the images reach from {low:g} to {high:g}, beyond the value_range {ends}",
            where=dataset.name,
            hint="scale them, or state a wider one: --set value_range=[lowest,highest]",
        )
    shape = config.shape or list(min(shapes))
    resized = {tuple(shape[1:])} != {one[1:] for one in shapes}
    inputs = InputSpec(
        shape=shape,
        axes=["c", "h", "w"],
        value_range=ends,
        mean=config.mean or [round(float(v), 4) for v in mean],
        std=config.std or [round(float(v), 4) for v in std],
        color_order=COLOR_ORDERS.get(len(mean)),
        interpolation="bilinear" if resized else None,
    )
    inputs = for_all_channels(inputs)
    check_inputs(inputs, dataset.name)
    return inputs


def _outward(end: float) -> float:
    """The next power of two, 0 for what is not positive."""
    return 2.0 ** math.ceil(math.log2(end)) if end > 0 else 0.0


def _measure(
    dataset: Dataset, at_once: int = 10_000
) -> tuple[set[tuple[int, ...]], tuple[float, float], Tensor, Tensor]:
    """The shapes `c h w` of all images, their lowest and highest value, and moments `c` of the
    first ``at_once``; where shapes may differ, image by image. Raises DataError."""
    step = at_once if dataset.uniform else 1
    shapes, ends, moments = set(), [], []
    for start in range(0, len(dataset), step):
        part = dataset.read(range(start, min(start + step, len(dataset))))
        if part.dim() != 4:
            raise DataError(f"images must be n c h w, got {tuple(part.shape)}", where=dataset.name)
        shapes.add(tuple(part.shape[1:]))
        ends.append((float(part.min()), float(part.max())))
        if start < at_once:
            moments.append((part.mean((0, 2, 3)), part.std((0, 2, 3), correction=0)))
    if len(channels := {shape[0] for shape in shapes}) > 1:
        raise DataError(
            f"images of {' and of '.join(map(str, sorted(channels)))} channels are mixed",
            where=dataset.name,
            hint="convert them: all gray, or all RGB",
        )
    means, stds = (torch.stack(part).double() for part in zip(*moments, strict=True))
    mean = means.mean(0)
    std = (stds.square() + (means - mean).square()).mean(0).sqrt()
    return shapes, (min(low for low, _ in ends), max(high for _, high in ends)), mean, std
