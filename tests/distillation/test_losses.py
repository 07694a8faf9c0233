"""Every loss equals a formula written out again in numpy, in loops, on fixed tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from dfkd_meta.distillation.losses import Features, Lesson, losses
from dfkd_meta.errors import UsageError

Array = NDArray[np.float64]
T = 3.0
GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(2, 6, 4, generator=GENERATOR, dtype=torch.float64) * 2
LABELS = torch.tensor([0, 3, 1, 2, 0, 1])
SHARES = torch.softmax(torch.randn(6, 4, generator=GENERATOR, dtype=torch.float64), 1)


def value(name: str, lesson: Lesson, **options: float) -> float:
    return float(losses.get(name)(**options)(lesson).detach())


def lesson(labels: Tensor | None = LABELS) -> Lesson:
    return Lesson(STUDENT, TEACHER, labels, T)


def softmax(row: Array) -> Array:
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def rows(temperature: float = T) -> list[tuple[Array, Array]]:
    """Softened (teacher, student) probabilities of each sample."""
    return [
        (softmax(t / temperature), softmax(s / temperature))
        for t, s in zip(TEACHER.numpy(), STUDENT.numpy(), strict=True)
    ]


def kl(p: Array, q: Array) -> float:
    return float(sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)))


def pearson(a: Array, b: Array) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def hinton() -> float:
    return T**2 * float(np.mean([kl(p, q) for p, q in rows()]))


def hard() -> float:
    probabilities = [q for _, q in rows(1.0)]
    pairs = zip(probabilities, LABELS, strict=True)
    return float(np.mean([-math.log(q[int(label)]) for q, label in pairs]))


def soft() -> float:
    return float(np.mean([-(p * np.log(q)).sum() for p, q in rows()]))


def decoupled(target: Array, alpha: float = 1.0, beta: float = 8.0) -> float:
    total = 0.0
    for (p, q), k in zip(rows(), target, strict=True):
        others_p, others_q = np.delete(p, k), np.delete(q, k)
        binary = kl(np.array([p[k], 1 - p[k]]), np.array([q[k], 1 - q[k]]))
        total += alpha * binary
        total += beta * kl(others_p / others_p.sum(), others_q / others_q.sum())
    return T**2 * total / len(target)


def dist(beta: float = 1.0, gamma: float = 1.0) -> float:
    p, q = (np.array(part) for part in zip(*rows(), strict=True))
    between = np.mean([1 - pearson(p[i], q[i]) for i in range(6)])
    within = np.mean([1 - pearson(p[:, j], q[:, j]) for j in range(4)])
    return float(beta * between + gamma * within)


@pytest.mark.parametrize(
    ("name", "expected", "options"),
    [
        ("kd", hinton, {}),
        ("hard", hard, {}),
        ("soft_labels", soft, {}),
        ("mse", lambda: float(((STUDENT - TEACHER).numpy() ** 2).mean()), {}),
        ("dkd", lambda: decoupled(LABELS.numpy()), {}),
        ("dkd", lambda: decoupled(LABELS.numpy(), 0.5, 2.0), {"alpha": 0.5, "beta": 2.0}),
        ("dist", dist, {}),
        ("dist", lambda: dist(2.0, 0.3), {"beta": 2.0, "gamma": 0.3}),
    ],
)
def test_a_loss_on_logits_equals_its_formula(
    name: str, expected: Callable[[], float], options: dict[str, float]
) -> None:
    assert value(name, lesson(), **options) == pytest.approx(expected(), rel=1e-9)


@pytest.mark.parametrize("name", ["kd", "mse", "dkd", "dist"])
def test_a_student_that_equals_its_teacher_costs_nothing(name: str) -> None:
    same = Lesson(TEACHER, TEACHER, LABELS, T)
    assert value(name, same) == pytest.approx(0, abs=1e-12)


def test_decoupled_kd_at_its_own_weights_is_kd() -> None:
    """KL(p || q) = KL(b_p || b_q) + (1 - p_target) KL(others), so one class alone shows it."""
    one = Lesson(STUDENT[:1], TEACHER[:1], LABELS[:1], T)
    rest = 1 - float(softmax(TEACHER[0].numpy() / T)[LABELS[0]])
    assert value("dkd", one, alpha=1.0, beta=rest) == pytest.approx(value("kd", one), rel=1e-9)


def test_decoupled_kd_without_labels_takes_the_teachers_class() -> None:
    guessed = TEACHER.argmax(1)
    assert value("dkd", lesson(None)) == pytest.approx(decoupled(guessed.numpy()), rel=1e-9)
    larger = SHARES.argmax(1).numpy()
    assert value("dkd", lesson(SHARES)) == pytest.approx(decoupled(larger), rel=1e-9)


def test_two_classes_leave_decoupled_kd_its_first_part() -> None:
    two = Lesson(STUDENT[:, :2], TEACHER[:, :2], LABELS % 2, T)
    assert value("dkd", two, beta=5.0) == pytest.approx(value("kd", two), rel=1e-9)


def test_hard_labels_that_are_blended_weigh_both_classes() -> None:
    """Mixup: w CE(y_i) + (1 - w) CE(y_j)."""
    one, other = nn.functional.one_hot(LABELS, 4).double(), torch.eye(4).double()[LABELS.flip(0)]
    blended = value("hard", lesson(0.3 * one + 0.7 * other))
    parts = value("hard", lesson(LABELS)), value("hard", lesson(LABELS.flip(0)))
    assert blended == pytest.approx(0.3 * parts[0] + 0.7 * parts[1], rel=1e-9)


def test_the_notebooks_two_forms() -> None:
    """alpha: a T^2 KL + (1 - a) CE; lambda: CE(soft, soft) + l CE(hard)."""
    alpha = 0.7 * value("kd", lesson()) + 0.3 * value("hard", lesson())
    assert alpha == pytest.approx(0.7 * hinton() + 0.3 * hard(), rel=1e-9)
    form = value("soft_labels", lesson()) + 0.07 * value("hard", lesson())
    assert form == pytest.approx(0.07 * hard() + soft(), rel=1e-9)


def test_the_temperature_factor_is_the_one_between_kd_and_soft_labels() -> None:
    """Their gradients differ by T^2."""
    gradients = []
    for name in ("kd", "soft_labels"):
        student = STUDENT.clone().requires_grad_()
        losses.get(name)()(Lesson(student, TEACHER, None, T)).backward()
        assert student.grad is not None
        gradients.append(student.grad)
    assert torch.allclose(gradients[0], T**2 * gradients[1])


def test_kd_at_high_temperature_is_half_the_squared_error_of_centered_logits() -> None:
    student, teacher = (x - x.mean(1, keepdim=True) for x in (STUDENT, TEACHER))
    hot = value("kd", Lesson(student, teacher, temperature=1e4))
    assert hot == pytest.approx(value("mse", Lesson(student, teacher)) / 2, rel=1e-3)


# -- losses on features --------------------------------------------------------------------------

LARGE, SMALL = (6, 6), (3, 2)


def maps(channels: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(2, channels, *size, generator=GENERATOR, dtype=torch.float64)


FEATURES = [Features(maps(5, LARGE), maps(4, LARGE)), Features(maps(3, SMALL), maps(3, SMALL))]


def test_fitnets_equals_its_formula() -> None:
    wide, narrow = torch.rand(5, 4).double(), torch.rand(3, 3).double()
    projections = []
    for weight in (wide, narrow):
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1).double()
        layer.weight.data = weight[:, :, None, None].clone()
        layer.bias.data[:] = 0.5  # type: ignore[union-attr]
        projections.append(layer)
    expected = 0.0
    for features, weight in zip(FEATURES, (wide, narrow), strict=True):
        mapped = np.einsum("kc,nchw->nkhw", weight.numpy(), features.student.numpy()) + 0.5
        expected += float(((features.teacher.numpy() - mapped) ** 2).mean())
    given = Lesson(STUDENT, TEACHER, features=FEATURES, projections=projections)
    assert value("fitnets", given) == pytest.approx(expected, rel=1e-9)


def test_attention_equals_its_formula() -> None:
    expected = 0.0
    for features in FEATURES:
        gaps = []
        for teacher, student in zip(
            features.teacher.numpy(), features.student.numpy(), strict=True
        ):
            one, two = (teacher**2).mean(0).ravel(), (student**2).mean(0).ravel()
            gaps.append((one / np.linalg.norm(one) - two / np.linalg.norm(two)) ** 2)
        expected += float(np.mean(gaps))
    assert value("attention", Lesson(STUDENT, TEACHER, features=FEATURES)) == pytest.approx(
        expected, rel=1e-9
    )


def pooled(large: Array, rows: int, columns: int) -> Array:
    """Means over equal blocks: `c h w` to `c rows columns`."""
    channels, height, width = large.shape
    blocks = large.reshape(channels, rows, height // rows, columns, width // columns)
    return np.asarray(blocks.mean((2, 4)))


def flow(one: Array, two: Array) -> Array:
    height, width = two.shape[1:]
    small = pooled(one, height, width)
    gram = np.zeros((len(small), len(two)))
    for y in range(height):
        for x in range(width):
            gram += np.outer(small[:, y, x], two[:, y, x])
    return gram / (height * width)


def test_fsp_equals_its_formula() -> None:
    weight = torch.rand(5, 4).double()
    project = nn.Conv2d(4, 5, 1, bias=False).double()
    project.weight.data = weight[:, :, None, None].clone()
    gaps = []
    for i in range(2):
        mapped = np.einsum("kc,chw->khw", weight.numpy(), FEATURES[0].student[i].numpy())
        student = flow(mapped, FEATURES[1].student[i].numpy())
        teacher = flow(FEATURES[0].teacher[i].numpy(), FEATURES[1].teacher[i].numpy())
        gaps.append((teacher - student) ** 2)
    given = Lesson(STUDENT, TEACHER, features=FEATURES, projections=[project, nn.Identity()])
    assert value("fsp", given) == pytest.approx(float(np.mean(gaps)), rel=1e-9)


# -- what they lack ------------------------------------------------------------------------------


def of_logits(need: str) -> list[str]:
    """The losses that look at logits, not at layers, and have this need."""
    entries = {name: losses.get(name) for name in losses.names()}
    return [name for name, e in entries.items() if getattr(e, need) and not e.least_pairs]


@pytest.mark.parametrize("name", of_logits("needs_teacher"))
def test_losses_say_that_they_lack_a_teacher(name: str) -> None:
    with pytest.raises(UsageError, match="needs a teacher"):
        losses.get(name)()(Lesson(STUDENT, None, LABELS))


@pytest.mark.parametrize("name", of_logits("needs_labels"))
def test_losses_say_that_they_lack_labels(name: str) -> None:
    with pytest.raises(UsageError, match="needs labels"):
        losses.get(name)()(Lesson(STUDENT, TEACHER, None))


@pytest.mark.parametrize("name", losses.names())
def test_every_loss_has_a_line_for_the_list_and_refuses_unknown_options(name: str) -> None:
    entry = losses.get(name)
    assert len((entry.__doc__ or "").split("\n")[0]) > 20
    with pytest.raises(ValidationError, match="nonsense"):
        entry(nonsense=1)  # type: ignore[call-arg]
