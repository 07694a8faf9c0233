"""Losses on features of matched layers; each sums over its pairs and averages over elements.

Features are those of ``Lesson``: F_t of the teacher, F_s of the student.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_meta.distillation.losses import Lesson, Loss, losses
from dfkd_meta.distillation.pairs import Pair


@losses.register("fitnets")
class FitNets(Loss):
    """FitNets, Romero et al. 2015, eq. 3: ``(F_t - r(F_s))^2``.

    r is learned: a 1x1 convolution for maps and sequences, a linear layer for other features.
    """

    least_pairs: ClassVar[int] = 1

    def __call__(self, lesson: Lesson) -> Tensor:
        parts = [
            F.mse_loss(project(features.student), features.teacher)
            for features, project in zip(lesson.features, lesson.projections, strict=True)
        ]
        return torch.stack(parts).sum()

    def projection(self, pair: Pair) -> nn.Module:
        before, after = pair.channels
        if len(pair.axes) == 1 or pair.axes[0] != "c":
            return nn.Linear(before, after)
        return (nn.Conv1d if len(pair.axes) == 2 else nn.Conv2d)(before, after, 1)


@losses.register("attention")
class Attention(Loss):
    """Attention transfer, Zagoruyko & Komodakis 2017, eq. 2: ``(Q_t - Q_s)^2`` of attention maps.

    Q is the map ``mean_c F_c^2`` divided by its L2 norm over positions.
    """

    least_pairs: ClassVar[int] = 1

    def __call__(self, lesson: Lesson) -> Tensor:
        parts = [
            F.mse_loss(_attention(features.student), _attention(features.teacher))
            for features in lesson.features
        ]
        return torch.stack(parts).sum()

    def refuses(self, pair: Pair) -> str | None:
        if not pair.is_map:
            return "attention compares maps `c h w`; 'fitnets' works on other features"
        return "a single position has no attention" if pair.positions == 1 else None


@losses.register("fsp")
class FSP(Loss):
    """Flow, Yim et al. 2017, eq. 2: ``(G_t - G_s)^2`` of relations between consecutive layers.

    ``G[i, j]`` is the mean over positions of channel i of the one map times channel j of the next,
    the larger map averaged down to the smaller. Where channel counts differ, a learned 1x1
    convolution brings the student's to the teacher's.
    """

    least_pairs: ClassVar[int] = 2

    def __call__(self, lesson: Lesson) -> Tensor:
        matched = [
            (features.teacher, project(features.student))
            for features, project in zip(lesson.features, lesson.projections, strict=True)
        ]
        parts = [
            F.mse_loss(_flow(student, next_student), _flow(teacher, next_teacher))
            for (teacher, student), (next_teacher, next_student) in pairwise(matched)
        ]
        return torch.stack(parts).sum()

    def refuses(self, pair: Pair) -> str | None:
        return None if pair.is_map else "fsp relates maps `c h w`; 'fitnets' works on others"

    def projection(self, pair: Pair) -> nn.Module:
        before, after = pair.channels
        return nn.Identity() if before == after else nn.Conv2d(before, after, 1)


def _attention(maps: Tensor) -> Tensor:
    """Maps `n c h w` to unit vectors `n (h w)`."""
    return F.normalize(maps.square().mean(1).flatten(1), dim=1)


def _flow(one: Tensor, two: Tensor) -> Tensor:
    """Maps `n c h w` and `n k h w` to `n c k`, the mean over positions of their products."""
    size = (min(one.shape[2], two.shape[2]), min(one.shape[3], two.shape[3]))
    flat = [F.adaptive_avg_pool2d(maps, size).flatten(2) for maps in (one, two)]
    return flat[0] @ flat[1].transpose(1, 2) / flat[0].shape[2]
