"""The weighted sum of losses a student is trained on, with the features it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_meta.config import make_config
from dfkd_meta.distillation.losses import Features, Lesson, Loss, losses
from dfkd_meta.distillation.pairs import Pair, match_pairs
from dfkd_meta.errors import UsageError
from dfkd_meta.precision import Settled, computing
from dfkd_meta.seeding import layers_draw_from
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.teachers import ActivationTap, Teacher


@dataclass(frozen=True)
class Weighted:
    """A loss, its name and its weight in the sum."""

    name: str
    weight: float
    loss: Loss


def choose_losses(
    weights: Mapping[str, float], options: Mapping[str, Mapping[str, Any]]
) -> list[Weighted]:
    """The losses of these names with their options; a weight of 0 leaves one out.

    Raises UsageError: a name or an option that does not exist, options of a loss that has no
    weight, or nothing to train on.
    """
    for name in options:
        if name not in weights:
            raise UsageError(
                f"loss_options speak of {name!r}, which is not among the losses",
                hint=f"give it a weight (losses.{name}=1) or leave its options out",
            )
    made = {name: make_config(losses.get(name), options.get(name, {})) for name in weights}
    chosen = [Weighted(name, weights[name], made[name]) for name in weights if weights[name] > 0]
    if not chosen:
        raise UsageError("no loss has a weight above 0", hint="--set training.losses.kd=1")
    return chosen


class Objective:
    """What one batch costs: ``sum_i weight_i loss_i``.

    ``pairs`` are the matched layers that a loss uses (none, and no features are computed, when
    every loss looks at logits alone), ``use`` those of each loss, ``projections`` its learned
    modules, both by its name. When no loss needs the teacher, ``teacher`` is None and never asked.
    Networks compute in ``precision``.
    """

    def __init__(
        self,
        student: nn.Module,
        parts: Sequence[Weighted],
        generator: torch.Generator,
        *,
        teacher: Teacher | None = None,
        temperature: float = 1.0,
        named: Sequence[tuple[str, str]] | None = None,
        precision: Settled = "float32",
    ) -> None:
        """Match layers and draw the projections. Raises UsageError when a loss lacks something."""
        self.student = student
        self.parts = list(parts)
        self.temperature = temperature
        self.precision = precision
        self.teacher = _teacher_for(parts, teacher)
        self.pairs, self.use = _pairs_for(student, parts, self.teacher, named)
        self.projections = self._draw_projections(generator)

    def __call__(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """The cost of inputs `n ...` with labels as in ``Lesson``; a scalar with gradient."""
        answers: Tensor | None = None
        shown: dict[str, Tensor] = {}
        if self.teacher is not None:
            with torch.no_grad():
                answers, shown = self._run(
                    self.teacher.module, images, [pair.teacher for pair in self.pairs]
                )
        logits, made = self._run(self.student, images, [pair.student for pair in self.pairs])
        total = logits.new_zeros(())
        for part in self.parts:
            if part.loss.needs_labels and labels is None:
                raise UsageError(
                    f"the loss {part.name!r} needs labels, and these inputs have none",
                    hint="use data that has labels, or leave this loss out",
                )
            lesson = Lesson(
                student=logits,
                teacher=answers,
                labels=labels,
                temperature=self.temperature,
                features=[
                    Features(shown[pair.teacher.id], made[pair.student.id])
                    for pair in self.use[part.name]
                ],
                projections=list(self.projections[part.name].children()),
            )
            total = total + part.weight * part.loss(lesson)
        return total

    def describe(self) -> list[str]:
        """A line for each pair: the places, their shapes, and the losses that use them."""
        return [
            f"{pair} ({', '.join(name for name, used in self.use.items() if pair in used)})"
            for pair in self.pairs
        ]

    def _run(
        self, module: nn.Module, images: Tensor, taps: list[Tap]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits `n c` and what passes through the taps, by id, all in float32."""
        with ActivationTap(module, taps) as tap, computing(self.precision, images.device):
            logits = module(images)
        return logits.float(), {name: value.float() for name, value in tap.activations.items()}

    def _draw_projections(self, generator: torch.Generator) -> nn.ModuleDict:
        """Learned modules on the student's device, their first weights from ``generator``."""
        if not self.pairs:
            return nn.ModuleDict({part.name: nn.ModuleList() for part in self.parts})
        with layers_draw_from(generator, torch.device("cpu")):
            drawn = {
                part.name: nn.ModuleList(part.loss.projection(pair) for pair in self.use[part.name])
                for part in self.parts
            }
        return nn.ModuleDict(drawn).to(next(self.student.parameters()).device)


def _teacher_for(parts: Sequence[Weighted], teacher: Teacher | None) -> Teacher | None:
    for part in parts:
        if part.loss.needs_teacher and teacher is None:
            raise UsageError(
                f"the loss {part.name!r} needs a teacher",
                hint="without one, train on labels: losses = {hard = 1}",
            )
    return teacher if any(part.loss.needs_teacher for part in parts) else None


def _pairs_for(
    student: nn.Module,
    parts: Sequence[Weighted],
    teacher: Teacher | None,
    named: Sequence[tuple[str, str]] | None,
) -> tuple[list[Pair], dict[str, list[Pair]]]:
    """The matched pairs that some loss uses, and those of each loss, all in the teacher's order."""
    use: dict[str, list[Pair]] = {part.name: [] for part in parts}
    on_features = [part for part in parts if part.loss.least_pairs]
    if teacher is None or not on_features:
        if named is not None:
            raise UsageError(
                "pairs of layers are named, but no loss uses features",
                hint="give a weight to fitnets, attention or fsp",
            )
        return [], use
    matched = match_pairs(teacher, student, named)
    refused: dict[str, list[str]] = {str(pair): [] for pair in matched}
    for part in on_features:
        for pair in matched:
            reason = part.loss.refuses(pair)
            if reason is None:
                use[part.name].append(pair)
            else:
                refused[str(pair)].append(reason)
        if len(use[part.name]) < part.loss.least_pairs:
            raise UsageError(
                f"the loss {part.name!r} needs {part.loss.least_pairs} or more pairs of layers, "
                f"and can use {len(use[part.name])} of these: {'; '.join(map(str, matched))}",
                hint="; ".join(
                    dict.fromkeys(why for reasons in refused.values() for why in reasons)
                )
                or "name more: pairs = [[teacher's layer, student's layer], ...]",
            )
    useless = [str(pair) for pair in matched if len(refused[str(pair)]) == len(on_features)]
    if named is not None and useless:
        raise UsageError(
            f"no loss can use the pair {useless[0]}", hint="; ".join(refused[useless[0]])
        )
    return [pair for pair in matched if str(pair) not in useless], use
