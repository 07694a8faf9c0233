"""Terms that look for inputs on which the student does not follow its teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_meta.synthesis.terms.base import StepState, Term


def divergences(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(softmax(t / T) || softmax(s / T))`` of each row: logits `n c` -> `n` (nats)."""
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    log_student = F.log_softmax(student / temperature, dim=1)
    rows = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)
    return rows * temperature**2


@dataclass(frozen=True)
class AdversarialDivergence(Term):
    """``-mean_n T^2 KL(p_T || p_S)``: inputs on which the student is furthest from the teacher.

    ZSKT (Micaelli & Storkey 2019, eq. 1) and DFQ (Choi et al. 2020), at ``temperature`` T = 1. The
    mean is over inputs; ZSKT's code divides by the number of classes besides.
    """

    component: ClassVar[str] = "adv"
    sees_student: ClassVar[bool] = True
    temperature: float = 1.0

    def __call__(self, state: StepState) -> Tensor:
        return -divergences(state.logits, state.student, self.temperature).mean()


@dataclass(frozen=True)
class AgreementDivergence(Term):
    """``-mean_n 1[argmax S = argmax T] KL(p_T || p_S)``: the decision adversarial discrepancy.

    Inputs that both put into one class, with as different probabilities as possible: they lie
    between the two decision boundaries (CMI, Fang et al. 2021, eq. 8). The mean counts the inputs
    that they disagree on as 0, as the published code does.
    """

    component: ClassVar[str] = "adv"
    sees_student: ClassVar[bool] = True
    temperature: float = 1.0

    def __call__(self, state: StepState) -> Tensor:
        same = (state.student.argmax(1) == state.logits.argmax(1)).float()
        return -(same * divergences(state.logits, state.student, self.temperature)).mean()


@dataclass(frozen=True)
class JensenShannon(Term):
    """``1 - clamp(JS(p_T, p_S), 0, 1)`` at temperature T: the competition term of ADI.

    ``JS = (KL(p_T || m) + KL(p_S || m)) / 2`` with m their mean (Yin et al. 2020, eq. 7-8), mean
    over inputs; at most ln 2. The published code clamps the probabilities to [0.01, 0.99] and takes
    ``KL(m || p)`` instead; here the paper's formula is followed, in log space, without clamping.
    """

    component: ClassVar[str] = "adv"
    sees_student: ClassVar[bool] = True
    temperature: float = 3.0

    def __call__(self, state: StepState) -> Tensor:
        log_teacher = F.log_softmax(state.logits / self.temperature, dim=1)
        log_student = F.log_softmax(state.student / self.temperature, dim=1)
        log_middle = torch.logaddexp(log_teacher, log_student) - math.log(2)
        parts = [
            F.kl_div(log_middle, log_p, reduction="none", log_target=True).sum(1).mean()
            for log_p in (log_teacher, log_student)
        ]
        return 1 - (0.5 * (parts[0] + parts[1])).clamp(0, 1)
