"""Built-in architectures: one file per family, looked up by name, built from JSON arguments.

Every factory takes ``(num_classes, shape, width=1.0, ...)``: ``shape`` is one sample without the
batch axis, ``width`` scales the hidden widths. The parameter names are those of the published
checkpoints, so that their safetensors files load as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from dfkd_meta.errors import TeacherError
from dfkd_meta.registry import Registry

# Bounds are wide for any real teacher; they keep a hostile manifest from asking for terabytes.
Classes = Annotated[int, Field(ge=2, le=100_000)]
Shape = Annotated[
    Sequence[Annotated[int, Field(ge=1, le=65_536)]], Field(min_length=1, max_length=4)
]
Width = Annotated[float, Field(gt=0, le=16)]

architectures: Registry[Callable[..., nn.Module]] = Registry(
    "architecture", "dfkd_meta.teachers.architectures"
)


def scaled(size: int, width: float) -> int:
    """``size * width`` rounded to the nearest whole number, at least 1."""
    return max(1, round(size * width))


def image_shape(name: str, shape: Sequence[int], smallest: int) -> tuple[int, int, int]:
    """Check that ``shape`` is `c h w` with h and w at least ``smallest``. Raises TeacherError."""
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise TeacherError(
            f"{name} needs inputs of shape c h w of at least {smallest}x{smallest} pixels, "
            f"got {list(shape)}"
        )
    channels, height, width = shape
    return channels, height, width
