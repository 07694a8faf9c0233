"""Data-free distillation with soft-targeted transfer set synthesis (Wang 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dfkd_meta.config import Config
from dfkd_meta.errors import MethodError, TeacherError
from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.methods.zskd import free_pixels
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, Weighted, method
from dfkd_meta.synthesis.targets import FeatureLabels, TargetSampler
from dfkd_meta.synthesis.terms.labels import SoftCrossEntropy
from dfkd_meta.synthesis.terms.outputs import ActivationNorm
from dfkd_meta.teachers import ActivationTap, Teacher, default_taps, last_hidden_tap

PROBES = 64


class SoftTargetConfig(Config):
    """``sigma``: the std of a feature before its rectifier (paper: 1.5 MNIST, 2.0 CIFAR-10)."""

    images: int = Field(6_000, ge=1)
    batch_size: int = Field(500, ge=1)
    steps: int = Field(60, ge=0)
    learning_rate: float = Field(0.1, gt=0)
    sigma: float = Field(1.5, gt=0)
    temperature: float = Field(1.0, gt=0)
    act_weight: float = Field(0.05, ge=0)


@dataclass(frozen=True)
class Head:
    """The last layer, the place of its input, and unit vectors `f d` of the features it reads."""

    tap: Tap
    layer: nn.Linear
    directions: Tensor


def read_head(teacher: Teacher) -> Head:
    """The last linear layer and what correlates its features. Raises MethodError without one.

    The directions are the weight rows of the layer that makes the features, if it has a row for
    each; else (features flattened from several positions) the columns of the last layer itself.
    """
    taps = default_taps(teacher)
    try:
        tap = last_hidden_tap(taps)
    except TeacherError as error:
        raise MethodError(f"soft_target draws features, but {error.message}") from error
    layer = teacher.module.get_submodule(tap.module)
    if not isinstance(layer, nn.Linear) or len(tap.shape) != 1:
        raise MethodError(
            "soft_target draws the features of a linear last layer, and this teacher has none",
            where=f"module {tap.module!r}",
        )
    earlier = [t.module for t in taps if t.side == "output" and t.module not in ("", tap.module)]
    weight = layer.weight.T
    if earlier:
        maker = teacher.module.get_submodule(earlier[-1]).weight
        if isinstance(maker, Tensor) and len(maker) == layer.in_features:
            weight = maker.flatten(1)
    return Head(tap, layer, F.normalize(weight.detach().float(), dim=1))


def is_rectified(teacher: Teacher, tap: Tap) -> bool:
    """Whether the features at the tap are never negative: seen on noise."""
    noise = torch.randn(PROBES, *teacher.inputs.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), ActivationTap(teacher.module, [tap]) as seen:
        teacher(noise.to(teacher.device))
        return bool((seen.activations[tap.id] >= 0).all())


@method("soft_target", source="Wang 2021 (no code published)", config=SoftTargetConfig)
def soft_target(context: MethodContext, config: SoftTargetConfig) -> Recipe:
    """Pixels whose prediction is that of features drawn in the last hidden layer.

    As published summaries have it: the features of that layer are one Gaussian for all classes,
    with a correlation from the teacher's weights and a single scalar sigma; drawn features go
    through the remaining layer to soft targets; noise is optimized to meet them, with a reward for
    high activations. There is no code and the paper's full text was not at hand, so defined here:
    the correlation of two features is the cosine of the weight rows that make them (as ZSKD's for
    classes), the mean is 0 before the rectifier, targets are met by cross-entropy, and the pixels
    are clipped.
    """
    head = read_head(context.teacher)
    rectified = is_rectified(context.teacher, head.tap)
    labels = FeatureLabels(head.directions, head.layer, config.sigma, rectified, config.temperature)
    return Recipe(
        targets=TargetSampler(context.classes, context.device, soft=labels),
        source=free_pixels(context, config.learning_rate),
        images=config.images,
        batch_size=config.batch_size,
        terms={
            "soft": Weighted(SoftCrossEntropy(config.temperature), 1.0),
            "act": Weighted(ActivationNorm(head.tap), config.act_weight),
        },
        steps=config.steps,
        labeled=False,
    )
