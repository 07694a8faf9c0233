"""KD on plain Gaussian noise: the control that every data-free number must beat."""

from __future__ import annotations

from pydantic import Field

from dfkd_meta.config import Config
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, method
from dfkd_meta.synthesis.sources.pixels import PixelSource, gaussian_start
from dfkd_meta.synthesis.targets import TargetSampler


class NoiseConfig(Config):
    """``mean`` and ``std`` are in model-normalized units."""

    images: int = Field(20_000, ge=1)
    mean: float = 0.0
    std: float = Field(1.0, gt=0)


@method(
    "noise", source="control (Chen et al. 2019, table 1: 'normal distribution')", config=NoiseConfig
)
def noise(context: MethodContext, config: NoiseConfig) -> Recipe:
    """Inputs ~ N(mean, std^2), labeled by the teacher alone."""
    start = gaussian_start(context.shape, context.device, mean=config.mean, std=config.std)
    return Recipe(
        targets=TargetSampler(context.classes, context.device),
        source=PixelSource(start),
        images=config.images,
        batch_size=min(config.images, 1000),
        labeled=False,
    )
