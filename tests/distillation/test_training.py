"""The training loop and its losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dfkd_meta.batches import SyntheticBatch, shuffled
from dfkd_meta.distillation.losses import hard_labels, hinton_kd
from dfkd_meta.distillation.students import build_student
from dfkd_meta.distillation.training import TrainingConfig, fit
from dfkd_meta.errors import MethodError, UsageError
from dfkd_meta.sidecar import InputSpec, OutputSpec
from dfkd_meta.teachers import Teacher, build_model


def a_teacher(source: str = "builtin") -> Teacher:
    arguments = {"num_classes": 3, "shape": [1, 8, 8], "width": 0.5}
    module = build_model("hinton800", arguments, seed=0).eval().requires_grad_(False)
    inputs = InputSpec(
        shape=[1, 8, 8], axes=["c", "h", "w"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0]
    )
    return Teacher(module, source, "hinton800", dict(arguments), inputs, OutputSpec(num_classes=3))


def pool(rows: int = 40) -> SyntheticBatch:
    generator = torch.Generator().manual_seed(3)
    return SyntheticBatch(torch.rand(rows, 1, 8, 8, generator=generator), torch.arange(rows) % 3)


def trained(config: TrainingConfig, seed: int = 0) -> torch.Tensor:
    teacher = a_teacher()
    student = build_student("half", teacher, seed=seed).module
    generator = torch.Generator().manual_seed(seed)
    stream = shuffled(pool(), batch_size=config.batch_size, generator=generator)
    fit(student, stream, config, generator, teacher=teacher if config.loss == "kd" else None)
    return torch.cat([parameter.flatten() for parameter in student.parameters()])


def test_hinton_kd_equals_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 4, generator=generator).double()
    temperature = 3.0
    p = np.exp(teacher.numpy() / temperature)
    p /= p.sum(1, keepdims=True)
    q = np.exp(student.numpy() / temperature)
    q /= q.sum(1, keepdims=True)
    expected = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    assert float(hinton_kd(student, teacher, None, temperature)) == pytest.approx(
        expected, rel=1e-9
    )
    assert float(hinton_kd(student, student, None, temperature)) == pytest.approx(0, abs=1e-12)


def test_hard_labels_on_even_logits_cost_log_of_the_classes() -> None:
    loss = hard_labels(torch.zeros(2, 7), None, torch.tensor([1, 5]), 1.0)
    assert float(loss) == pytest.approx(math.log(7))


def test_losses_say_what_they_lack() -> None:
    with pytest.raises(UsageError, match="needs a teacher"):
        hinton_kd(torch.zeros(1, 2), None, None, 1.0)
    with pytest.raises(UsageError, match="needs labels"):
        hard_labels(torch.zeros(1, 2), None, None, 1.0)


@pytest.mark.parametrize("loss", ["kd", "hard"])
def test_one_seed_gives_one_student_bit_for_bit(loss: str) -> None:
    config = TrainingConfig(loss=loss, steps=5, batch_size=8)
    assert torch.equal(trained(config), trained(config))
    assert not torch.equal(trained(config), trained(config, seed=1))


def test_global_randomness_is_neither_used_nor_disturbed() -> None:
    torch.manual_seed(1)
    first = trained(TrainingConfig(steps=3, batch_size=8))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = trained(TrainingConfig(steps=3, batch_size=8))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_the_student_ends_in_evaluation_mode_without_dropout() -> None:
    teacher = a_teacher()
    student = build_student("half", teacher, seed=0).module
    generator = torch.Generator()
    stream = shuffled(pool(), batch_size=8, generator=generator)
    config = TrainingConfig(steps=1, batch_size=8)
    assert not fit(student, stream, config, generator, teacher=teacher).training


def test_a_loss_that_explodes_is_an_error() -> None:
    with pytest.raises(MethodError, match="training loss became"):
        trained(TrainingConfig(steps=20, batch_size=8, learning_rate=1e30))


def test_students_by_name_and_by_width() -> None:
    teacher = a_teacher()
    assert build_student("half", teacher, seed=0).arguments["width"] == 0.25
    assert build_student("0.1", teacher, seed=0).arguments["width"] == pytest.approx(0.05)
    assert build_student("digits_cnn", teacher, seed=0).arguments["num_classes"] == 3
    with pytest.raises(UsageError, match="lies in"):
        build_student("1.5", teacher, seed=0)
    with pytest.raises(UsageError, match="no architecture named 'lenet'"):
        build_student("lenet", teacher, seed=0)
    with pytest.raises(UsageError, match="not built in"):
        build_student("half", a_teacher("local"), seed=0)
