"""What a source of inputs is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from dfkd_meta.checkpoint import State
from dfkd_meta.synthesis.targets import Targets


class Source(ABC):
    """Renders a batch of inputs from parameters that ``optimizer`` moves.

    The engine calls ``begin``, then ``images`` and a step of ``optimizer`` with ``after_step`` as
    often as the recipe says, then ``end``.
    """

    kind: ClassVar[str]
    optimizer: torch.optim.Optimizer

    @abstractmethod
    def begin(self, targets: Targets, generator: torch.Generator) -> None:
        """Start a batch: draw what it starts from and make ``optimizer`` ready."""

    @abstractmethod
    def images(self) -> Tensor:
        """The batch as it is now: float32 `n ...`, model-normalized, differentiable."""

    def after_step(self) -> None:
        """Called after each optimizer step, while gradients are still there."""
        return None

    def end(self) -> None:
        """Called after the last step of a batch."""
        return None

    def fresh(self, targets: Targets, generator: torch.Generator) -> Tensor:
        """New inputs for the student, without gradient: float32 `n ...`."""
        raise NotImplementedError(f"{type(self).__name__} makes no inputs without optimizing them")

    def restart(self, generator: torch.Generator) -> None:
        """Forget what was learned: called when all outputs have become one."""
        return None

    def state(self) -> State:
        """What lives longer than one batch."""
        return {}

    def load_state(self, state: State) -> None:
        """Continue from a saved state."""
        return None
