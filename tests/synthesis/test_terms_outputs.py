"""Terms on outputs, of the teacher and of the student, equal numpy formulas on fixed tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.synthesis.terms.adversarial import (
    AdversarialDivergence,
    AgreementDivergence,
    JensenShannon,
)
from dfkd_meta.synthesis.terms.base import StepState, Term
from dfkd_meta.synthesis.terms.labels import ArgmaxCrossEntropy, SoftCrossEntropy
from dfkd_meta.synthesis.terms.outputs import ActivationNorm, Balance, InstanceEntropy

ROWS, CLASSES = 7, 4
HIDDEN = Tap(id="f:input", module="f", side="input", axes=["f"], shape=[5], linear_in_input=False)
SEES_STUDENT = (AdversarialDivergence(2.0), AgreementDivergence(), JensenShannon())
SEES_TEACHER = (
    ArgmaxCrossEntropy(),
    SoftCrossEntropy(3.0),
    Balance(),
    InstanceEntropy(),
    ActivationNorm(HIDDEN),
)


def state(*, scale: float = 3.0, student: bool = True) -> StepState:
    generator = torch.Generator().manual_seed(5)
    logits = (scale * torch.randn(ROWS, CLASSES, generator=generator)).requires_grad_()
    taught = scale * torch.randn(ROWS, CLASSES, generator=generator)
    hidden = torch.randn(ROWS, 5, generator=generator).requires_grad_()
    soft = torch.rand(ROWS, CLASSES, generator=generator)
    images = torch.zeros(ROWS, 2)
    return StepState(
        images=images,
        view=images,
        logits=logits,
        activations={HIDDEN.id: hidden},
        targets=Targets(torch.arange(ROWS) % CLASSES, soft=soft / soft.sum(1, keepdim=True)),
        generator=generator,
        student_logits=taught.requires_grad_() if student else None,
    )


def softmax(logits: Tensor, temperature: float = 1.0) -> np.ndarray:
    p = np.exp(logits.detach().double().numpy() / temperature)
    return p / p.sum(1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(1)


def test_adversarial_divergence_is_minus_kl_times_the_squared_temperature() -> None:
    given = state()
    for temperature in (1.0, 2.0):
        p, q = softmax(given.logits, temperature), softmax(given.student, temperature)
        found = float(AdversarialDivergence(temperature)(given).detach())
        assert found == pytest.approx(-(temperature**2) * kl(p, q).mean(), rel=1e-5)


def test_agreement_divergence_counts_rows_of_one_opinion() -> None:
    given = state()
    p, q = softmax(given.logits), softmax(given.student)
    same = p.argmax(1) == q.argmax(1)
    assert 0 < same.sum() < ROWS
    expected = -(same * kl(p, q)).sum() / ROWS
    assert float(AgreementDivergence()(given).detach()) == pytest.approx(expected, rel=1e-5)


def test_jensen_shannon_is_one_minus_the_distance_to_the_middle() -> None:
    given = state()
    p, q = softmax(given.logits, 3.0), softmax(given.student, 3.0)
    middle = (p + q) / 2
    expected = 1 - (kl(p, middle) + kl(q, middle)).mean() / 2
    assert float(JensenShannon()(given).detach()) == pytest.approx(expected, rel=1e-5)


def test_jensen_shannon_of_opposite_certainties_is_the_log_of_two_and_finite() -> None:
    given = state()
    sure = torch.zeros(ROWS, CLASSES)
    other = sure.clone()
    sure[:, 0], other[:, 1] = 1e4, 1e4
    far = StepState(given.images, given.view, sure, {}, given.targets, given.generator, other)
    assert float(JensenShannon()(far)) == pytest.approx(1 - np.log(2), rel=1e-5)


def test_argmax_cross_entropy() -> None:
    given = state()
    expected = -np.log(softmax(given.logits).max(1)).mean()
    assert float(ArgmaxCrossEntropy()(given).detach()) == pytest.approx(expected, rel=1e-5)


def test_soft_cross_entropy_at_a_temperature() -> None:
    given = state()
    assert given.targets.soft is not None
    expected = -(given.targets.soft.numpy() * np.log(softmax(given.logits, 20.0))).sum(1).mean()
    assert float(SoftCrossEntropy(20.0)(given).detach()) == pytest.approx(expected, rel=1e-5)


def test_balance_is_minus_the_entropy_of_the_mean_prediction() -> None:
    given = state()
    q = softmax(given.logits).mean(0)
    assert float(Balance()(given).detach()) == pytest.approx((q * np.log(q)).sum(), rel=1e-5)


def test_balance_is_finite_when_a_class_has_no_chance_at_all() -> None:
    given = state()
    sure = torch.zeros(ROWS, CLASSES)
    sure[:, 0] = 1e5
    sure.requires_grad_()
    one = StepState(given.images, given.view, sure, {}, given.targets, given.generator)
    value = Balance()(one)
    (gradient,) = torch.autograd.grad(value, sure)
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(gradient).all()


def test_instance_entropy() -> None:
    given = state()
    p = softmax(given.logits)
    expected = -(p * np.log(p)).sum(1).mean()
    assert float(InstanceEntropy()(given).detach()) == pytest.approx(expected, rel=1e-5)


def test_activation_norm_is_minus_the_mean_size() -> None:
    given = state()
    expected = -np.abs(given.activations[HIDDEN.id].detach().numpy()).mean()
    assert float(ActivationNorm(HIDDEN)(given).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("term", [*SEES_STUDENT, *SEES_TEACHER], ids=lambda t: type(t).__name__)
def test_gradients_reach_what_a_term_looks_at(term: Term) -> None:
    given = state()
    sources = [given.activations[HIDDEN.id]] if term.taps else [given.logits]
    sources += [given.student] if term.sees_student else []
    for gradient in torch.autograd.grad(term(given), sources):
        assert torch.isfinite(gradient).all()
        assert gradient.any()


@pytest.mark.parametrize("term", SEES_STUDENT, ids=lambda t: type(t).__name__)
def test_terms_that_need_a_student_say_so(term: Term) -> None:
    with pytest.raises(ValueError, match="sees_student"):
        term(state(student=False))
