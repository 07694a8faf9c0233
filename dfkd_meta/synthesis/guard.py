"""Notices a generator that has died: all its outputs are one image, or nothing moves it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dfkd_meta.checkpoint import State
from dfkd_meta.errors import MethodError
from dfkd_meta.synthesis.sources.base import Source

LEAST_SPREAD = 0.01  # a tenth of the lowest seen in healthy runs on digits
RESTARTS = 3
HEALTHY = 10  # good batches in a row after which earlier deaths are forgotten


def relative_spread(images: Tensor) -> float:
    """Standard deviation over the batch, over that of all pixels: 0 when all images are one.

    images `n ...`; a value in [0, 1] (1: the mean image is flat).
    """
    flat = images.flatten(1)
    within, whole = flat.var(0, correction=0).mean(), flat.var(correction=0)
    return float((within / whole).sqrt().nan_to_num(0.0))  # 0 / 0: one flat image


class CollapseGuard:
    """Watches the batches of a generator; free pixels cannot collapse and are left alone.

    A dead generator is started afresh, ``RESTARTS`` times with few good
    batches between them; then MethodError. DAFL's
    published code ends with identical images and a KD loss of 0 on MNIST, silently (its issue 6).
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.restarts = 0
        self._moved = True
        self._gradients: Sequence[Tensor | None] = ()
        self._healthy = 0

    def watch(self, gradients: Sequence[Tensor | None]) -> None:
        """Keep the gradients of a step: whether any is not zero is asked when the batch ends."""
        if self.source.kind != "pixels":
            self._gradients = gradients

    def fault(self, images: Tensor) -> str | None:
        """What is wrong with a finished batch `n ...`; None when all is well."""
        if self.source.kind == "pixels" or len(images) < 2:
            return None
        spread = relative_spread(images)
        if spread < LEAST_SPREAD:
            return f"all images are the same (relative spread {spread:.4f})"
        return None if self._was_moved() else "the generator gets no gradient"

    def _was_moved(self) -> bool:
        """Whether the last step that was watched had a gradient; True before the first."""
        if self._gradients:
            self._moved = any(g is not None and bool(g.any()) for g in self._gradients)
            self._gradients = ()
        return self._moved

    def check(self, images: Tensor, generator: torch.Generator) -> str | None:
        """The fault of a batch, after a restart; None when all is well."""
        reason = self.fault(images)
        if reason is None:
            self._healthy += 1
            if self._healthy >= HEALTHY:
                self.restarts = 0
            return None
        self._healthy = 0
        if self.restarts >= RESTARTS:
            raise MethodError(
                f"the generator died again after {RESTARTS} restarts: {reason}",
                hint="lower its learning rate (--set options.learning_rate=...) or, where the "
                "method has that term, raise terms.balance.weight",
            )
        self.restarts += 1
        self._moved, self._gradients = True, ()
        self.source.restart(generator)
        return f"{reason}; the generator was started afresh ({self.restarts} of {RESTARTS})"

    def state(self) -> State:
        return {"restarts": self.restarts, "moved": self._was_moved(), "healthy": self._healthy}

    def load_state(self, state: State) -> None:
        self.restarts, self._moved = state["restarts"], state["moved"]
        self._healthy = state["healthy"]
