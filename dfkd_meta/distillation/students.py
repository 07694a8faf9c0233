"""Which student: a built-in architecture, or the teacher's own at a fraction of its width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue
from torch import nn

from dfkd_meta.errors import UsageError
from dfkd_meta.teachers import Teacher, architectures, build_model

WIDTHS = {"same": 1.0, "half": 0.5, "quarter": 0.25}


@dataclass(frozen=True)
class Student:
    """An untrained student: architecture name, arguments, and the module."""

    architecture: str
    arguments: dict[str, JsonValue]
    module: nn.Module


def build_student(name: str, teacher: Teacher, *, seed: int) -> Student:
    """The student called ``name`` for this teacher's inputs and classes, initialized from ``seed``.

    ``name`` is a built-in architecture, or ``same``, ``half``, ``quarter`` or a number in (0, 1]:
    the teacher's architecture with its width multiplied by it. Raises UsageError.
    """
    ratio = _ratio(name)
    if ratio is None:
        architectures.get(name)
        arguments: dict[str, Any] = {
            "num_classes": teacher.outputs.num_classes,
            "shape": list(teacher.inputs.shape),
        }
        return Student(name, arguments, build_model(name, arguments, seed=seed))
    if teacher.source != "builtin":
        raise UsageError(
            f"student {name!r} is a width of the teacher, "
            f"but {teacher.architecture!r} is not built in",
            hint="name a built-in student: " + ", ".join(architectures.names()),
        )
    arguments = dict(teacher.arguments)
    width = arguments.get("width", 1.0)
    arguments["width"] = ratio * (width if isinstance(width, float | int) else 1.0)
    module = build_model(teacher.architecture, arguments, seed=seed)
    return Student(teacher.architecture, arguments, module)


def _ratio(name: str) -> float | None:
    """The width ratio that ``name`` stands for, None when it is no ratio."""
    if name in WIDTHS:
        return WIDTHS[name]
    try:
        ratio = float(name)
    except ValueError:
        return None
    if not 0 < ratio <= 1:
        raise UsageError(f"a width ratio lies in (0, 1], got {name}")
    return ratio
