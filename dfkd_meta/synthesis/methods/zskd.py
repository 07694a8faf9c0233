"""Zero-Shot Knowledge Distillation (Nayak et al. 2019)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dfkd_meta.config import Config
from dfkd_meta.synthesis.gaussians import read_tensor
from dfkd_meta.synthesis.recipe import MethodContext, Query, Recipe, Weighted, method
from dfkd_meta.synthesis.sources.pixels import PixelSource, gaussian_start
from dfkd_meta.synthesis.targets import DirichletLabels, TargetSampler
from dfkd_meta.synthesis.terms.labels import SoftCrossEntropy

LEAST_ALPHA = 1e-4  # the published code's: a Dirichlet needs positive concentrations


class ZskdConfig(Config):
    """The paper's betas and temperature; it makes 24,000 to 40,000 inputs of 1,500 steps each.

    Its step of 0.001 in [0, 1] pixels is 0.003 in MNIST's normalized ones; ten times fewer steps
    need a larger one.
    """

    images: int = Field(6_000, ge=1)
    batch_size: int = Field(500, ge=1)
    steps: int = Field(60, ge=0)
    learning_rate: float = Field(0.1, gt=0)
    betas: tuple[Annotated[float, Field(gt=0)], ...] = Field((1.0, 0.1), min_length=1)
    temperature: float = Field(20.0, gt=0)


def concentrations(similarity: Tensor, betas: tuple[float, ...]) -> Tensor:
    """``beta * minmax(C_c) + 1e-4`` for every beta and class: `c c` -> `b c c` (eq. 2)."""
    low, high = similarity.amin(1, keepdim=True), similarity.amax(1, keepdim=True)
    scaled = (similarity - low) / (high - low).clamp_min(torch.finfo(similarity.dtype).eps)
    return torch.stack([beta * scaled + LEAST_ALPHA for beta in betas])


def free_pixels(context: MethodContext, learning_rate: float) -> PixelSource:
    """Pixels inside the range of real inputs, from noise about their mean, each of its contrast.

    The papers start from noise uniform over the range, which on digits, mostly background, is far
    from any of them: 69 % against 87 % for ZSKD on LeNet-5, at equal and few steps.
    """
    return PixelSource(
        gaussian_start(context.shape, context.device, vary=True),
        bounds=context.bounds,
        learning_rate=learning_rate,
    )


@method(
    "zskd",
    source="Nayak et al. 2019, eq. 2-3",
    config=ZskdConfig,
    needs=((Query("class_similarity"),),),
)
def zskd(context: MethodContext, config: ZskdConfig) -> Recipe:
    """Pixels whose softened prediction is a draw from a Dirichlet around a class.

    The concentration of class c is its row of the class similarity, scaled to [0, 1], times beta.
    In the published code the second beta (0.1) has no effect, for the row is scaled again after
    the multiplication; here half of the inputs are drawn with each, as the paper says. The code
    scales a batch to [0, 1] by its own extremes after each step; here pixels are clipped.
    """
    similarity = read_tensor(
        context.sidecar, context.sidecar.find("class_similarity")[0], "similarity", context.device
    )
    labels = DirichletLabels(concentrations(similarity, config.betas))
    return Recipe(
        targets=TargetSampler(context.classes, context.device, soft=labels),
        source=free_pixels(context, config.learning_rate),
        images=config.images,
        batch_size=config.batch_size,
        terms={"soft": Weighted(SoftCrossEntropy(config.temperature), 1.0)},
        steps=config.steps,
        labeled=False,
    )
