"""What a GPU is not kept waiting by: copies that queue up with its work, losses read now and then.

A program hands a GPU its work ahead of time. Whatever reads a number back, or copies from ordinary
memory, waits until all of it is done, and then the GPU waits for the program.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dfkd_meta.errors import MethodError

LATEST = 20  # losses that a GPU may be ahead of what was looked at


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; to a GPU by way of pinned memory, without waiting for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class LossWatch:
    """Notices a loss that has become NaN or infinite.

    On a CPU at once; elsewhere at the latest after ``LATEST`` losses, or when asked to ``check``.
    """

    def __init__(self, what: str, hint: str) -> None:
        """``what`` names the loss, ``hint`` says what to do when it is lost."""
        self.what = what
        self.hint = hint
        self._seen: list[tuple[str, Tensor]] = []

    def see(self, loss: Tensor, where: str) -> None:
        """Take note of a scalar ``loss``, of the step that ``where`` names. Raises as ``check``."""
        self._seen.append((where, loss.detach()))
        if loss.device.type == "cpu" or len(self._seen) >= LATEST:
            self.check()

    def check(self) -> None:
        """Look at what was seen since the last look. Raises MethodError for the first bad loss."""
        if not self._seen:
            return
        places, losses = zip(*self._seen, strict=True)
        self._seen.clear()
        values = torch.stack(losses)
        for where, value, good in zip(places, values, torch.isfinite(values).tolist(), strict=True):
            if not good:
                raise MethodError(f"{self.what} became {value.item()} at {where}", hint=self.hint)
