"""The input block of a teacher: what must be stated, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Iterable

from dfkd_meta.errors import TeacherError, UsageError
from dfkd_meta.sidecar.checks.layout import disagreements
from dfkd_meta.sidecar.manifest import InputSpec

REQUIRED_INPUTS = {  # what has no default, with an example
    "shape": "[1, 32, 32]",
    "value_range": "[0, 1]",
    "mean": "[0.1307]",
    "std": "[0.3081]",
}


def inputs_needed(where: str, lacking: str, missing: Iterable[str] = REQUIRED_INPUTS) -> UsageError:
    """How inputs are prepared is not known: what is lacking, and how to state it."""
    stated = " ".join(f"--set 'inputs.{name}={REQUIRED_INPUTS[name]}'" for name in missing)
    return UsageError(
        f"it is not known how inputs are prepared: {lacking}",
        where=where,
        hint=f"there is no default normalization; for MNIST in LeNet-5 one types {stated}",
    )


def check_inputs(inputs: InputSpec, where: str) -> None:
    """Refuse an input block that contradicts itself, or images that are not `c h w`.

    Views would mistake other axes for places. Raises TeacherError.
    """
    if not len(inputs.shape) == len(inputs.axes) == len(set(inputs.axes)):
        raise TeacherError(
            f"the inputs have the shape {list(inputs.shape)} and the axes {' '.join(inputs.axes)}",
            where=where,
            hint="name every axis of the shape, each once",
        )
    for _, field, text in disagreements(inputs):
        raise TeacherError(f"inputs.{field}: {text}", where=where)
    if {"c", "h", "w"} <= set(inputs.axes) and inputs.axes[0] != "c":
        raise TeacherError(
            f"the teacher takes images as {' '.join(inputs.axes)}, and these tools as c h w",
            where=where,
            hint="name a factory (module:function) that puts a permutation before the model",
        )
