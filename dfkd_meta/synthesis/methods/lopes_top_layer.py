"""Lopes, Fenu & Starner 2017, top-layer activation records."""

from __future__ import annotations

from pydantic import Field

from dfkd_meta.config import Config
from dfkd_meta.synthesis.gaussians import read_gaussians
from dfkd_meta.synthesis.recipe import MethodContext, Query, Recipe, Weighted, method
from dfkd_meta.synthesis.sources import PixelSource, gaussian_start
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.features import FeatureTarget


class LopesConfig(Config):
    """The founding paper's procedure; its code makes 64,000 images with 1,000 steps each.

    ``start_mean`` and ``start_std`` describe the starting noise in the value range of the data
    (the published code's MNIST line: N(0.15, 0.1^2)).
    """

    images: int = Field(2_000, ge=1)
    batch_size: int = Field(500, ge=1)
    steps: int = Field(200, ge=0)
    learning_rate: float = Field(0.07, gt=0)
    start_mean: float = 0.15
    start_std: float = Field(0.1, gt=0)


def lopes_source(context: MethodContext, config: LopesConfig) -> PixelSource:
    """Starting noise of the founding paper, moved into model-normalized space; pixels stay free."""
    inputs = context.teacher.inputs
    mean = sum(inputs.mean) / len(inputs.mean)
    std = sum(inputs.std) / len(inputs.std)
    low, high = inputs.value_range
    raw_mean = low + config.start_mean * (high - low)
    raw_std = config.start_std * (high - low)
    start = gaussian_start(
        context.shape, context.device, mean=(raw_mean - mean) / std, std=raw_std / std
    )
    return PixelSource(start)


@method(
    "lopes_top_layer",
    source="Lopes, Fenu & Starner 2017, 'top layer activation record'",
    config=LopesConfig,
    needs=((Query("soft_targets", scope="per_class", role="logit_cholesky"),),),
)
def lopes_top_layer(context: MethodContext, config: LopesConfig) -> Recipe:
    """Match logits / T, rectified, with draws from N(mean_c, cov_c) of each class.

    Draws use the Cholesky factor; the published code multiplies by the covariance itself.
    """
    record = context.sidecar.find("soft_targets", scope="per_class")[0]
    tap = context.sidecar.tap(record.taps[0])
    temperature = float(str(record.params["temperature"]))
    gaussians = read_gaussians(context.sidecar, record, context.device)
    return Recipe(
        targets=TargetSampler(
            context.teacher.outputs.num_classes, context.device, {tap.id: gaussians}
        ),
        source=lopes_source(context, config),
        images=config.images,
        batch_size=config.batch_size,
        terms={"top": Weighted(FeatureTarget(tap, divisor=temperature, rectify=True), 1.0)},
        steps=config.steps,
        learning_rate=config.learning_rate,
    )
