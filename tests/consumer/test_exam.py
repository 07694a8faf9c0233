"""Agreement on inputs that the student has not learned from, as a run goes on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.consumer.exam import LOOKS, MOST, Exam
from dfkd_meta.sidecar import InputSpec, OutputSpec
from dfkd_meta.teachers import Teacher

SPEC = InputSpec(shape=[3], axes=["f"], value_range=[-9, 9], mean=[0], std=[1])


def exam(steps: int = 100, student: nn.Module | None = None) -> Exam:
    teacher = Teacher(nn.Identity(), "local", "x", {}, SPEC, OutputSpec(num_classes=3))
    return Exam(teacher, student or nn.Linear(3, 3), steps)


def batch(n: int) -> SyntheticBatch:
    return SyntheticBatch(torch.arange(3.0 * n).reshape(n, 3), torch.arange(n) % 3)


@pytest.mark.parametrize(("images", "held"), [(100, 5), (19, 0), (10_000, 50), (10**6, 50)])
def test_some_inputs_of_the_first_batch_are_held_out(images: int, held: int) -> None:
    one, first = exam(), batch(100)
    rest = one.hold_out(first, images)
    kept = [] if one.held_out is None else one.held_out.images.tolist()
    assert len(kept) == held
    assert sorted([*rest.images.tolist(), *kept]) == first.images.tolist()
    assert held <= MOST
    second = batch(100)
    assert one.hold_out(second, images) is second


def test_it_looks_ten_times_and_at_the_end() -> None:
    for steps in (1, 7, 10, 95, 1_000):
        one = exam(steps)
        moments = [step for step in range(1, steps + 1) if one.due(step)]
        assert moments[-1] == steps
        assert len(moments) <= LOOKS + 1


def test_the_verdict_is_the_share_of_equal_answers() -> None:
    class Off(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(torch.arange(len(x))[:, None] < 1, -x, x)

    one = exam(student=Off(3, 3))
    assert "75.0 % of 4 new inputs" in one.judge(batch(4).images, 10)
    assert one.verdict is not None
    assert one.verdict.share == 0.75
    assert one.verdict.usual == 1
    assert "(100.0% of which are of one class to the teacher)" in one.verdict.text


def test_agreement_on_many_classes_is_said_without_more() -> None:
    one = exam()
    images = torch.eye(3).repeat(4, 1)
    assert one.judge(images, 10).endswith("of 12 new inputs")
    assert one.verdict is not None
    assert one.verdict.usual == pytest.approx(1 / 3)
    assert one.verdict.text.endswith("after 10 steps")


def test_its_state_goes_with_the_run() -> None:
    one, other = exam(), exam()
    one.hold_out(batch(100), 200)
    one.judge(batch(4).images, 10)
    one.wanted = True
    other.load_state(one.state())
    assert (other.wanted, other.verdict) == (True, one.verdict)
    assert one.held_out is not None
    assert other.held_out is not None
    assert torch.equal(one.held_out.images, other.held_out.images)
