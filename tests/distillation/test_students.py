"""Students by name: built in, a fraction of the teacher's width, or the caller's own code."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.distillation.students import build_student
from dfkd_meta.errors import TeacherError, UsageError
from dfkd_meta.teachers import Teacher
from tests.distillation.nets import CLASSES, SHAPE, a_teacher, built, weights_of

HERE = "tests.distillation.test_students"


def linear(num_classes: int, shape: list[int], width: float = 1.0) -> nn.Module:
    hidden = round(16 * width)
    features = shape[0] * shape[1] * shape[2]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )  # fmt: skip


class Scaled(nn.Sequential):
    """Divides its inputs by what it keeps in a buffer."""

    def __init__(self, num_classes: int, shape: list[int], width: float = 1.0) -> None:
        super().__init__(*linear(num_classes, shape, width))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / self.get_buffer("scale"))


def without_shape(num_classes: int = 1_000, **options: Any) -> nn.Module:
    return linear(num_classes, SHAPE, **options)


def one_class_too_many(num_classes: int, shape: list[int]) -> nn.Module:
    return linear(num_classes + 1, shape)


class Auxiliary(nn.Module):
    """Answers with a pair while it trains, as networks with auxiliary heads do."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = linear(num_classes, SHAPE)

    def forward(self, x: Tensor) -> Any:
        logits = self.net(x)
        return (logits, logits) if self.training else logits


def with_auxiliary_head(num_classes: int) -> nn.Module:
    return Auxiliary(num_classes)


def frozen(num_classes: int) -> nn.Module:
    return linear(num_classes, SHAPE).requires_grad_(False)


def no_module(num_classes: int) -> str:
    return f"{num_classes} classes"


def own(factory: str, **arguments: Any) -> Teacher:
    """A teacher that the caller's own code has built."""
    return dataclasses.replace(
        a_teacher(built("hinton800"), "local"), factory=f"{HERE}:{factory}", arguments=arguments
    )


def test_students_by_name_and_by_width() -> None:
    teacher = a_teacher("hinton800")
    assert build_student("half", teacher, seed=0).arguments["width"] == 0.25
    assert build_student("0.1", teacher, seed=0).arguments["width"] == pytest.approx(0.05)
    assert build_student("same", teacher, seed=0).arguments["width"] == 0.5
    assert build_student("digits_cnn", teacher, seed=0).arguments["num_classes"] == 3
    narrow = build_student("digits_cnn", teacher, seed=0, arguments={"width": 0.25})
    assert narrow.source == "builtin"
    assert torch.equal(weights_of(narrow.module), weights_of(built("digits_cnn")))


def test_names_that_nobody_knows() -> None:
    teacher = a_teacher("hinton800")
    with pytest.raises(UsageError, match="lies in"):
        build_student("1.5", teacher, seed=0)
    with pytest.raises(UsageError, match="no architecture named 'lenet'"):
        build_student("lenet", teacher, seed=0)
    with pytest.raises(UsageError, match="importing 'nowhere' failed"):
        build_student("nowhere:net", teacher, seed=0)


@pytest.mark.parametrize("name", ["linear", "without_shape"])
def test_the_callers_own_student(name: str) -> None:
    before = torch.get_rng_state()
    student = build_student(f"{HERE}:{name}", a_teacher(), seed=3, arguments={"width": 0.5})
    again = build_student(f"{HERE}:{name}", a_teacher(), seed=3, arguments={"width": 0.5})
    assert (student.source, student.architecture) == ("local", f"{HERE}:{name}")
    assert student.arguments["num_classes"] == CLASSES
    assert ("shape" in student.arguments) == (name == "linear")
    assert torch.equal(weights_of(student.module), weights_of(again.module))
    assert student.module.training
    assert int(student.module.get_buffer("2.num_batches_tracked")) == 0  # the trial left no trace
    assert torch.equal(before, torch.get_rng_state())


def test_a_fraction_of_the_callers_own_teacher() -> None:
    half = build_student("half", own("linear", num_classes=3, shape=SHAPE, width=2.0), seed=0)
    assert (half.source, half.architecture) == ("local", f"{HERE}:linear")
    assert half.arguments == {"num_classes": 3, "shape": SHAPE, "width": 1.0}
    same = build_student("same", own("one_class_too_many", num_classes=2, shape=SHAPE), seed=0)
    assert same.arguments == {"num_classes": 2, "shape": SHAPE}


def test_a_fraction_keeps_the_teachers_constants_and_no_more() -> None:
    teacher = own("Scaled", num_classes=CLASSES, shape=SHAPE)
    teacher = dataclasses.replace(teacher, module=Scaled(CLASSES, SHAPE))
    scale, mean = (teacher.module.get_buffer(name) for name in ("scale", "2.running_mean"))
    scale.fill_(7)
    mean.fill_(3)
    same = build_student("same", teacher, seed=0).module
    assert torch.equal(same.get_buffer("scale"), scale)
    assert not same.get_buffer("2.running_mean").any()
    half = build_student("half", teacher, seed=0).module
    assert torch.equal(half.get_buffer("scale"), scale)
    named = build_student(f"{HERE}:Scaled", teacher, seed=0).module
    assert torch.equal(named.get_buffer("scale"), torch.ones(SHAPE))


def test_a_width_that_the_teacher_does_not_have() -> None:
    with pytest.raises(UsageError, match="takes no argument 'width'") as caught:
        build_student("half", own("one_class_too_many", num_classes=2, shape=SHAPE), seed=0)
    assert "module:function" in str(caught.value.hint)
    with pytest.raises(UsageError, match="of another library"):
        build_student("half", a_teacher(built("hinton800"), "timm"), seed=0)


def test_own_students_that_do_not_fit() -> None:
    with pytest.raises(TeacherError, match="returns 4 logits, the teacher has 3 classes"):
        build_student(f"{HERE}:one_class_too_many", a_teacher(), seed=0)
    with pytest.raises(TeacherError, match="returned str, not"):
        build_student(f"{HERE}:no_module", a_teacher(), seed=0)
    with pytest.raises(UsageError, match=r"calling .* failed: TypeError"):
        build_student(f"{HERE}:linear", a_teacher(), seed=0, arguments={"depth": 3})


def test_own_students_that_could_not_be_trained() -> None:
    teacher = a_teacher("hinton800")
    with pytest.raises(TeacherError, match="must return logits") as caught:
        build_student(f"{HERE}:with_auxiliary_head", teacher, seed=0)
    assert "as a student in training mode" in str(caught.value.where)
    with pytest.raises(TeacherError, match="no weights that can be trained"):
        build_student(f"{HERE}:frozen", teacher, seed=0)


def test_the_trial_of_an_own_student_leaves_no_trace() -> None:
    module = build_student(f"{HERE}:linear", a_teacher("hinton800"), seed=0).module
    assert module.training
    norm = module.get_submodule("2")
    assert isinstance(norm, nn.BatchNorm1d)
    assert int(norm.num_batches_tracked or 0) == 0
    assert not norm.running_mean.any()  # type: ignore[union-attr]
