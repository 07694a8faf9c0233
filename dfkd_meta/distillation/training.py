"""The one training loop, for teachers and for students, on real or on synthetic inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.checkpoint import State
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.distillation.objective import Objective, choose_losses
from dfkd_meta.distillation.optimization import (
    Average,
    Optimizer,
    choose_rules,
    copy_state,
    limit_norms,
)
from dfkd_meta.distillation.views import Views
from dfkd_meta.errors import MethodError, UsageError
from dfkd_meta.precision import Settled
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.seeding import layers_draw_from
from dfkd_meta.teachers import Teacher
from dfkd_meta.waiting import LossWatch


class Trainer:
    """A student in training: one optimizer step per batch, resumable after any of them.

    The result depends on the batches and the generator alone, not on how steps are cut into calls
    or interrupted by ``state`` and ``load_state``. There is no selection of a best step.
    """

    def __init__(
        self,
        student: nn.Module,
        config: TrainingConfig,
        generator: torch.Generator,
        *,
        teacher: Teacher | None = None,
        losses: Mapping[str, float] | None = None,
        precision: Settled = "float32",
    ) -> None:
        """``losses`` is what the method asks for where ``config`` names none.

        Raises UsageError when a loss does not exist, or lacks a teacher or matching layers.
        """
        self.student = student
        self.config = config
        self.generator = generator
        self.steps_done = 0
        self.objective = Objective(
            student,
            choose_losses(named_losses(config, losses), config.loss_options),
            generator,
            teacher=teacher,
            temperature=config.temperature,
            named=config.pairs,
            precision=precision,
        )
        self.views = Views(config, self.objective.teacher)
        drops = self.objective.teacher is None if config.dropout is None else config.dropout
        dropout = [layer for layer in student.modules() if isinstance(layer, _DropoutNd)]
        self._resting = [] if drops else dropout
        self.optimizer = Optimizer(
            choose_rules(config, student, self.objective.projections.parameters())
        )
        self.average = None if config.ema is None else Average(student, config.ema)
        self.watch = LossWatch(
            "the training loss",
            hint="smaller steps, such as --set training.optimizer=adamw "
            "--set training.learning_rate=0.001",
        )
        self._announced = False

    @property
    def notes(self) -> list[str]:
        """What to show before training: the matched layers, and what will not be trained."""
        notes = [f"matched layers: {line}" for line in self.objective.describe()]
        if all(part.loss.least_pairs for part in self.objective.parts):
            notes.append("no loss looks at the logits, so the last layer stays as it is; add kd")
        return notes

    def train(
        self, stream: Iterator[SyntheticBatch], steps: int, progress: Progress | None = None
    ) -> None:
        """``steps`` more steps on the batches of ``stream``; the first call reports ``notes``.

        Raises as ``step``, and MethodError when the stream ends.
        """
        progress = progress or Silent()
        if not self._announced:
            self._announced = True
            for note in self.notes:
                progress.step(note)
        for _ in progress.track(range(steps), total=steps, what="training"):
            batch = next(stream, None)
            if batch is None:
                raise MethodError(f"the inputs ended after {self.steps_done} steps")
            self.step(batch)

    def step(self, batch: SyntheticBatch) -> None:
        """One optimizer step.

        Raises MethodError when the loss has become NaN or infinite (on a GPU some steps later),
        UsageError when a loss needs labels that the batch lacks or all ``config.steps`` of the
        schedule are done.
        """
        config, device = self.config, next(self.student.parameters()).device
        if self.steps_done >= config.steps:
            raise UsageError(
                f"all {config.steps} steps are done", hint="set training.steps to more of them"
            )
        self.student.train()
        for layer in self._resting:
            layer.eval()
        images, labels = self.views(batch.to(device), self.generator)
        with layers_draw_from(self.generator, device):
            loss = self.objective(images, labels)
        self.watch.see(loss, f"step {self.steps_done}")
        self.optimizer.step(loss, self.steps_done, config.steps)
        self.steps_done += 1
        if config.max_norm is not None:
            limit_norms(self.student, config.max_norm)
        if self.average is not None:
            self.average.update(self.student, self.steps_done)

    @contextmanager
    def finished(self) -> Iterator[nn.Module]:
        """The student with the weights that ``finish`` would give it now, while the block lasts."""
        if self.average is None:
            yield self.student
            return
        own = copy_state(self.student.state_dict())
        self.student.load_state_dict(self.average.values)
        try:
            yield self.student
        finally:
            self.student.load_state_dict(own)

    def finish(self) -> nn.Module:
        """The student in eval mode, with its averaged weights where ``ema`` is set.

        Raises MethodError as ``step``.
        """
        self.watch.check()
        if self.average is not None:
            self.student.load_state_dict(self.average.values)
        return self.student.eval()

    def state(self) -> State:
        """All that the next step depends on, besides the batches, as copies.

        Raises MethodError as ``step``.
        """
        self.watch.check()
        return copy_state(
            {
                "steps_done": self.steps_done,
                "flip": self.views.flip,
                "student": dict(self.student.state_dict()),
                "projections": dict(self.objective.projections.state_dict()),
                "optimizer": self.optimizer.state(),
                "average": None if self.average is None else self.average.values,
                "generator": self.generator.get_state(),
            }
        )

    def load_state(self, state: State) -> None:
        """Continue from a ``state`` of a trainer of the same student and configuration."""
        state = copy_state(state)
        self.steps_done, self.views.flip = state["steps_done"], state["flip"]
        self.student.load_state_dict(state["student"])
        self.objective.projections.load_state_dict(state["projections"])
        self.optimizer.load_state(state["optimizer"])
        if self.average is not None:
            for name, value in state["average"].items():
                self.average.values[name].copy_(value)
        self.generator.set_state(state["generator"])


def named_losses(
    config: TrainingConfig, losses: Mapping[str, float] | None = None
) -> Mapping[str, float]:
    """The weights that count: the configuration's, else the method's ``losses``, else Hinton's."""
    if config.losses is not None:
        return config.losses
    return {"kd": 1.0} if losses is None else losses


def fit(
    student: nn.Module,
    stream: Iterator[SyntheticBatch],
    config: TrainingConfig,
    generator: torch.Generator,
    *,
    teacher: Teacher | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train ``student`` in place on ``config.steps`` batches and return it in eval mode.

    Raises as ``Trainer`` and ``Trainer.step``.
    """
    trainer = Trainer(student, config, generator, teacher=teacher)
    trainer.train(stream, config.steps, progress)
    return trainer.finish()
