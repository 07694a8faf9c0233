"""Controls that use data: KD on the real set, KD on another one, labels without a teacher."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.config import Config
from dfkd_meta.data import Dataset, match_classes, open_data, real_pool
from dfkd_meta.errors import DataError
from dfkd_meta.sidecar import InputSpec
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, method
from dfkd_meta.synthesis.sources.pixels import PixelSource, gaussian_start
from dfkd_meta.synthesis.targets import TargetSampler

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as image libraries turn color into gray


class DataConfig(Config):
    """``data`` names a data set as every command does; ``limit`` keeps its first samples."""

    data: str = Field(min_length=1)
    split: str = "train"
    limit: int | None = Field(None, ge=1)


@method(
    "real_data",
    source="control: Hinton et al. 2015, KD on the original data",
    config=DataConfig,
)
def real_data(context: MethodContext, config: DataConfig) -> Recipe:
    """The upper limit of every data-free number: the same student schedule on real inputs."""
    return data_recipe(context, read_pool(context, config))


@method(
    "alternative_data",
    source="control: KD on another or unlabeled data set (Chen et al. 2019, table 1)",
    config=DataConfig,
)
def alternative_data(context: MethodContext, config: DataConfig) -> Recipe:
    """Any images: another data set, a folder of pictures, the ``synthetic.safetensors`` of a run.

    Their labels are dropped (they are of other classes); colors are adapted to the teacher's.
    """
    return data_recipe(context, read_pool(context, config, labeled=False))


@method(
    "scratch",
    source="control: the student on true labels, without a teacher",
    config=DataConfig,
)
def scratch(context: MethodContext, config: DataConfig) -> Recipe:
    """Cross-entropy with the labels of the data; the teacher is not asked."""
    pool = read_pool(context, config)
    if pool.labels is None:
        raise DataError("these data have no labels", where=config.data)
    return data_recipe(context, pool, student_losses={"hard": 1.0})


def data_recipe(
    context: MethodContext, pool: SyntheticBatch, student_losses: dict[str, float] | None = None
) -> Recipe:
    """A recipe that synthesizes nothing."""
    return Recipe(
        targets=TargetSampler(context.classes, context.device),
        source=PixelSource(gaussian_start(context.shape, context.device)),
        images=len(pool),
        batch_size=len(pool),
        labeled=pool.labels is not None,
        student_losses=student_losses,
        given=pool,
    )


def read_pool(
    context: MethodContext, config: DataConfig, *, labeled: bool = True
) -> SyntheticBatch:
    """The data as inputs of the teacher: float32 `n ...`, model-normalized, with labels if known.

    Without ``labeled`` they are dropped. Raises DataError when the data do not fit the teacher, in
    shape or in classes.
    """
    inputs, classes = context.teacher.inputs, context.teacher.outputs.num_classes
    found = open_data(config.data, split=config.split)
    if not labeled:
        found.labels = None
    match_classes(found, context.teacher.outputs)
    dataset = _Recolored(found, inputs)
    labels = dataset.labels
    if labels is not None and (largest := int(labels[: config.limit].max(initial=0))) >= classes:
        raise DataError(
            f"the data have a class {largest}, the teacher knows 0 to {classes - 1}",
            where=config.data,
            hint="alternative_data takes data of other classes, without their labels",
        )
    return real_pool(dataset, inputs, limit=config.limit)


class _Recolored(Dataset):
    """A data set with as many color channels as the teacher expects: gray from RGB or back."""

    def __init__(self, inner: Dataset, inputs: InputSpec) -> None:
        self.inner = inner
        self.channels = inputs.shape[0] if len(inputs.shape) == 3 else None
        self.name, self.split, self.labels = inner.name, inner.split, inner.labels
        self.value_range, self.uniform = inner.value_range, inner.uniform

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, indices: object) -> Tensor:
        images = self.inner.read(indices)  # type: ignore[arg-type]
        if images.dim() != 4 or (images.shape[1], self.channels) not in ((1, 3), (3, 1)):
            return images
        if self.channels == 3:
            return images.expand(-1, 3, -1, -1)
        return (images * torch.tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)
