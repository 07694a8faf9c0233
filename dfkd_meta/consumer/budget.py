"""Counts that fit a time: how many images and training steps a run can afford on this machine.

What comes out are plain counts in a plain configuration, so a run with them repeats exactly; only
finding them depends on the machine and its moment.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.consumer.pipeline import DistillConfig, check_student, make_recipe, most_kept
from dfkd_meta.consumer.run import Distillation
from dfkd_meta.errors import UsageError
from dfkd_meta.sidecar import Sidecar
from dfkd_meta.synthesis.recipe import SHARE, Recipe, find_method
from dfkd_meta.teachers import Teacher

Clock = Callable[[], float]
UNITS = {"s": 1, "m": 60, "h": 3600}

MOST_IMAGES = 60_000  # as many as alternating methods keep; the rest of the time trains
MANY_STEPS = 1_000_000  # a schedule that the few steps of a measurement do not reach the end of
SMALLEST = 32  # inputs of a batch
EARLY = 0.25  # the share of a budget that the first batches may take where their size is open
SHORTER = ("warm_up", "batch_size", "steps", "inner_steps")  # what makes first batches take less
MEASURING = 0.02  # the share of the budget that each measurement lasts at least ...
LONGEST = 2.0  # ... and no longer than this, in seconds


def seconds_of(text: str) -> float:
    """A duration such as ``90s``, ``5m`` or ``1.5h`` in seconds. Raises UsageError."""
    number, unit = text.strip()[:-1], text.strip()[-1:]
    try:
        seconds = float(number) * UNITS[unit]
    except (KeyError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{text!r} is no duration", hint="such as 90s, 5m or 1.5h")
    return seconds


@dataclass(frozen=True)
class Costs:
    """Seconds for one batch of ``recipe.batch_size`` inputs, and for one student step with all that
    belongs to it (the teacher's answers, fresh inputs)."""

    batch: float
    step: float


def plan_budget(
    teacher: Teacher,
    sidecar: Sidecar,
    config: DistillConfig,
    device: torch.device,
    seconds: float,
    *,
    share: float = SHARE,
    clock: Clock | None = None,
) -> DistillConfig:
    """``config`` with the counts that spend ``seconds`` on this machine, measured here and now.

    A few synthesis and student steps are timed by ``clock`` (default: CPU seconds of this process,
    on a GPU wall seconds) with networks and random streams of their own: nothing of the run is
    disturbed. Of a method that makes all inputs first, ``share`` of the time makes images; of one
    in which student and synthesis take turns, ``training.steps`` includes the batches between them;
    where inputs are given or drawn without optimization their number stays and all other time
    trains. A method that takes turns and names its own share of the time (``Rounds.share``) gets
    ``turn`` set to it, and where its first batches would take long, ``options.batch_size`` to fewer
    inputs. Counts are at least 1. The measurement itself comes on top.

    Raises as ``run_method`` does, and UsageError when half the time would have passed before the
    first student step, or ``options.images`` says what the budget is to find.
    """
    check_student(teacher, config)
    recipe = make_recipe(teacher, sidecar, config, device)
    long = config.training.model_copy(update={"steps": MANY_STEPS})
    probing = config.model_copy(update={"training": long})
    meter = Meter(clock or clock_of(device), min(MEASURING * seconds, LONGEST))
    costs = measure_costs(teacher, recipe, probing, device, meter)
    least = max(SMALLEST, 2 * teacher.outputs.num_classes)
    smaller = _smaller_batches(config, recipe, costs, seconds, least)
    if smaller is not None:
        return plan_budget(teacher, sidecar, smaller, device, seconds, share=share, clock=clock)
    turn = config.turn
    open_turn = turn is None and "student_steps" not in config.options
    if open_turn and recipe.rounds is not None and recipe.rounds.share is not None:
        left = seconds - recipe.rounds.warm_up * costs.batch
        turn = filling_turn(costs, left, recipe.rounds.share)
        recipe = replace(recipe, rounds=replace(recipe.rounds, student_steps=turn))
    _require_a_start(config.method, recipe, costs, seconds)
    most = min(MOST_IMAGES, most_kept(teacher))
    images, steps = fitting_counts(recipe, costs, seconds, share, most)
    if images is not None and "images" in config.options:
        raise UsageError(
            "a budget decides how many inputs are made",
            hint="leave out either it or options.images",
        )
    training = config.training.model_copy(update={"steps": steps})
    counts = {"images": images or config.images, "turn": turn, "training": training}
    return config.model_copy(update=counts)


def filling_turn(costs: Costs, seconds: float, share: float) -> int:
    """Student steps after each batch, so that whole turns fill the time.

    Of all turns ``share`` is for batches, but for what rounding to a whole number of them takes.
    """
    turns = max(1, round(share * seconds / costs.batch))
    return max(1, int((seconds / turns - costs.batch) / costs.step))


def fitting_counts(
    recipe: Recipe, costs: Costs, seconds: float, share: float, most: int = MOST_IMAGES
) -> tuple[int | None, int]:
    """Images (None: as the recipe has them) and student steps that together take ``seconds``.

    There are never more than ``most`` images; what is left of the time trains.
    """
    if recipe.rounds is not None:
        turn = recipe.rounds.student_steps
        left = seconds - recipe.rounds.warm_up * costs.batch
        whole, rest = divmod(left, costs.batch + turn * costs.step)
        # A turn begins with its batch, which a last turn that is cut short has to pay for as well.
        return None, max(1, int(whole * turn + max(0.0, (rest - costs.batch) / costs.step)))
    if recipe.given is not None:
        return None, max(1, int(seconds / costs.step))
    each = costs.batch / recipe.batch_size
    images = None
    if recipe.steps and recipe.terms:
        images = min(max(1, int(share * seconds / each)), most)
    spent = each * (images or recipe.images)
    return images, max(1, int((seconds - spent) / costs.step))


def _smaller_batches(
    config: DistillConfig, recipe: Recipe, costs: Costs, seconds: float, least: int
) -> DistillConfig | None:
    """``config`` with batches so small that the student starts early; None where they are.

    They are not made smaller than ``least``: fewer inputs take as long, and say less together.
    """
    if recipe.rounds is None or recipe.rounds.share is None or "batch_size" in config.options:
        return None
    first = (recipe.rounds.warm_up + 1) * costs.batch
    if first <= EARLY * seconds:
        return None
    size = max(least, int(recipe.batch_size * EARLY * seconds / first))
    if size >= recipe.batch_size:
        return None
    return config.model_copy(update={"options": {**config.options, "batch_size": size}})


def _require_a_start(name: str, recipe: Recipe, costs: Costs, seconds: float) -> None:
    """Refuse a budget that a method's first batches would use up before any student is trained."""
    first = recipe.rounds.warm_up + 1 if recipe.rounds else 0
    if first * costs.batch > seconds / 2:
        known = find_method(name).config.model_fields
        ways = [f"options.{option}" for option in SHORTER if option in known]
        raise UsageError(
            f"{name!r} makes {first} batches of about {costs.batch:.1f} s each before the first "
            f"student step, which leaves too little of {seconds:g} s",
            hint=f"a larger budget, or fewer and smaller batches: {', '.join(ways)}",
        )


def clock_of(device: torch.device, *, wall: bool = False) -> Clock:
    """What a second on ``device`` is: of this process's CPU time, or of a GPU that has finished.

    With ``wall`` it is a second of the clock on the wall on any device.
    """
    if device.type != "cuda":
        return time.perf_counter if wall else time.process_time

    def finished() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return finished


@dataclass(frozen=True)
class Meter:
    """Times work that comes in small pieces, for at least ``least`` seconds."""

    clock: Clock
    least: float

    def once(self, work: Callable[[], object]) -> float:
        started = self.clock()
        work()
        return self.clock() - started

    def each(self, work: Callable[[], object], most: int = 1_000) -> float:
        """Mean seconds of one piece, after one piece that does not count."""
        work()
        started, pieces = self.clock(), 0
        while pieces < most:
            work()
            pieces += 1
            if self.clock() - started >= self.least:
                break
        return (self.clock() - started) / pieces


def measure_costs(
    teacher: Teacher, recipe: Recipe, config: DistillConfig, device: torch.device, meter: Meter
) -> Costs:
    """Time a few pieces of both halves of a run."""
    if recipe.rounds is not None:  # the batches after the warm-up, which see the student
        recipe = replace(recipe, rounds=replace(recipe.rounds, warm_up=0))
    size = config.training.batch_size
    if recipe.given is not None:
        few = recipe.given.select(torch.arange(size) % len(recipe.given)).to(device)
        run = Distillation(teacher, replace(recipe, given=few), config, device)
        return Costs(0.0, meter.each(lambda: run.trainer.step(few)))
    batch = _batch_seconds(teacher, recipe, config, device, meter)
    short = Distillation(teacher, replace(recipe, steps=min(recipe.steps, 1)), config, device)
    made = short.synthesizer.make_batch(recipe.batch_size)
    sample = made.select(torch.arange(size, device=made.images.device) % len(made))

    def step() -> None:
        seen: SyntheticBatch = short.synthesizer.fresh_batch(size) if recipe.fresh else sample
        short.trainer.step(seen)

    return Costs(batch, meter.each(step))


def _batch_seconds(
    teacher: Teacher, recipe: Recipe, config: DistillConfig, device: torch.device, meter: Meter
) -> float:
    """Seconds of one whole batch, from batches of fewer optimization steps where it has many."""

    def batch(steps: int) -> Callable[[], SyntheticBatch]:
        short = Distillation(teacher, replace(recipe, steps=steps), config, device)
        return lambda: short.synthesizer.make_batch(recipe.batch_size)

    if recipe.steps <= 1 or not recipe.terms:
        return meter.each(batch(recipe.steps))
    base, steps = meter.each(batch(1), most=3), 1
    while True:
        steps = min(4 * steps, recipe.steps)
        more = min(meter.once(batch(steps)), meter.once(batch(steps)))  # one may be held up
        if more - base >= meter.least or steps == recipe.steps:
            break
    per_step = max(more - base, 0.0) / (steps - 1)
    return base + (recipe.steps - 1) * per_step
