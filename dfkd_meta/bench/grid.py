"""The grid file: teachers x students x methods x sidecar profiles x budgets x seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
)

from dfkd_meta.config import Config, load_config, model_at, read_toml
from dfkd_meta.errors import UsageError
from dfkd_meta.precision import Precision
from dfkd_meta.producer.config import Profile
from dfkd_meta.producer.opening import ExportRun
from dfkd_meta.producer.train import TrainConfig
from dfkd_meta.synthesis.recipe import SHARE
from dfkd_meta.teachers import is_own_code

# Names become names of files and columns.
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,59}$")]
Labels = Annotated[list[str], Field(min_length=1)]


class Settings(Config):
    """What a run is told beyond method, student and seed; the fields are those of ``distill``."""

    images: PositiveInt | None = None
    turn: PositiveInt | None = None
    precision: Precision | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    terms: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)


class Budget(Settings):
    """How much a run may spend: settings that say it outright, or CPU seconds.

    With ``cpu_seconds`` the number of images and of training steps is worked out on the machine at
    hand; ``share`` of the time goes to the images of methods that make them all first. ``teachers``
    and ``methods`` restrict the budget to some of them.
    """

    cpu_seconds: PositiveFloat | None = None
    share: float = Field(SHARE, gt=0, lt=1)
    teachers: Labels | None = None
    methods: Labels | None = None


class MethodEntry(Settings):
    """One row of the table: a method (``method``, by default the row's own name) and its settings.

    ``teachers``, ``profiles`` and ``budgets`` restrict the row to some of them.
    """

    method: str | None = None
    teachers: Labels | None = None
    profiles: Labels | None = None
    budgets: Labels | None = None


class Override(Settings):
    """Settings for the runs that match every name given; later overrides win.

    ``skip`` leaves those runs out and says why in the table.
    """

    teacher: str | Labels | None = None
    student: str | Labels | None = None
    method: str | Labels | None = None
    profile: str | Labels | None = None
    budget: str | Labels | None = None
    skip: Annotated[str, StringConstraints(min_length=1)] | None = None


class TeacherEntry(Config):
    """A teacher: published already, or made here once per profile.

    Published: ``published`` is a folder or Hub id, or one for each profile. Made here: ``model``
    (an architecture, code of your own as ``module:function``, or a model folder) with ``weights``,
    or trained as ``train`` says; then its statistics over ``data`` are exported as ``export`` says.
    A published one that code of your own builds has its name in ``export.factory``. ``test`` (by
    default ``data``) is what the students are measured on, its split ``test`` unless it names
    another; ``benchmark`` the name under which published numbers are looked up.
    """

    published: str | dict[Label, str] | None = None
    model: str | None = None
    weights: str | None = None
    train: dict[str, Any] | None = None
    export: ExportRun = ExportRun()
    data: str | None = None
    test: str | None = None
    benchmark: str | None = None
    students: Labels | None = None
    profiles: Labels | None = None

    @property
    def factory(self) -> str | None:
        """The code of the user's own that builds the teacher again from what lies in its folder."""
        own = self.model is not None and is_own_code(self.model)
        return self.export.factory or (self.model if own else None)


class Variant(Config):
    """A profile with some of its records: what ``redact`` makes of it, given the same options."""

    profile: Profile
    leave_out: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


class Grid(Config):
    """The whole file. ``defaults`` are settings that every run starts from, ``variants`` are names
    that may stand among ``profiles`` of teachers made here.

    A run is told: defaults, then its row's settings, its budget's, and the overrides that match.
    ``threads`` is per run; left out, the cores are shared out evenly among the runs under way.
    ``curve`` is how often a student is measured on the way (0: only at the end); results that are
    there already stay as they are.
    """

    title: str = "Benchmark"
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)
    threads: PositiveInt | None = None
    curve: int = Field(0, ge=0, le=1_000)
    students: Labels = Field(["half"])
    profiles: Labels = Field(["full"])
    variants: dict[Label, Variant] = Field(default_factory=dict)
    defaults: Settings = Settings()
    budgets: dict[Label, Budget] = Field({"default": Budget()}, min_length=1)
    teachers: Annotated[dict[Label, TeacherEntry], Field(min_length=1)]
    methods: Annotated[dict[Label, MethodEntry], Field(min_length=1)]
    override: list[Override] = Field(default_factory=list)


def read_grid(file: Path) -> Grid:
    """The grid in ``file``. Raises UsageError that names the key and what is wrong with it."""
    values = read_toml(file, "grid")
    try:
        grid = Grid.model_validate(values)
    except ValidationError as error:
        raise _refused(error, file) from error
    try:
        _check(grid)
    except UsageError as error:
        error.where = str(file)
        raise
    return grid


def train_config(name: str, entry: TeacherEntry) -> TrainConfig:
    """How the teacher called ``name`` is trained. Raises UsageError."""
    try:
        return load_config(TrainConfig, override=entry.train)
    except UsageError as error:
        error.message = f"teachers.{name}.train: {error.message}"
        raise


def variant_of(grid: Grid, profile: str) -> Variant:
    """What the name of a profile or variant stands for. Raises ValidationError for another name."""
    return grid.variants.get(profile) or Variant.model_validate({"profile": profile})


def profiles_of(grid: Grid, teacher: str) -> list[str]:
    """The sidecar profiles that ``teacher`` is tried with."""
    entry = grid.teachers[teacher]
    if isinstance(entry.published, str):
        return ["published"]
    if isinstance(entry.published, dict):
        everywhere = grid.profiles if "profiles" in grid.model_fields_set else entry.published
        return [name for name in entry.profiles or everywhere if name in entry.published]
    return list(entry.profiles or grid.profiles)


def _check(grid: Grid) -> None:
    """What needs two keys at once. Raises UsageError."""
    for name in grid.variants:
        if name in get_args(Profile):
            raise UsageError(f"variants.{name}: a profile has that name already")
    for name, teacher in grid.teachers.items():
        _check_teacher(name, teacher, grid)
    for name, budget in grid.budgets.items():
        if budget.cpu_seconds and (budget.images or "steps" in budget.training):
            raise UsageError(
                f"budgets.{name}: name cpu_seconds, or images and training.steps, not both"
            )
        _known(f"budgets.{name}.teachers", budget.teachers, list(grid.teachers))
        _known(f"budgets.{name}.methods", budget.methods, list(grid.methods))
    for name, row in grid.methods.items():
        _known(f"methods.{name}.teachers", row.teachers, list(grid.teachers))
        _known(f"methods.{name}.budgets", row.budgets, list(grid.budgets))
        _known(f"methods.{name}.profiles", row.profiles, _all_profiles(grid))
    for index, rule in enumerate(grid.override):
        where = f"override.{index}"
        _known(f"{where}.teacher", rule.teacher, list(grid.teachers))
        _known(f"{where}.method", rule.method, list(grid.methods))
        _known(f"{where}.budget", rule.budget, list(grid.budgets))
        _known(f"{where}.profile", rule.profile, _all_profiles(grid))
        _known(f"{where}.student", rule.student, _all_students(grid))


def _check_teacher(name: str, entry: TeacherEntry, grid: Grid) -> None:
    key = f"teachers.{name}"
    made = [word for word in ("model", "weights", "train") if getattr(entry, word) is not None]
    if (entry.published is None) == (entry.model is None):
        raise UsageError(f"{key}: name either 'published' or 'model'")
    if entry.published is not None and made:
        raise UsageError(f"{key}: a published teacher is not made here; remove {made[0]!r}")
    if isinstance(entry.published, str) and entry.profiles:
        raise UsageError(f"{key}.profiles: what is published at one place has one sidecar")
    if isinstance(entry.published, dict):
        _known(f"{key}.profiles", entry.profiles, list(entry.published))
    if entry.weights is not None and entry.train is not None:
        raise UsageError(f"{key}: a teacher is trained or has weights, not both")
    if entry.model is not None and entry.data is None:
        raise UsageError(f"{key}.data: statistics need the data they are taken from")
    if entry.data is None and entry.test is None:
        raise UsageError(f"{key}.test: students are measured on it; it is missing")
    if entry.train is not None:
        train_config(name, entry)
    if entry.model is not None:
        _known(f"{key}.profiles", profiles_of(grid, name), [*get_args(Profile), *grid.variants])
    if not profiles_of(grid, name):
        raise UsageError(f"{key}.profiles: none of them is published")


def _all_profiles(grid: Grid) -> list[str]:
    return list(dict.fromkeys(p for name in grid.teachers for p in profiles_of(grid, name)))


def _all_students(grid: Grid) -> list[str]:
    found = [s for entry in grid.teachers.values() for s in entry.students or grid.students]
    return list(dict.fromkeys(found))


def _known(key: str, given: str | list[str] | None, known: list[str]) -> None:
    for name in [given] if isinstance(given, str) else given or []:
        if name not in known:
            raise UsageError(f"{key}: there is no {name!r} here", hint="known: " + ", ".join(known))


def _refused(error: ValidationError, file: Path) -> UsageError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(model_at(Grid, first["loc"][:-1]).model_fields))
        return UsageError(f"there is no key {key!r}", where=str(file), hint=f"known: {known}")
    return UsageError(f"key {key!r}: {first['msg']}, got {first['input']!r}", where=str(file))
