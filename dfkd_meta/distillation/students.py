"""Which student: a built-in architecture, the caller's own, or the teacher's own but narrower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import JsonValue
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from dfkd_meta.errors import TeacherError, UsageError
from dfkd_meta.sidecar.manifest import InputSpec
from dfkd_meta.teachers import (
    Teacher,
    architectures,
    build_model,
    build_own,
    is_own_code,
    parameters_of,
    probe,
    suited_layout,
)

WIDTHS = {"same": 1.0, "half": 0.5, "quarter": 0.25}


@dataclass(frozen=True)
class Student:
    """An untrained student, and what builds it again: as in a model's ``config.json``.

    ``source`` is ``builtin``, or ``local`` for code of the caller's own (``module:function``).
    """

    source: str
    architecture: str
    arguments: dict[str, JsonValue]
    module: nn.Module


def check_student_name(name: str) -> None:
    """Raises UsageError when ``name`` is no student of any teacher: see ``build_student``."""
    if is_own_code(name):
        parameters_of(name)
    elif _ratio(name) is None and name not in architectures.names():
        raise UsageError(
            f"there is no student {name!r}",
            hint="half, quarter or a ratio of the teacher's width, your own module:function, or "
            + ", ".join(architectures.names()),
        )


def build_student(
    name: str, teacher: Teacher, *, seed: int, arguments: Mapping[str, JsonValue] | None = None
) -> Student:
    """The student called ``name`` for this teacher's inputs and classes, initialized from ``seed``.

    ``name`` is one of

    * a built-in architecture, called with ``num_classes``, ``shape`` and ``arguments``;
    * ``module:function``, code of the caller's own, called with ``num_classes``, with ``shape`` if
      it has a parameter of that name, and with ``arguments``;
    * ``same``, ``half``, ``quarter`` or a number in (0, 1]: the teacher's architecture with its
      ``width`` multiplied by it, where that is built in or code of the caller's own. What it keeps
      beside weights, such as the scales of its inputs, is the teacher's.

    Raises UsageError, and TeacherError when it cannot be built or does not give the logits asked.
    """
    ratio = _ratio(name)
    if ratio is not None:
        source, name, told = _narrower(name, teacher, ratio)
    else:
        source = "local" if is_own_code(name) else "builtin"
        told = {"num_classes": teacher.outputs.num_classes}
        if source == "builtin" or "shape" in parameters_of(name):
            told["shape"] = list(teacher.inputs.shape)
    told |= arguments or {}
    if source == "builtin":
        module = build_model(name, told, seed=seed)
        classes = probe(module.eval(), teacher.inputs, where=name)
        module.train()
    else:
        module, classes = _own(name, told, teacher, seed)
        if ratio is not None:
            _take_constants(module, teacher.module)
    if classes != teacher.outputs.num_classes:
        raise TeacherError(
            f"the student returns {classes} logits, "
            f"the teacher has {teacher.outputs.num_classes} classes",
            where=name,
        )
    return Student(source, name, told, suited_layout(module, teacher.inputs.shape))


def _narrower(name: str, teacher: Teacher, ratio: float) -> tuple[str, str, dict[str, Any]]:
    """Source, architecture and arguments of the teacher at a fraction of its width."""
    own = teacher.factory
    told: dict[str, Any] = dict(teacher.arguments)
    fits = teacher.source == "builtin"
    if own is not None:
        fits = ratio == 1 or "width" in parameters_of(own)
    if not fits:
        what = f"{own} takes no argument 'width'" if own else "it is of another library"
        raise UsageError(
            f"student {name!r} is a width of the teacher {teacher.architecture!r}, and {what}",
            hint="name your own student, module:function, or a built-in one: "
            + ", ".join(architectures.names()),
        )
    width = teacher.arguments.get("width", 1.0)
    if ratio != 1:
        told["width"] = ratio * (width if isinstance(width, float | int) else 1.0)
    return ("builtin", teacher.architecture, told) if own is None else ("local", own, told)


def _own(
    factory: str, arguments: Mapping[str, JsonValue], teacher: Teacher, seed: int
) -> tuple[nn.Module, int]:
    """The caller's module, tried on two inputs, and the number of its logits.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = build_own(factory, arguments, option="student_arguments")
        classes = probe(module.eval(), teacher.inputs, where=factory)
        _try_in_training(module.train(), teacher.inputs, where=factory)
    return module, classes


@torch.no_grad()
def _take_constants(student: nn.Module, teacher: nn.Module) -> None:
    """Copy the buffers that both have in the same shape, but for what norms learn from data."""
    theirs = dict(teacher.named_buffers())
    for path, part in student.named_modules():
        if isinstance(part, _NormBase):
            continue
        for name, own in part.named_buffers(path, recurse=False):
            other = theirs.get(name)
            if other is not None and other.shape == own.shape:
                own.copy_(other)


def _try_in_training(module: nn.Module, inputs: InputSpec, *, where: str) -> None:
    """Refuse what would fail at the first step; buffers are left as they were."""
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise TeacherError("the student has no weights that can be trained", where=where)
    kept = [buffer.clone() for buffer in module.buffers()]
    probe(module, inputs, where=f"{where}, as a student in training mode")
    with torch.no_grad():
        for buffer, value in zip(module.buffers(), kept, strict=True):
            buffer.copy_(value)


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
