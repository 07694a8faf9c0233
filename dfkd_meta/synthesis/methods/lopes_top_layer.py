"""Lopes, Fenu & Starner 2017, top-layer activation records."""

from __future__ import annotations

from pydantic import Field

from dfkd_meta.config import Config
from dfkd_meta.sidecar import StatisticRecord
from dfkd_meta.synthesis.gaussians import read_gaussians
from dfkd_meta.synthesis.recipe import MethodContext, Query, Recipe, Weighted, method
from dfkd_meta.synthesis.sources.pixels import PixelSource, gaussian_start
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.features import FeatureTarget

TOP = Query("soft_targets", scope="per_class", role="logit_cholesky")


class LopesConfig(Config):
    """The founding paper's procedure; its code makes 64,000 images with 1,000 steps each.

    ``start_mean`` and ``start_std`` describe the starting noise in the value range of the data
    (the published code's MNIST line: N(0.15, 0.1^2)). ``clip`` keeps pixels within that range; the
    published code leaves them free. ``learning_rate`` is in model-normalized units; the published
    0.07 is in raw pixels, for 1,000 steps where there are 200 here.
    """

    images: int = Field(2_000, ge=1)
    batch_size: int = Field(500, ge=1)
    steps: int = Field(200, ge=0)
    learning_rate: float = Field(0.07, gt=0)
    start_mean: float = 0.15
    start_std: float = Field(0.1, gt=0)
    clip: bool = False


def lopes_source(context: MethodContext, config: LopesConfig) -> PixelSource:
    """Starting noise of the founding paper, moved into model-normalized space."""
    inputs = context.teacher.inputs
    mean = sum(inputs.mean) / len(inputs.mean)
    std = sum(inputs.std) / len(inputs.std)
    low, high = inputs.value_range
    raw_mean = low + config.start_mean * (high - low)
    raw_std = config.start_std * (high - low)
    start = gaussian_start(
        context.shape, context.device, mean=(raw_mean - mean) / std, std=raw_std / std
    )
    return PixelSource(
        start,
        bounds=context.bounds if config.clip else None,
        learning_rate=config.learning_rate,
    )


def top_record(context: MethodContext) -> StatisticRecord:
    """The per-class record of logits / T that can be drawn from."""
    records = context.sidecar.find(TOP.kind, scope=TOP.scope)
    return next(record for record in records if TOP.role in record.tensors)


def top_target(context: MethodContext, record: StatisticRecord) -> FeatureTarget:
    """The distance of logits / T, rectified, to draws from ``record``."""
    temperature = float(str(record.params["temperature"]))
    return FeatureTarget(context.sidecar.tap(record.taps[0]), divisor=temperature, rectify=True)


@method(
    "lopes_top_layer",
    source="Lopes, Fenu & Starner 2017, 'top layer activation record'",
    config=LopesConfig,
    needs=((TOP,),),
)
def lopes_top_layer(context: MethodContext, config: LopesConfig) -> Recipe:
    """Match logits / T, rectified, with draws from N(mean_c, cov_c) of each class.

    Draws use the Cholesky factor; the published code multiplies by the covariance itself.
    """
    record = top_record(context)
    gaussians = {record.taps[0]: read_gaussians(context.sidecar, record, context.device)}
    return Recipe(
        targets=TargetSampler(context.classes, context.device, gaussians),
        source=lopes_source(context, config),
        images=config.images,
        batch_size=config.batch_size,
        terms={"top": Weighted(top_target(context, record), 1.0)},
        steps=config.steps,
    )
