"""The teacher that a publisher names, with the input block that bare weights lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue, ValidationError

from dfkd_meta.errors import UsageError
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.sidecar import InputSpec, channel_axis
from dfkd_meta.teachers import (
    REQUIRED_INPUTS,
    Teacher,
    check_name,
    for_all_channels,
    inputs_needed,
    open_teacher,
)

AXES = {1: ["f"], 2: ["t", "f"], 3: ["c", "h", "w"], 4: ["c", "d", "h", "w"]}


class ExportRun(ExportConfig):
    """An export and how its teacher is opened.

    ``inputs`` is the input block of the standard, needed for bare weights; ``axes`` may be left out
    for images `c h w`, tokens `t f` and vectors `f`, and one number in ``mean`` or ``std`` goes for
    all channels. ``arguments`` go to the architecture or factory, ``num_classes`` too if it takes
    it; ``factory`` (module:factory) builds folders of the caller's own code.
    """

    inputs: dict[str, Any] | None = None
    num_classes: int | None = Field(None, ge=2)
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    factory: str | None = None


def open_for_export(where: str, weights: Path | None, run: ExportRun) -> Teacher:
    """Open the teacher. Raises UsageError that shows what to type when inputs are not described."""
    if Path(where).is_dir() and weights is not None:
        raise UsageError(
            "a model folder has its own weights", where=where, hint="leave --weights out"
        )
    check_name(where)
    inputs = None
    if run.inputs is not None or not Path(where).is_dir():
        inputs = _input_spec(run.inputs or {}, where)
    return open_teacher(
        where,
        weights=weights,
        inputs=inputs,
        num_classes=run.num_classes,
        arguments=run.arguments,
        factory=run.factory,
    )


def _input_spec(block: dict[str, Any], where: str) -> InputSpec:
    if missing := [name for name in REQUIRED_INPUTS if name not in block]:
        raise inputs_needed(where, f"inputs.{missing[0]} is missing", missing)
    if unknown := sorted(set(block) - set(InputSpec.model_fields)):
        known = ", ".join(InputSpec.model_fields)
        raise UsageError(f"option 'inputs.{unknown[0]}': there is none", hint=f"known: {known}")
    shape = block["shape"]
    axes = AXES.get(len(shape)) if isinstance(shape, list) else None
    try:
        spec = InputSpec.model_validate({"axes": axes, **block})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in ("inputs", *first["loc"]))
        raise UsageError(f"option {key!r}: {first['msg']}, got {first['input']!r}") from error
    if len(spec.axes) > 1 and channel_axis(spec.axes) is None:
        raise UsageError(
            f"option 'inputs.axes': none of {' '.join(spec.axes)} holds channels",
            hint="call that of the channels c, or that of the features f",
        )
    return for_all_channels(spec)
