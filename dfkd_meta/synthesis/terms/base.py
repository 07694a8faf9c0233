"""What a loss term is, and what it sees at one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from dfkd_meta.checkpoint import State
from dfkd_meta.precision import Settled
from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.moments import position_moments
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.teachers import channel_axis

T = TypeVar("T")


@dataclass(frozen=True)
class StepState:
    """The inputs, what the teacher (and the student) made of them, and the aim.

    images: float32 `n ...`, model-normalized, before augmentation. view: the same after it, which
    is what the networks saw. logits: the teacher's, float32 `n c`. activations: tap id -> tensor
    `n ...` inside the teacher, in the precision that it computes in. student_logits: the student's,
    float32 `n c`, None unless a term asks. generator: the random stream of the batch. precision:
    what networks compute in.
    """

    images: Tensor
    view: Tensor
    logits: Tensor
    activations: Mapping[str, Tensor]
    targets: Targets
    generator: torch.Generator
    student_logits: Tensor | None = None
    precision: Settled = "float32"
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def activation(self, tap: Tap) -> Tensor:
        """The activation at a tap: float32 `n ...`."""
        key = "activation", *self._tensor(tap)
        return self.once(key, lambda: self.activations[tap.id].float())

    def by_channel(self, tap: Tap) -> Tensor:
        """The activation at a tap with positions: `n p c`, in the precision of the teacher."""
        return self.activations[tap.id].movedim(1 + channel_axis(tap), -1).flatten(1, -2)

    def moments(self, tap: Tap) -> tuple[Tensor, Tensor]:
        """Mean and variance over the positions of a tap: two of float32 `n c`."""

        def both() -> tuple[Tensor, Tensor]:
            mean, square = position_moments(self.by_channel(tap))
            return mean, square - mean.square()

        return self.once(("moments", *self._tensor(tap)), both)

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """What several terms ask for under one ``key`` is worked out for the first of them."""
        if key not in self._known:
            self._known[key] = work()
        found: T = self._known[key]
        return found

    def _tensor(self, tap: Tap) -> tuple[int, int]:
        """What tells the tensor at a tap, and how it is read, from others.

        Two taps may hold the same: a convolution's output, and the input of a BatchNorm behind it.
        """
        return id(self.activations[tap.id]), channel_axis(tap)

    @property
    def student(self) -> Tensor:
        """The student's logits `n c`, for terms that see it."""
        if self.student_logits is None:
            raise ValueError("this term must set sees_student to see the student")
        return self.student_logits


class Term(ABC):
    """A loss term: a scalar to minimize, from one step.

    ``component`` names its column in the component table of the CMI benchmark (adv, bn, oh,
    balance, act, cr; empty for others). A term that ``sees_student`` is left out where there is no
    student, and in the batches of the warm-up. (The batch after those meets an untrained one.)
    """

    component: ClassVar[str] = ""
    sees_student: ClassVar[bool] = False

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The places of the teacher it looks at."""
        return ()

    @abstractmethod
    def __call__(self, state: StepState) -> Tensor:
        """The value of the term."""

    def parameters(self) -> list[nn.Parameter]:
        """What the term itself trains along with the inputs."""
        return []

    def end_batch(self, state: StepState) -> None:
        """Called once per batch with its finished images, without gradient."""
        return None

    def state(self) -> State:
        """What lives longer than one batch."""
        return {}

    def load_state(self, state: State) -> None:
        """Continue from a saved state."""
        return None
