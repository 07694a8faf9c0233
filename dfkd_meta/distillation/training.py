"""The one training loop, for teachers and for students, on real or on synthetic inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dfkd_meta.augmentation import draw_blend, draw_paste, flip_some, shift_each
from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.checkpoint import State
from dfkd_meta.config import Config
from dfkd_meta.distillation.objective import Objective, choose_losses
from dfkd_meta.distillation.optimization import (
    Average,
    OptimizerName,
    copy_state,
    limit_norms,
    make_optimizer,
    one_cycle,
    set_pace,
)
from dfkd_meta.distillation.pairs import Pair
from dfkd_meta.errors import MethodError, UsageError
from dfkd_meta.precision import Settled
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.seeding import layers_draw_from
from dfkd_meta.teachers import Teacher, channels_last

MIRRORED = 0.7  # the share of mirrored images that a teacher must know for them to be used

Weight = Annotated[float, Field(ge=0)]


class TrainingConfig(Config):
    """How a network is trained.

    ``losses`` maps registered losses to weights (default: what the method asks for, else
    ``{kd = 1}``), ``loss_options`` their names to their options. ``pairs`` names the (teacher,
    student) layers that losses on features compare; by default they are matched by resolution.

    ``shift`` moves each image by up to that fraction of its size (at least one pixel, 0 for none);
    ``jitter``, a number of pixels, takes its place when given. ``flip`` mirrors each image half of
    the time; None does so if there is a teacher who gives at least 70 % of the first batch the same
    class mirrored (85 % on CIFAR-10, 40 % on digits). ``mixup`` blends that share of a batch
    pairwise and ``cutmix`` puts a rectangle of another image into that share of it, counted from
    the other end, labels too; both need a loss with a teacher, who answers for what comes of it.

    ``optimizer`` is ``adamw`` or ``sgd`` (which wants a learning rate near 0.1); the rate follows
    one cycle (Smith & Topin 2018). ``max_norm`` bounds the norm of each hidden unit's incoming
    weights; ``ema`` makes the student the moving average of its weights with that decay.
    """

    losses: dict[str, Weight] | None = None
    loss_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    pairs: list[tuple[str, str]] | None = None
    steps: int = Field(4_000, ge=1)
    batch_size: int = Field(256, ge=2, le=2**20)
    optimizer: OptimizerName = "adamw"
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    temperature: float = Field(4.0, gt=0)
    shift: float = Field(1 / 16, ge=0, lt=0.5)
    jitter: int | None = Field(None, ge=0, le=2**10)
    flip: bool | None = None
    mixup: float = Field(0.5, ge=0, le=1)
    cutmix: float = Field(0.5, ge=0, le=1)
    max_norm: float | None = Field(None, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)


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
        self.student = channels_last(student)
        self.config = config
        self.generator = generator
        self.steps_done = 0
        self.flip = config.flip
        self.objective = Objective(
            student,
            choose_losses(named_losses(config, losses), config.loss_options),
            generator,
            teacher=teacher,
            temperature=config.temperature,
            named=config.pairs,
            precision=precision,
        )
        projections = self.objective.projections
        parameters = [*student.parameters(), *projections.parameters()]
        self.optimizer = make_optimizer(config.optimizer, parameters, config.weight_decay)
        self.average = None if config.ema is None else Average(student, config.ema)
        self._announced = False

    @property
    def pairs(self) -> list[Pair]:
        """The layers of teacher and student that losses compare; empty without such losses."""
        return self.objective.pairs

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

        Raises MethodError when the loss becomes NaN or infinite, UsageError when a loss needs
        labels that the batch lacks or all ``config.steps`` of the schedule are done.
        """
        config, device = self.config, next(self.student.parameters()).device
        if self.steps_done >= config.steps:
            raise UsageError(
                f"all {config.steps} steps are done", hint="set training.steps to more of them"
            )
        set_pace(self.optimizer, *one_cycle(self.steps_done, config.steps, config.learning_rate))
        self.student.train()
        images, labels = self._view(batch.to(device))
        with layers_draw_from(self.generator, device):
            loss = self.objective(images, labels)
        if not torch.isfinite(loss):
            raise MethodError(
                f"the training loss became {loss.item()} at step {self.steps_done}",
                hint="lower the learning rate: --set training.learning_rate=...",
            )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.steps_done += 1
        if config.max_norm is not None:
            limit_norms(self.student, config.max_norm)
        if self.average is not None:
            self.average.update(self.student, self.steps_done)

    def finish(self) -> nn.Module:
        """The student in eval mode, with its averaged weights where ``ema`` is set."""
        if self.average is not None:
            self.student.load_state_dict(self.average.values)
        return self.student.eval()

    def state(self) -> State:
        """All that the next step depends on, besides the batches, as copies."""
        return copy_state(
            {
                "steps_done": self.steps_done,
                "flip": self.flip,
                "student": dict(self.student.state_dict()),
                "projections": dict(self.objective.projections.state_dict()),
                "optimizer": self.optimizer.state_dict()["state"],
                "average": None if self.average is None else self.average.values,
                "generator": self.generator.get_state(),
            }
        )

    def load_state(self, state: State) -> None:
        """Continue from a ``state`` of a trainer of the same student and configuration."""
        state = copy_state(state)
        self.steps_done, self.flip = state["steps_done"], state["flip"]
        self.student.load_state_dict(state["student"])
        self.objective.projections.load_state_dict(state["projections"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        if self.average is not None:
            for name, value in state["average"].items():
                self.average.values[name].copy_(value)
        self.generator.set_state(state["generator"])

    def _view(self, batch: SyntheticBatch) -> tuple[Tensor, Tensor | None]:
        """The batch as this step sees it: images shifted, some mixed, their labels likewise."""
        config, images = self.config, batch.images
        reach = config.jitter
        if reach and images.dim() != 4:
            raise UsageError(
                f"jitter moves images, and these inputs have the shape {list(images.shape[1:])}"
            )
        if reach is None:
            reach = max(1, round(config.shift * images.shape[-1])) if config.shift else 0
        images = shift_each(images, reach, self.generator)
        teacher = self.objective.teacher
        if self.flip is None:
            self.flip = teacher is not None and _sees_mirrored(teacher, images)
        if self.flip:
            images = flip_some(images, self.generator)
        if teacher is None:
            return images, batch.labels
        drawn = (
            draw_blend(len(images), config.mixup, self.generator),
            draw_paste(images.shape, config.cutmix, self.generator),
        )
        changes = [change for change in drawn if change is not None]
        labels = batch.labels
        if labels is not None and changes:
            labels = F.one_hot(labels, teacher.outputs.num_classes).float()
        for change in changes:
            images = change(images)
            labels = None if labels is None else change(labels)
        return images, labels


def _sees_mirrored(teacher: Teacher, images: Tensor) -> bool:
    """Whether images `n c h w` and their mirrors are mostly the same to a teacher."""
    if images.dim() != 4:
        return False
    with torch.no_grad():
        answers = [teacher(view).argmax(1) for view in (images, images.flip(3))]
    return float((answers[0] == answers[1]).float().mean()) >= MIRRORED


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
