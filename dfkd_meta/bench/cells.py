"""From a grid to its runs: what each is told, and the key that its result is filed under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

from dfkd_meta.bench.grid import Budget, Grid, MethodEntry, Settings, profiles_of
from dfkd_meta.config import load_config, make_config
from dfkd_meta.consumer.pipeline import DistillConfig
from dfkd_meta.errors import UsageError
from dfkd_meta.synthesis.recipe import find_method

AXES = ("teacher", "student", "method", "profile", "budget", "seed")
CONTROLS = ("noise", "alternative_data", "real_data", "scratch")
WHOLE = ("images", "turn", "precision")  # settings that later layers replace
ON_TRAINING_DATA = ("real_data", "scratch")  # they take the teacher's ``data`` unless told others


@dataclass(frozen=True)
class Cell:
    """One run of the grid, by the names that the grid gives its parts."""

    teacher: str
    student: str
    method: str
    profile: str
    budget: str
    seed: int

    def __str__(self) -> str:
        return (
            f"{self.teacher} -> {self.student}, {self.method}, sidecar {self.profile}, "
            f"budget {self.budget}, seed {self.seed}"
        )


@dataclass(frozen=True)
class Run:
    """A cell and what its run is told, texts as typed; ``skip`` says why it is left out."""

    cell: Cell
    config: DistillConfig
    budget: Budget
    skip: str | None = None

    @property
    def control(self) -> bool:
        return self.config.method in CONTROLS


def runs_of(grid: Grid, only: Sequence[str] = ()) -> list[Run]:
    """Every run of the grid in the order they are made: seed by seed, so that rows fill evenly.

    ``only`` keeps those that match ``axis=pattern`` texts, e.g. ``method=lopes_*``: all axes named,
    any of the patterns of one axis. Raises UsageError that names the entry with a wrong setting.
    """
    wanted = _patterns(only)
    runs = [
        _run(grid, Cell(teacher, student, method, profile, budget, seed))
        for seed in dict.fromkeys(grid.seeds)
        for teacher, entry in grid.teachers.items()
        for student in dict.fromkeys(entry.students or grid.students)
        for profile in dict.fromkeys(profiles_of(grid, teacher))
        for budget, (method, row) in product(grid.budgets, grid.methods.items())
        if _in_row(row, teacher, profile, budget)
        and _in_budget(grid.budgets[budget], teacher, method)
    ]
    return [run for run in runs if matches(run.cell, wanted)]


def result_key(run: Run, *, sidecar: str, test: str, device: str, package: str) -> str:
    """The digest of all that decides the result of a run: 16 hexadecimal digits.

    ``sidecar`` is the digest of teacher and sidecar, ``test`` names the data measured on,
    ``device`` is a kind (cpu or cuda), ``package`` the version of dfkd-meta. Names that the grid
    gives its parts do not count, nor does where data lie on this machine.
    """
    spent = run.budget.model_dump(include={"cpu_seconds", "share"}) if timed(run) else None
    decisive = {
        "config": run.config.model_dump(mode="json"),
        "budget": spent,
        "sidecar": sidecar,
        "test": test,
        "device": device,
        "dfkd_meta": package,
    }
    return digest_of(decisive)


def digest_of(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of ``value`` as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def timed(run: Run) -> bool:
    """Whether the counts of this run are worked out from a time."""
    return run.budget.cpu_seconds is not None


def matches(cell: Cell, wanted: Mapping[str, Sequence[str]]) -> bool:
    return all(
        any(fnmatchcase(str(getattr(cell, axis)), pattern) for pattern in patterns)
        for axis, patterns in wanted.items()
    )


def _patterns(only: Iterable[str]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for text in only:
        axis, sign, pattern = text.partition("=")
        if not sign or axis not in AXES:
            raise UsageError(
                f"{text!r} is not axis=pattern",
                hint=f"axes: {', '.join(AXES)}; e.g. --only method=lopes_* --only seed=0",
            )
        wanted.setdefault(axis, []).append(pattern)
    return wanted


def _in_row(row: MethodEntry, teacher: str, profile: str, budget: str) -> bool:
    return _allows((row.teachers, teacher), (row.profiles, profile), (row.budgets, budget))


def _in_budget(budget: Budget, teacher: str, method: str) -> bool:
    return _allows((budget.teachers, teacher), (budget.methods, method))


def _allows(*named: tuple[Sequence[str] | None, str]) -> bool:
    """Whether every restriction that is made names what it restricts."""
    return all(names is None or name in names for names, name in named)


def _run(grid: Grid, cell: Cell) -> Run:
    row, budget = grid.methods[cell.method], grid.budgets[cell.budget]
    rules = [rule for rule in grid.override if matches(cell, _names(rule))]
    layers: list[Settings] = [grid.defaults, row, budget, *rules]
    method = row.method or cell.method
    told: dict[str, Any] = {
        "method": method,
        "student": cell.student,
        "seed": cell.seed,
        **{name: value for name in WHOLE if (value := _last(layers, name)) is not None},
        **{
            part: _merged(getattr(layer, part) for layer in layers)
            for part in ("options", "terms", "training")
        },
    }
    data = grid.teachers[cell.teacher].data
    if method in ON_TRAINING_DATA and data is not None:
        told["options"] = {"data": data, **told["options"]}
    if budget.cpu_seconds and any(rule.images or "steps" in rule.training for rule in rules):
        raise UsageError(
            f"{cell}: the budget is a time, which decides images and training.steps, and an "
            "override sets them as well",
            hint="name the budgets that the override is for",
        )
    try:
        config = load_config(DistillConfig, override=told)
        make_config(find_method(method).config, config.options)
    except UsageError as error:
        error.where = f"methods.{cell.method} ({cell})"
        raise
    skip = next((rule.skip for rule in reversed(rules) if rule.skip), None)
    return Run(cell, config, budget, skip)


def _names(rule: Settings) -> dict[str, list[str]]:
    given = {axis: getattr(rule, axis, None) for axis in AXES}
    return {a: [v] if isinstance(v, str) else v for a, v in given.items() if v is not None}


def _last(layers: Sequence[Settings], name: str) -> Any:
    """The value of a setting where the latest layer gives it, else None."""
    given = [getattr(layer, name) for layer in layers]
    return next((value for value in reversed(given) if value is not None), None)


def _merged(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Tables merged key by key, later ones on top."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                value = _merged([old, value])
            merged[key] = value
    return merged
