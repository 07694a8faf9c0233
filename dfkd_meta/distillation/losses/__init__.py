"""What a student is trained on: losses by name, each a small class over one ``Lesson``.

A training names its losses with weights, ``losses = {kd = 0.7, hard = 0.3}``, and their options in
a table of their own, ``loss_options = {dkd = {beta = 2.0}}``. The usual forms are written so:

* Hinton's alpha form, ``alpha T^2 KL + (1 - alpha) CE``: ``{kd = alpha, hard = 1 - alpha}``;
* the lambda form, ``CE(softened teacher, softened student) + lambda CE(labels, student)``:
  ``{soft_labels = 1, hard = lambda}``;
* label-free: leave out ``hard``; every other loss does without labels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from dfkd_meta.config import Config
from dfkd_meta.distillation.pairs import Pair
from dfkd_meta.errors import UsageError
from dfkd_meta.registry import Registry


@dataclass(frozen=True)
class Features:
    """What teacher and student made of one batch at a matched pair of places, both `n ...`."""

    teacher: Tensor
    student: Tensor


@dataclass(frozen=True)
class Lesson:
    """One batch as a loss sees it.

    student, teacher: logits float32 `n c` (teacher None when nobody teaches). labels: int64 `n`,
    or class probabilities float32 `n c` when the batch is blended, None when unknown. features:
    those of the pairs this loss uses, in the teacher's order; projections: its own learned modules,
    one for each of them.
    """

    student: Tensor
    teacher: Tensor | None = None
    labels: Tensor | None = None
    temperature: float = 1.0
    features: Sequence[Features] = ()
    projections: Sequence[nn.Module] = ()

    @property
    def answers(self) -> Tensor:
        """The teacher's logits. Raises UsageError when nobody teaches."""
        if self.teacher is None:
            raise UsageError("this loss needs a teacher", hint="without one, use the loss 'hard'")
        return self.teacher

    @property
    def truth(self) -> Tensor:
        """The labels. Raises UsageError when there are none."""
        if self.labels is None:
            raise UsageError(
                "this loss needs labels, and these inputs have none",
                hint="use data that has labels, or a loss that needs a teacher only, such as 'kd'",
            )
        return self.labels


class Loss(Config):
    """One part of what a student is trained on: a scalar from a lesson; its fields are its options.

    A loss on features says how many pairs it needs at least and which it cannot use, and may learn
    a projection for each, trained along with the student.
    """

    needs_teacher: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    least_pairs: ClassVar[int] = 0  # of matched layers; 0 for a loss on logits

    @abstractmethod
    def __call__(self, lesson: Lesson) -> Tensor: ...

    def refuses(self, pair: Pair) -> str | None:
        """Why this pair of places is of no use here, None when it is."""
        return None

    def projection(self, pair: Pair) -> nn.Module:
        """A fresh module from the student's features of a pair to the shape of the teacher's."""
        return nn.Identity()


losses: Registry[type[Loss]] = Registry("loss", "dfkd_meta.distillation.losses")
