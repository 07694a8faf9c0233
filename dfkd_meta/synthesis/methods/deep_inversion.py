"""DeepInversion (Yin et al. 2020)."""

from __future__ import annotations

from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from dfkd_meta.augmentation import roll_batch
from dfkd_meta.config import Config
from dfkd_meta.sidecar import StatisticRecord
from dfkd_meta.synthesis.gaussians import ClassGaussians, read_tensor
from dfkd_meta.synthesis.recipe import MethodContext, Query, Recipe, Weighted, method
from dfkd_meta.synthesis.sources import PixelSource, gaussian_start
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.labels import CrossEntropy
from dfkd_meta.synthesis.terms.moments import MomentNorms, RecordedMoments
from dfkd_meta.synthesis.terms.priors import L2Norm, TotalVariation


class DeepInversionConfig(Config):
    """Those of the published CIFAR-10 command, but fewer and shorter runs (2,000 steps there)."""

    images: int = Field(4_000, ge=1)
    batch_size: int = Field(250, ge=2)
    steps: int = Field(200, ge=0)
    learning_rate: float = Field(0.05, gt=0)
    bn_weight: float = Field(10.0, ge=0)
    tv_weight: float = Field(2.5e-5, ge=0)
    l2_weight: float = Field(0.0, ge=0)
    jitter: int = Field(2, ge=0)


def batch_statistics(context: MethodContext) -> tuple[RecordedMoments, ...]:
    """BatchNorm statistics, or global channel moments where the teacher has no BatchNorm."""
    sidecar, device = context.sidecar, context.device
    normalized = sidecar.find("batchnorm")
    if not normalized:
        moments = sidecar.find("moments", scope="global")
        return tuple(RecordedMoments.read(sidecar, record, device) for record in moments)

    def statistics(record: StatisticRecord) -> ClassGaussians:
        mean, variance = (
            read_tensor(sidecar, record, role, device)[None]
            for role in ("running_mean", "running_var")
        )
        return ClassGaussians(mean, variance)

    return tuple(
        RecordedMoments(sidecar.tap(record.taps[0]), "channel", statistics(record))
        for record in normalized
    )


@method(
    "deep_inversion",
    source="Yin et al. 2020, eq. 2-4 (norms as in the published code)",
    config=DeepInversionConfig,
    needs=((Query("batchnorm"), Query("moments", scope="global")),),
)
def deep_inversion(context: MethodContext, config: DeepInversionConfig) -> Recipe:
    """Cross-entropy + BatchNorm statistics + total variation + L2, on jittered free pixels."""
    return Recipe(
        targets=TargetSampler(context.teacher.outputs.num_classes, context.device),
        source=PixelSource(gaussian_start(context.shape, context.device)),
        images=config.images,
        batch_size=config.batch_size,
        terms={
            "oh": Weighted(CrossEntropy(), 1.0),
            "bn": Weighted(MomentNorms(batch_statistics(context)), config.bn_weight),
            "tv": Weighted(TotalVariation(), config.tv_weight),
            "l2": Weighted(L2Norm(), config.l2_weight),
        },
        steps=config.steps,
        learning_rate=config.learning_rate,
        augment=partial(_jitter, reach=config.jitter),
    )


def _jitter(images: Tensor, generator: torch.Generator, *, reach: int) -> Tensor:
    return roll_batch(images, reach, generator)
