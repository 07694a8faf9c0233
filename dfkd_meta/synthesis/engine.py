"""The one loop that makes inputs, whatever the method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.checkpoint import State
from dfkd_meta.errors import MethodError
from dfkd_meta.precision import Settled, computing
from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.guard import CollapseGuard
from dfkd_meta.synthesis.recipe import Recipe, Weighted
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.synthesis.terms.base import StepState, Term
from dfkd_meta.teachers import ActivationTap, Teacher
from dfkd_meta.waiting import LossWatch


class Synthesizer:
    """Runs a recipe against a teacher, one batch after the other.

    The same recipe, teacher, student and generator state give the same inputs. ``student`` is for
    terms that see it; without one those terms are off. ``made`` counts batches, ``drawn`` the
    inputs of ``fresh_batch``, ``notes`` what happened that a user should know. Networks compute in
    ``precision``, and so does what turns a source's numbers into inputs; the numbers themselves,
    their gradients and what terms work with are float32.
    """

    def __init__(
        self,
        teacher: Teacher,
        recipe: Recipe,
        generator: torch.Generator,
        student: nn.Module | None = None,
        precision: Settled = "float32",
    ) -> None:
        self.teacher = teacher
        self.precision = precision
        self.recipe = recipe
        self.generator = generator
        self.student = student
        self.made = 0
        self.draws = self.drawn = 0
        self.notes: list[str] = list(recipe.notes)
        self.terms = {name: item for name, item in recipe.terms.items() if item.weight != 0}
        self.guard = CollapseGuard(recipe.source)
        self.losses = LossWatch(
            "the synthesis loss",
            hint="lower the learning rate: --set options.learning_rate=...",
        )
        self._learners = {
            name: torch.optim.Adam(parameters, lr=getattr(item.term, "learning_rate", 1e-3))
            for name, item in self.terms.items()
            if (parameters := item.term.parameters())
        }

    def make_batch(self, size: int) -> SyntheticBatch:
        """The next batch of inputs, optimized for ``recipe.steps`` steps.

        What a generator made as it died is thrown away, and made again by the one started afresh.
        Raises MethodError when a loss becomes NaN or infinite, or a generator dies repeatedly.
        """
        targets, images = self._make(size)
        while note := self.guard.check(images, self.generator):
            self.notes.append(f"batch {self.made}: {note}")
            targets, images = self._make(size)
        self.made += 1
        return SyntheticBatch(images, targets.labels if self.recipe.labeled else None)

    def fresh_batch(self, size: int) -> SyntheticBatch:
        """New outputs of the source, as it is now."""
        targets = self.recipe.targets.sample(size, self.draws, self.generator)
        self.draws += 1
        self.drawn += size
        with torch.no_grad(), self._computing():
            images = self.recipe.source.fresh(targets, self.generator)
        images = images.float()
        return SyntheticBatch(images, targets.labels if self.recipe.labeled else None)

    def state(self) -> State:
        """Everything that lives longer than one batch."""
        return {
            "made": self.made,
            "draws": self.draws,
            "drawn": self.drawn,
            "notes": self.notes,
            "generator": self.generator.get_state(),
            "source": self.recipe.source.state(),
            "guard": self.guard.state(),
            "terms": {name: item.term.state() for name, item in self.terms.items()},
            "learners": {name: adam.state_dict() for name, adam in self._learners.items()},
        }

    def load_state(self, state: State) -> None:
        """Continue from a saved state of the same recipe."""
        self.made, self.draws, self.drawn = state["made"], state["draws"], state["drawn"]
        self.notes = list(state["notes"])
        self.generator.set_state(state["generator"])
        self.recipe.source.load_state(state["source"])
        self.guard.load_state(state["guard"])
        for name, item in self.terms.items():
            item.term.load_state(state["terms"][name])
        for name, adam in self._learners.items():
            adam.load_state_dict(state["learners"][name])

    def _active(self) -> dict[str, Weighted]:
        """The terms of the coming batch: those that see the student only after the warm-up.

        The first batch after it meets a student that has taken no step yet.
        """
        warm_up = self.recipe.rounds.warm_up if self.recipe.rounds else 0
        blind = self.student is None or self.made < warm_up
        return {
            name: item
            for name, item in self.terms.items()
            if not (blind and item.term.sees_student)
        }

    def _make(self, size: int) -> tuple[Targets, Tensor]:
        """One batch from beginning to end: its aim, and inputs float32 `n ...`."""
        source = self.recipe.source
        targets = self.recipe.targets.sample(size, self.made, self.generator)
        source.begin(targets, self.generator)
        active = self._active()
        images: Tensor | None = None
        if active and self.recipe.steps:
            with self._networks(size), ActivationTap(self.teacher.module, _taps(active)) as tap:
                images = self._optimize(targets, active, tap)
        source.end()
        if images is None:
            with torch.no_grad():
                images = self._made().clone()
        return targets, images

    def _optimize(
        self, targets: Targets, active: dict[str, Weighted], tap: ActivationTap
    ) -> Tensor:
        source = self.recipe.source
        learners = [self._learners[name] for name in active if name in self._learners]
        optimizers = [source.optimizer, *learners]
        parameters = [p for o in optimizers for group in o.param_groups for p in group["params"]]
        best: tuple[Tensor, Tensor] | None = None
        for step in range(self.recipe.steps):
            images = self._made()
            seen = self._look(images, targets, active, tap)
            if not seen.logits.requires_grad:
                raise MethodError(
                    "no gradient flows from the teacher back to its inputs",
                    hint="its forward must not round, detach or cast them to whole numbers; "
                    "--method noise needs no gradients",
                )
            loss = self._loss(seen, active)
            self.losses.see(loss, f"step {step} of batch {self.made}")
            if self.recipe.keep_best:
                best = _better(best, loss.detach(), images.detach())
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            self.guard.watch(gradients)
            for optimizer in optimizers:
                optimizer.step()
            source.after_step()
            del seen  # its activations, before the next step makes others
        self.losses.check()
        with torch.no_grad():
            images = best[1] if best else self._made().clone()
            self._remember(images, targets, active, tap)
        return images

    def _remember(
        self, images: Tensor, targets: Targets, active: dict[str, Weighted], tap: ActivationTap
    ) -> None:
        """Show the finished batch to the terms that keep something of it, if it is sound."""
        keepers = [t.term for t in active.values() if type(t.term).end_batch is not Term.end_batch]
        if keepers and self.guard.fault(images) is None:
            state = self._look(images, targets, active, tap)
            for term in keepers:
                term.end_batch(state)

    def _look(
        self, images: Tensor, targets: Targets, active: dict[str, Weighted], tap: ActivationTap
    ) -> StepState:
        view = self.recipe.augment(images, self.generator) if self.recipe.augment else images
        seen = self.student is not None and any(t.term.sees_student for t in active.values())
        with self._computing():
            logits = self.teacher(view)
            student_logits = self.student(view) if self.student is not None and seen else None
        return StepState(
            images,
            view,
            logits.float(),
            tap.activations,
            targets,
            self.generator,
            None if student_logits is None else student_logits.float(),
            self.precision,
        )

    def _made(self) -> Tensor:
        """The source's inputs, in float32."""
        with self._computing():
            return self.recipe.source.images().float()

    def _computing(self) -> AbstractContextManager[object]:
        return computing(self.precision, self.teacher.device)

    @staticmethod
    def _loss(state: StepState, active: dict[str, Weighted]) -> Tensor:
        return torch.stack([item.weight * item.term(state) for item in active.values()]).sum()

    @contextmanager
    def _networks(self, size: int) -> Iterator[None]:
        """The teacher as the recipe wants it, the student in evaluation mode."""
        perturb = self.recipe.perturb
        training = self.student is not None and self.student.training
        if self.student is not None:
            self.student.eval()
        try:
            with perturb(size, self.generator) if perturb else nullcontext():
                yield
        finally:
            if self.student is not None:
                self.student.train(training)


def _better(
    best: tuple[Tensor, Tensor] | None, loss: Tensor, images: Tensor
) -> tuple[Tensor, Tensor]:
    """The lower of two losses, and its images."""
    if best is None:
        return loss, images.clone()
    return torch.minimum(loss, best[0]), torch.where(loss < best[0], images, best[1])


def _taps(active: dict[str, Weighted]) -> list[Tap]:
    """Every tap that a term looks at, once."""
    return list({tap.id: tap for item in active.values() for tap in item.term.taps}.values())
