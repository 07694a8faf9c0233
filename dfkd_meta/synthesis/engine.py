"""The one loop that makes inputs, whatever the method."""

from __future__ import annotations

import torch
from torch import Tensor

from dfkd_meta.batches import SyntheticBatch, concatenate
from dfkd_meta.errors import MethodError
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.recipe import Recipe, StepState
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.teachers import ActivationTap, Teacher


class Synthesizer:
    """Runs a recipe against a teacher, one batch after the other.

    The same recipe, teacher and generator state give the same inputs.
    """

    def __init__(self, teacher: Teacher, recipe: Recipe, generator: torch.Generator) -> None:
        self.teacher = teacher
        self.recipe = recipe
        self.generator = generator
        self.terms = {name: item for name, item in recipe.terms.items() if item.weight != 0}

    def make_pool(self, progress: Progress | None = None) -> SyntheticBatch:
        """All inputs of the recipe: images float32 `n ...` and their labels, on the CPU.

        Raises MethodError when a loss becomes NaN or infinite.
        """
        recipe = self.recipe
        sizes = [
            min(recipe.batch_size, recipe.images - done)
            for done in range(0, recipe.images, recipe.batch_size)
        ]
        indexed = (progress or Silent()).track(
            list(enumerate(sizes)), total=len(sizes), what="synthesizing"
        )
        cpu = torch.device("cpu")
        return concatenate([self.make_batch(size, index).to(cpu) for index, size in indexed])

    def make_batch(self, size: int, index: int = 0) -> SyntheticBatch:
        """One batch of inputs, optimized for ``recipe.steps`` steps."""
        recipe = self.recipe
        targets = recipe.targets.sample(size, index, self.generator)
        pixels = recipe.source.begin(targets, self.generator)
        if self.terms and recipe.steps:
            optimizer = torch.optim.Adam([pixels], lr=recipe.learning_rate, betas=recipe.betas)
            with ActivationTap(self.teacher.module, self._taps()) as tap:
                for step in range(recipe.steps):
                    loss = self._loss(pixels, targets, tap)
                    if not torch.isfinite(loss):
                        raise MethodError(
                            f"the synthesis loss became {loss.item()} at step {step}",
                            hint="lower the learning rate: --set options.learning_rate=...",
                        )
                    (pixels.grad,) = torch.autograd.grad(loss, [pixels])
                    optimizer.step()
                    recipe.source.project(pixels)
        return SyntheticBatch(pixels.detach().clone(), targets.labels)

    def _taps(self) -> list[Tap]:
        """Every tap that a term looks at, once."""
        return list(
            {tap.id: tap for item in self.terms.values() for tap in item.term.taps}.values()
        )

    def _loss(self, pixels: Tensor, targets: Targets, tap: ActivationTap) -> Tensor:
        view = self.recipe.augment(pixels, self.generator) if self.recipe.augment else pixels
        logits = self.teacher(view)
        state = StepState(pixels, logits, tap.activations, targets)
        parts = [item.weight * item.term(state) for item in self.terms.values()]
        return torch.stack(parts).sum()
