"""Which batches of inputs come when, where synthesis and student take turns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rounds:
    """Synthesis and student take turns: ``student_steps`` student steps after each batch.

    The student sees the pool of the latest ``capacity`` inputs (of as many as fit into 4 GiB, where
    that is fewer), or with ``fresh`` new outputs of the source at each step. ``warm_up`` batches
    more are made before the first student step; terms that see the student are off in them. With
    ``share`` a budget sets ``student_steps``, so that this part of the time makes inputs, and where
    batches take long the method's option ``batch_size``. ``ahead`` says that the student is not
    asked: as many batches as the pool holds are made before its first step, so that it sees them
    all along, and turns say only how many there are.
    """

    student_steps: int
    fresh: bool = False
    warm_up: int = 0
    capacity: int = 60_000
    share: float | None = None
    ahead: bool = False

    def batches(self, steps: int) -> int:
        """How many batches there are in a run of so many student steps."""
        return self.warm_up + 1 + (steps - 1) // self.student_steps

    def due(self, done: int, steps: int, room: int) -> int:
        """How many of them there must be when ``done`` of the student's ``steps`` are made.

        ``room`` is how many batches the pool holds: what it drops the student would never see.
        """
        now = self.batches(done + 1)
        return max(now, min(self.batches(steps), room)) if self.ahead else now
