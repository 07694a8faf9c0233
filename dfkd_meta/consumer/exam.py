"""How a student does on inputs it has not learned from: progress that can be seen without data."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.checkpoint import State
from dfkd_meta.distillation.evaluation import answers
from dfkd_meta.teachers import Teacher

LOOKS = 10  # in a run
MOST = 200  # inputs held out; no more than a twentieth of those made
MOSTLY = 0.75  # the share of one class above which agreement says little


@dataclass(frozen=True)
class Verdict:
    """How a student did on new inputs after some ``steps``.

    ``share`` of so many ``inputs`` got the class from it that the teacher gives them; ``usual`` is
    the share of the class that the teacher gives most.
    """

    share: float
    usual: float
    inputs: int
    steps: int

    @property
    def text(self) -> str:
        said = f"{self.share:.2%} of {self.inputs:,} new inputs, after {self.steps:,} steps"
        return said + self.doubt

    @property
    def doubt(self) -> str:
        """What to add where a student that always gives one class would agree often as well."""
        if self.usual < MOSTLY:
            return ""
        return f" ({self.usual:.1%} of which are of one class to the teacher)"


class Exam:
    """Up to ten times in a run: how often student and teacher agree on new inputs.

    Inputs made beforehand lend some that are never trained on (``hold_out``). Where student and
    synthesis take turns, a batch is judged before it joins the pool; ``wanted`` says that the next
    one should be. ``verdict`` is the latest, None while there is none.
    """

    def __init__(self, teacher: Teacher, student: nn.Module, steps: int) -> None:
        self.teacher = teacher
        self.student = student
        self.steps = steps
        self.every = max(1, -(-steps // LOOKS))
        self.held_out: SyntheticBatch | None = None
        self.wanted = False
        self.verdict: Verdict | None = None

    def hold_out(self, batch: SyntheticBatch, images: int) -> SyntheticBatch:
        """Keep some rows of the first batch of ``images`` inputs, at random; returns the others."""
        count = min(MOST, images // 20, len(batch) // 2)
        if self.held_out is not None or not count:
            return batch
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
        self.held_out = batch.select(order[:count])
        return batch.select(order[count:].sort().values)

    def due(self, steps_done: int) -> bool:
        """Whether it is time to look."""
        return steps_done % self.every == 0 or steps_done == self.steps

    def judge(self, images: Tensor, steps_done: int) -> str:
        """Look at inputs `n ...`; returns what to tell the user."""
        self.wanted = False
        given, wanted = (answers(net, images) for net in (self.student, self.teacher))
        share, usual = ((wanted == one).float().mean() for one in (given, wanted.mode().values))
        self.verdict = Verdict(float(share), float(usual), len(images), steps_done)
        return (
            f"{steps_done:,} of {self.steps:,} student steps: student and teacher agree on "
            f"{100 * share:.1f} % of {len(images)} new inputs{self.verdict.doubt}"
        )

    def state(self) -> State:
        held = self.held_out
        rows = None if held is None else {"images": held.images, "labels": held.labels}
        return {
            "held_out": rows,
            "wanted": self.wanted,
            "verdict": None if self.verdict is None else asdict(self.verdict),
        }

    def load_state(self, state: State) -> None:
        rows = state["held_out"]
        device = next(self.student.parameters()).device
        self.held_out = None if rows is None else SyntheticBatch(**rows).to(device)
        self.wanted, verdict = state["wanted"], state["verdict"]
        self.verdict = None if verdict is None else Verdict(**verdict)
