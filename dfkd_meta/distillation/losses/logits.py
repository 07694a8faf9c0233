"""Losses on logits. Formulas name the teacher's logits t, the student's s, the temperature T."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dfkd_meta.distillation.losses import Lesson, Loss, losses


@losses.register("kd")
class HintonKD(Loss):
    """Hinton et al. 2015, sec. 2: ``T^2 KL(softmax(t / T) || softmax(s / T))``, mean over rows.

    The factor T^2 keeps the size of the gradient independent of the temperature.
    """

    def __call__(self, lesson: Lesson) -> Tensor:
        teacher, student = _log_probabilities(lesson)
        return _divergence(teacher, student) * lesson.temperature**2


@losses.register("hard")
class HardLabels(Loss):
    """The labels: cross-entropy of the student at T = 1 with them, mean over rows."""

    needs_teacher: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    def __call__(self, lesson: Lesson) -> Tensor:
        return F.cross_entropy(lesson.student, lesson.truth)


@losses.register("soft_labels")
class SoftLabels(Loss):
    """Cross-entropy with softened answers, ``-sum softmax(t / T) log softmax(s / T)``, without T^2.

    Its gradient is that of ``kd`` divided by T^2.
    """

    def __call__(self, lesson: Lesson) -> Tensor:
        temperature = lesson.temperature
        target = torch.softmax(lesson.answers / temperature, dim=1)
        return F.cross_entropy(lesson.student / temperature, target)


@losses.register("mse")
class LogitsMSE(Loss):
    """Ba & Caruana 2014: ``(t - s)^2``, mean over rows and classes, at no temperature.

    Twice the limit of ``kd`` at high temperature, for logits with zero mean.
    """

    def __call__(self, lesson: Lesson) -> Tensor:
        return F.mse_loss(lesson.student, lesson.answers)


@losses.register("dkd")
class DecoupledKD(Loss):
    """Decoupled KD, Zhao et al. 2022: ``T^2 (alpha KL(b_t || b_s) + beta KL(o_t || o_s))``.

    b is (p, 1 - p) of the target class, o the distribution over the other classes. The target is
    the label, the larger share of a blended label, or without labels the teacher's own class.
    """

    alpha: float = Field(1.0, ge=0)
    beta: float = Field(8.0, ge=0)

    def __call__(self, lesson: Lesson) -> Tensor:
        target = lesson.answers if lesson.labels is None else lesson.labels
        if target.dim() == 2:
            target = target.argmax(1)
        (teacher, others_teacher), (student, others_student) = (
            _decouple(logs, target) for logs in _log_probabilities(lesson)
        )
        about_target = _divergence(teacher, student)
        about_others = _divergence(others_teacher, others_student)
        return lesson.temperature**2 * (self.alpha * about_target + self.beta * about_others)


@losses.register("dist")
class Dist(Loss):
    """DIST, Huang et al. 2022: ``beta (1 - r over rows) + gamma (1 - r over columns)``.

    r is Pearson's correlation, averaged, between softmax(t / T) and softmax(s / T): of each sample
    over the classes, and of each class over the batch. It does not shrink with T, so there is no
    T^2.
    """

    beta: float = Field(1.0, ge=0)
    gamma: float = Field(1.0, ge=0)

    def __call__(self, lesson: Lesson) -> Tensor:
        teacher, student = (logs.exp() for logs in _log_probabilities(lesson))
        between = 1 - _pearson(teacher, student, dim=1)
        within = 1 - _pearson(teacher, student, dim=0)
        return self.beta * between + self.gamma * within


def _log_probabilities(lesson: Lesson) -> tuple[Tensor, Tensor]:
    """log softmax(t / T) and log softmax(s / T), both `n c`."""
    teacher, student = lesson.answers, lesson.student
    return (
        F.log_softmax(teacher / lesson.temperature, dim=1),
        F.log_softmax(student / lesson.temperature, dim=1),
    )


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) of log probabilities `n c`, mean over rows."""
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _decouple(logs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities `n 2` of target or not, and `n c-1` among the others."""
    place = torch.arange(logs.shape[1] - 1, device=logs.device)
    others = logs.gather(1, place + (place >= target[:, None]))
    rest = others.logsumexp(1, keepdim=True)
    return torch.cat([logs.gather(1, target[:, None]), rest], dim=1), others - rest


def _pearson(a: Tensor, b: Tensor, *, dim: int) -> Tensor:
    """Pearson's correlation along ``dim``, mean over the other axis."""
    one, two = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
    return F.cosine_similarity(one, two, dim=dim).mean()
