"""One distillation from recipe to student: synthesis and training, in turns, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dfkd_meta.batches import Pool, SyntheticBatch
from dfkd_meta.checkpoint import State
from dfkd_meta.consumer.exam import Exam, Verdict
from dfkd_meta.consumer.interruption import Checkpoint
from dfkd_meta.consumer.pipeline import (
    DistillConfig,
    check_student,
    make_recipe,
    most_kept,
    precision_of,
    student_of,
)
from dfkd_meta.distillation.optimization import Rule
from dfkd_meta.distillation.students import Student
from dfkd_meta.distillation.training import Trainer
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.seeding import derive_seed, generator_for
from dfkd_meta.sidecar import Sidecar
from dfkd_meta.synthesis.engine import Synthesizer
from dfkd_meta.synthesis.recipe import Recipe
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.teachers import Teacher, probe

JUDGED = 200  # new inputs that a student is judged on where they cost next to nothing
SHOWN = 1_000  # inputs kept of a method that has no pool
KEPT_BLOCK = 30 * 2**20  # bytes; glibc learns from blocks of up to 32 MiB


@dataclass(frozen=True)
class Outcome:
    """A finished distillation.

    ``pool`` is what the student was trained on (of methods without a pool, a last sample);
    ``given`` says that it was data named by the user, not made from the teacher;
    ``images`` counts all inputs made. ``seconds`` and ``cpu_seconds`` (of this process, all
    threads) have the keys synthesis and training. ``verdict`` is how the student did on new
    inputs, None where there were none (see ``Exam``). ``rules`` are how it was optimized, with the
    defaults that were taken for it, and ``mirrored`` whether it saw mirrored inputs.
    """

    student: Student
    rules: tuple[Rule, ...]
    mirrored: bool
    pool: SyntheticBatch
    images: int
    student_steps: int
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    notes: list[str]
    verdict: Verdict | None = None
    given: bool = False


def run_method(
    teacher: Teacher,
    sidecar: Sidecar,
    config: DistillConfig,
    device: torch.device,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    watch: Callable[[Distillation], None] | None = None,
) -> Outcome:
    """Make inputs by ``config.method`` and train a student on them.

    With ``checkpoint`` (a file) the run is saved about twice a minute and at its end; with
    ``resume`` it goes on from there, if the file exists, to the same student, on a CPU bit for bit.
    The file is the caller's to remove, once what came out is safe.
    ``watch`` is shown the run wherever it can be saved, and must leave it as it is.
    Raises MethodError, UsageError (also for a checkpoint of other settings), TeacherError.
    """
    check_student(teacher, config)
    recipe = make_recipe(teacher, sidecar, config, device)
    run = Distillation(teacher, recipe, config, device)
    progress = progress or Silent()
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(checkpoint, sidecar, config, run.student.module, recipe.given)
    if resume and saved is not None and saved.restore(run.load_state):
        progress.step(
            f"resumed after {run.synthesizer.made} batches, {run.trainer.steps_done} student steps"
        )
    for _ in run.advance(progress):
        if watch is not None:  # before the run is saved: what is skipped later was seen
            watch(run)
        if saved is not None:
            saved.keep(run.state)
    if saved is not None:
        saved.write(run.state())
    return run.outcome()


def keep_freed_memory() -> None:
    """Have the allocator of the C library (glibc) keep what is freed, in pieces of up to 30 MiB.

    It learns that by a block of that size being freed. Before, it gives the memory of every tensor
    back to the system and asks for it again: a step of HINTON-1200 -> 800 took 19 ms for 15.
    """
    torch.empty(KEPT_BLOCK, dtype=torch.uint8)


class Distillation:
    """The state of one run. The one rule of who goes next is ``_due``."""

    def __init__(
        self, teacher: Teacher, recipe: Recipe, config: DistillConfig, device: torch.device
    ) -> None:
        keep_freed_memory()
        self.teacher = teacher
        self.recipe = recipe
        self.config = config
        self.device = device
        self.student = student_of(config, teacher, seed=derive_seed(config.seed, "student"))
        module = self.student.module.to(device)
        precision = precision_of(config, teacher, device)
        training = config.training
        if training.flip is None and recipe.mirrored:
            training = training.model_copy(update={"flip": True})
        self.trainer = Trainer(
            module,
            training,
            generator_for(config.seed, "training"),
            teacher=teacher,
            losses=recipe.student_losses,
            precision=precision,
        )
        self.synthesizer = Synthesizer(
            teacher, recipe, generator_for(config.seed, "synthesis"), module, precision
        )
        self.exam = Exam(teacher, module, config.training.steps)
        self.order = generator_for(config.seed, "order")
        self.pool = Pool(self._capacity())
        if recipe.given is not None:
            self.pool.add(recipe.given.to(device))
        self.seconds = {"synthesis": 0.0, "training": 0.0}
        self.cpu_seconds = dict(self.seconds)

    def advance(self, progress: Progress) -> Iterator[None]:
        """Do all that is left, yielding wherever the run can be saved."""
        first = max(0, self._due(0) - self.synthesizer.made)
        for note in [*self.synthesizer.notes, *self.trainer.notes]:
            progress.step(note)
        for _ in progress.track(range(first), total=first, what="synthesizing"):
            self._make_batch(progress)
            yield
        left = self.config.training.steps - self.trainer.steps_done
        what = "distilling" if self.recipe.rounds else "training"
        for _ in progress.track(range(left), total=left, what=what):
            while self.synthesizer.made < self._due(self.trainer.steps_done):
                self._make_batch(progress)
                yield
            self._train()
            self._examine(progress)
            yield

    def settle(self) -> None:
        """Wait for what a GPU still has to do of training, and count it as such."""
        if self.device.type == "cuda":
            with self._timed("training"):
                torch.cuda.synchronize(self.device)

    def outcome(self) -> Outcome:
        """What came out. To be called when ``advance`` has ended.

        Raises TeacherError for a student that answers with NaN or infinity.
        """
        self.settle()
        student = replace(self.student, module=self.trainer.finish())
        probe(student.module, self.teacher.inputs, where="the student, after its last step")
        fresh = self.recipe.fresh
        pool = self.synthesizer.fresh_batch(SHOWN) if fresh else self.pool.contents()
        return Outcome(
            student=student,
            rules=self.trainer.optimizer.rules,
            mirrored=bool(self.trainer.views.flip),
            pool=pool.to(torch.device("cpu")),
            images=self._images(),
            student_steps=self.trainer.steps_done,
            seconds=self.seconds,
            cpu_seconds=self.cpu_seconds,
            notes=self.synthesizer.notes,
            verdict=self.exam.verdict,
            given=self.recipe.given is not None,
        )

    def state(self) -> State:
        """Everything that the rest of the run depends on."""
        self.settle()
        return {
            "synthesizer": self.synthesizer.state(),
            "trainer": self.trainer.state(),
            "pool": self.pool.state(with_rows=self.recipe.given is None),
            "exam": self.exam.state(),
            "order": self.order.get_state(),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    def load_state(self, state: State) -> None:
        """Continue from a saved state of the same settings."""
        self.synthesizer.load_state(state["synthesizer"])
        self.trainer.load_state(state["trainer"])
        self.pool.load_state(state["pool"], self.device)
        self.exam.load_state(state["exam"])
        self.order.set_state(state["order"])
        self.seconds = dict(state["seconds"])
        self.cpu_seconds = dict(state["cpu_seconds"])

    def _capacity(self) -> int:
        """How many inputs the pool keeps."""
        recipe = self.recipe
        if recipe.rounds is None:
            return recipe.images
        ever = recipe.rounds.batches(self.config.training.steps) * recipe.batch_size
        return min(self._kept(recipe.rounds), ever)

    def _kept(self, rounds: Rounds) -> int:
        """The most inputs that a pool may hold where batches come in turns."""
        return min(rounds.capacity, most_kept(self.teacher))

    def _due(self, student_steps: int) -> int:
        """How many batches there must be before the student step after ``student_steps``."""
        recipe = self.recipe
        if recipe.given is not None:
            return 0
        if recipe.rounds is None:
            return -(-recipe.images // recipe.batch_size)
        room = self._kept(recipe.rounds) // recipe.batch_size
        return recipe.rounds.due(student_steps, self.config.training.steps, room)

    def _make_batch(self, progress: Progress) -> None:
        recipe, synthesizer = self.recipe, self.synthesizer
        known = len(synthesizer.notes)
        self.settle()
        with self._timed("synthesis"):
            left = recipe.images - synthesizer.made * recipe.batch_size
            size = recipe.batch_size if recipe.rounds else min(recipe.batch_size, left)
            batch = synthesizer.make_batch(size)
        if self.exam.wanted:
            progress.step(self._judge(batch.images))
        if self._has_one_turn():
            images = self._due(0) * recipe.batch_size if recipe.rounds else recipe.images
            batch = self.exam.hold_out(batch, images)
        if not recipe.fresh:
            self.pool.add(batch)
        for note in synthesizer.notes[known:]:
            progress.step(note)

    def _train(self) -> None:
        size = self.config.training.batch_size
        with self._timed("synthesis"):
            batch = self.synthesizer.fresh_batch(size) if self.recipe.fresh else None
        with self._timed("training"):
            self.trainer.step(self.pool.draw(size, self.order) if batch is None else batch)

    def _examine(self, progress: Progress) -> None:
        """Have the student judged on inputs it has not learned from, when it is time."""
        exam = self.exam
        if not exam.due(self.trainer.steps_done) or self.recipe.given is not None:
            return
        if self._has_one_turn():
            if exam.held_out is not None:
                progress.step(self._judge(exam.held_out.images))
        elif self.recipe.fresh:
            progress.step(self._judge(self.synthesizer.fresh_batch(JUDGED).images))
        else:
            exam.wanted = True

    def _judge(self, images: Tensor) -> str:
        self.settle()
        with self.trainer.finished():
            return self.exam.judge(images, self.trainer.steps_done)

    def _has_one_turn(self) -> bool:
        """Whether all inputs are made before the student's first step, so that none come later."""
        rounds = self.recipe.rounds
        if rounds is None:
            return True
        return not rounds.fresh and self._due(0) == rounds.batches(self.config.training.steps)

    def _images(self) -> int:
        if self.recipe.given is not None:
            return len(self.recipe.given)
        if self.recipe.rounds is None:
            return self.recipe.images
        return self.synthesizer.made * self.recipe.batch_size + self.synthesizer.drawn

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[part] += time.perf_counter() - wall
        self.cpu_seconds[part] += time.process_time() - cpu
