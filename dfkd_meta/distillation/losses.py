"""What a student is trained on: losses over (student logits, teacher logits, labels)."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from dfkd_meta.errors import UsageError
from dfkd_meta.registry import Registry


class Loss(Protocol):
    """student, teacher: logits float32 `n c` (teacher None if there is none); labels int64 `n`."""

    def __call__(
        self, student: Tensor, teacher: Tensor | None, labels: Tensor | None, temperature: float
    ) -> Tensor: ...


losses: Registry[Loss] = Registry("loss", "dfkd_meta.distillation")


@losses.register("kd")
def hinton_kd(
    student: Tensor, teacher: Tensor | None, labels: Tensor | None, temperature: float
) -> Tensor:
    """``T^2 KL(softmax(t / T) || softmax(s / T))``, mean over rows (Hinton et al. 2015, eq. 4).

    The factor T^2 keeps the size of the gradient independent of the temperature.
    """
    if teacher is None:
        raise UsageError("the loss 'kd' needs a teacher")
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


@losses.register("hard")
def hard_labels(
    student: Tensor, teacher: Tensor | None, labels: Tensor | None, temperature: float
) -> Tensor:
    """Cross-entropy with the true class, mean over rows."""
    if labels is None:
        raise UsageError("the loss 'hard' needs labels", hint="use data that has labels")
    return F.cross_entropy(student, labels)
