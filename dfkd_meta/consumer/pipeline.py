"""What decides a distillation, and the recipe that follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pydantic import Field, JsonValue

from dfkd_meta.config import Config, make_config
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.distillation.losses import losses
from dfkd_meta.distillation.students import Student, build_student, check_student_name
from dfkd_meta.distillation.training import named_losses
from dfkd_meta.errors import MethodError, UsageError
from dfkd_meta.precision import Precision, Settled, computing, settle
from dfkd_meta.seeding import generator_for
from dfkd_meta.sidecar import Sidecar
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, find_method, methods
from dfkd_meta.teachers import Teacher

POOL_NUMBERS = 2**30  # in the inputs kept for a student: 4 GiB of float32


class TermConfig(Config):
    """What can be changed about one term of a method."""

    weight: float


class DistillConfig(Config):
    """Everything that decides a student, besides teacher and sidecar.

    ``student`` is a name that ``build_student`` knows, ``student_arguments`` what its factory is
    told besides (values that JSON has, since they are saved with the student). ``options`` are
    those of the method; ``terms`` changes the weights of its terms by name
    (``terms.bn.weight=10``); ``images`` replaces the number of inputs that a method makes before
    the student is trained, ``turn`` the number of student steps after each batch of a method in
    which they take turns. ``precision`` is that of the networks while they are used for synthesis
    and training; ``auto`` is bfloat16 on machines with instructions for it, else float32.
    """

    method: str = "recorded"
    student: str = "half"
    student_arguments: dict[str, JsonValue] = Field(default_factory=dict)
    seed: int = 0
    images: int | None = Field(None, ge=1)
    turn: int | None = Field(None, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)
    terms: dict[str, TermConfig] = Field(default_factory=dict)
    precision: Precision = "auto"
    training: TrainingConfig = TrainingConfig()


def check_names(config: DistillConfig) -> None:
    """Refuse what is right for no teacher, before one is downloaded.

    Raises UsageError for a method, an option of it, a loss or a student that there is not.
    """
    make_config(find_method(config.method).config, config.options, prefix="options.")
    for name in config.training.losses or {}:
        losses.get(name)
    check_student_name(config.student)


def check_student(teacher: Teacher, config: DistillConfig) -> None:
    """Refuse settings that training would refuse, before minutes of synthesis.

    Raises UsageError (see ``check_names``), TeacherError (the student cannot be built, or does not
    fit).
    """
    check_names(config)
    student_of(config, teacher, seed=0)


def student_of(config: DistillConfig, teacher: Teacher, *, seed: int) -> Student:
    """The student that ``config`` names, untrained. Raises UsageError, TeacherError."""
    return build_student(config.student, teacher, seed=seed, arguments=config.student_arguments)


def precision_of(config: DistillConfig, teacher: Teacher, device: torch.device) -> Settled:
    """What ``config.precision`` comes to; ``auto`` is float32 where a network fails in less.

    Raises as ``student_of``.
    """
    settled = settle(config.precision, device)
    if config.precision == "auto" and settled != "float32":
        student = student_of(config, teacher, seed=0).module.to(device).eval()
        try:
            with torch.no_grad(), computing(settled, device):
                for network in (teacher.module, student):
                    network(torch.zeros(2, *teacher.inputs.shape, device=device))
        except RuntimeError:  # such as layers that mix the precisions of weights and inputs
            return "float32"
    return settled


def most_kept(teacher: Teacher) -> int:
    """How many inputs of this teacher fit into 4 GiB."""
    return max(1, POOL_NUMBERS // math.prod(teacher.inputs.shape))


def make_recipe(
    teacher: Teacher, sidecar: Sidecar, config: DistillConfig, device: torch.device
) -> Recipe:
    """The recipe of ``config.method``, for no more inputs at once than may be kept.

    Raises MethodError (needs), UsageError (options, losses).
    """
    context = MethodContext(teacher, sidecar, device, generator_for(config.seed, "weights"))
    weights = {name: term.weight for name, term in config.terms.items()}
    recipe = find_method(config.method).recipe(context, config.options).reweighted(weights)
    notes = []
    if config.turn is not None:
        if recipe.rounds is not None:
            recipe = replace(recipe, rounds=replace(recipe.rounds, student_steps=config.turn))
        else:
            notes.append(f"turn={config.turn} means nothing here: inputs come before the student")
    if config.images is not None:
        if recipe.rounds is None and recipe.given is None:
            recipe = replace(recipe, images=config.images)
        else:
            why = "inputs and student take turns" if recipe.rounds else "they are given"
            notes.append(f"images={config.images} means nothing here: {why}")
    if recipe.rounds is None and recipe.given is None and recipe.images > most_kept(teacher):
        notes.append(f"{most_kept(teacher):,} inputs, not {recipe.images:,}: 4 GiB hold no more")
        recipe = replace(recipe, images=most_kept(teacher))
    known, described = range(teacher.outputs.num_classes), set(sidecar.classes)
    if missing := [str(number) for number in known if number not in described]:
        notes.append(f"no inputs for what the sidecar does not describe: class {_listed(missing)}")
    if partial := sidecar.partial:
        names = _listed([record.id for record in partial])
        notes.append(f"not used, of some classes only: {names}")
    _check_labels(config, recipe)
    return replace(recipe, notes=(*recipe.notes, *notes))


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join([*names[:most], "..."] if len(names) > most else names)


def _check_labels(config: DistillConfig, recipe: Recipe) -> None:
    """Raise UsageError for a loss that needs labels where the inputs will have none."""
    labeled = recipe.labeled if recipe.given is None else recipe.given.labels is not None
    for name, weight in named_losses(config.training, recipe.student_losses).items():
        if weight and not labeled and losses.get(name).needs_labels:
            raise UsageError(
                f"the loss {name!r} needs labels, and {config.method!r} makes inputs without",
                hint="leave it out, or take a method whose inputs have labels, such as recorded",
            )


@dataclass(frozen=True)
class ComponentRow:
    """What one method is made of for one teacher: see ``Recipe.components``.

    ``others`` are the weights of terms outside the component table; ``note`` says what stands in
    for what, or why the method cannot run.
    """

    method: str
    components: dict[str, float | str] = field(default_factory=dict)
    others: dict[str, float] = field(default_factory=dict)
    note: str = ""


def component_table(teacher: Teacher, sidecar: Sidecar) -> list[ComponentRow]:
    """A row per method that synthesizes, from its recipe with default options."""
    rows = []
    for name in methods.names():
        method = methods.get(name)
        if "data" in method.config.model_fields:
            continue
        try:
            recipe = method.recipe(MethodContext(teacher, sidecar, teacher.device), {})
        except MethodError as error:
            rows.append(ComponentRow(name, note=f"cannot run: {error.message}"))
            continue
        others = {
            key: item.weight
            for key, item in recipe.terms.items()
            if item.weight and not item.term.component
        }
        rows.append(ComponentRow(name, recipe.components(), others, "; ".join(recipe.notes)))
    return rows
