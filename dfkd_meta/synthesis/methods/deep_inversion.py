"""DeepInversion (Yin et al. 2020)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from dfkd_meta.augmentation import roll_batch
from dfkd_meta.config import Config
from dfkd_meta.sidecar import StatisticRecord
from dfkd_meta.synthesis.gaussians import ClassGaussians, read_tensor
from dfkd_meta.synthesis.recipe import Augment, MethodContext, Query, Recipe, Weighted, method
from dfkd_meta.synthesis.sources.pixels import PixelSource, gaussian_start
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.labels import CrossEntropy
from dfkd_meta.synthesis.terms.moments import MomentNorms
from dfkd_meta.synthesis.terms.priors import L2Norm, TotalVariation
from dfkd_meta.synthesis.terms.recorded_moments import RecordedMoments

STATISTICS = (
    Query("batchnorm"),
    Query("moments", scope="global", reduction="channel"),
    Query("moments", scope="global", reduction="unit"),
)


class DeepInversionConfig(Config):
    """Those of the published CIFAR-10 command, but fewer and shorter runs (2,000 steps there).

    ``flip`` mirrors half of the batches, as published; off, because digits have a left and a right.
    """

    images: int = Field(4_000, ge=1)
    batch_size: int = Field(250, ge=2)
    steps: int = Field(200, ge=0)
    learning_rate: float = Field(0.05, gt=0)
    bn_weight: float = Field(10.0, ge=0)
    tv_weight: float = Field(2.5e-5, ge=0)
    l2_weight: float = Field(0.0, ge=0)
    jitter: int = Field(2, ge=0)
    flip: bool = False


def has_batchnorm(context: MethodContext) -> bool:
    """Whether the sidecar records BatchNorm layers."""
    return bool(context.sidecar.find("batchnorm"))


def batch_statistics(context: MethodContext) -> tuple[RecordedMoments, ...]:
    """BatchNorm statistics; where the teacher has no BatchNorm, global moments inside the network.

    Records of the model's own input and output stand in only where there is nothing else.
    """
    sidecar, device = context.sidecar, context.device
    if not has_batchnorm(context):
        found = sidecar.find("moments", scope="global")
        moments = [record for record in found if record.reduction != "pooled"]
        inside = [record for record in moments if sidecar.tap(record.taps[0]).module]
        return tuple(RecordedMoments.read(sidecar, record, device) for record in inside or moments)

    def statistics(record: StatisticRecord) -> ClassGaussians:
        mean, variance = (
            read_tensor(sidecar, record, role, device)[None]
            for role in ("running_mean", "running_var")
        )
        return ClassGaussians(mean, variance)

    return tuple(
        RecordedMoments(sidecar.tap(record.taps[0]), "channel", statistics(record))
        for record in sidecar.find("batchnorm")
    )


def statistic_norms(context: MethodContext) -> MomentNorms:
    """The norms of a batch's distance to ``batch_statistics``, relative where they stand in."""
    return MomentNorms(batch_statistics(context), relative=not has_batchnorm(context))


def statistics_notes(context: MethodContext) -> tuple[str, ...]:
    """What the user should know about ``batch_statistics``."""
    if has_batchnorm(context):
        return ()
    taps = dict.fromkeys(record.tap.id for record in batch_statistics(context))
    return (
        f"no BatchNorm statistics are recorded: global moments at {', '.join(taps)} stand in, "
        "in units of their spread",
    )


def jitter_and_flip(reach: int, flip: bool) -> Augment:
    """Roll a batch by up to ``reach`` pixels and mirror it half the time: one draw per batch."""

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        images = roll_batch(images, reach, generator)
        mirror = flip and images.dim() == 4 and torch.rand((), generator=generator) < 0.5
        return images.flip(3) if mirror else images

    return augment


@method(
    "deep_inversion",
    source="Yin et al. 2020, eq. 2-4 (norms as in the published code)",
    config=DeepInversionConfig,
    needs=(STATISTICS,),
)
def deep_inversion(context: MethodContext, config: DeepInversionConfig) -> Recipe:
    """Cross-entropy + BatchNorm statistics + total variation + L2, on jittered free pixels.

    The paper squares the norms of the BatchNorm term, its code does not; the code is followed. Its
    "best" batch is an alias of the running one, hence always the last: the last is kept here.
    """
    return Recipe(
        targets=TargetSampler(context.classes, context.device),
        source=PixelSource(
            gaussian_start(context.shape, context.device), learning_rate=config.learning_rate
        ),
        images=config.images,
        batch_size=config.batch_size,
        terms={
            "oh": Weighted(CrossEntropy(), 1.0),
            "bn": Weighted(statistic_norms(context), config.bn_weight),
            "tv": Weighted(TotalVariation(), config.tv_weight),
            "l2": Weighted(L2Norm(), config.l2_weight),
        },
        steps=config.steps,
        augment=jitter_and_flip(config.jitter, config.flip),
        mirrored=config.flip,
        notes=statistics_notes(context),
    )
