"""Raw values to model inputs and back: resize, crop, normalize, exactly as the manifest says."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dfkd_meta.errors import DataError
from dfkd_meta.sidecar.manifest import InputSpec
from dfkd_meta.teachers.axes import channel_axis, is_image

TOLERANCE = 1e-4  # of the width of value_range: float rounding, not another scale


def preprocess(raw: Tensor | NDArray[np.generic], inputs: InputSpec) -> Tensor:
    """Resize, crop and normalize raw samples: ``(raw - mean) / std`` per channel.

    ``raw`` is `n c h w` (color as RGB), `n t f` or `n f` of floats within ``inputs.value_range``,
    where that is [0, 1] also of whole numbers from 0 to 255; the result is float32 `n ...` of
    ``inputs.shape``. Without ``crop_pct`` an image is resized to h x w, whatever its aspect. With
    it, as in timm, to the larger size h/crop_pct x w/crop_pct, of which the middle is kept:
    ``center`` (default) scales by the shorter side, ``squash`` both sides; ``border`` is not
    supported. Resizing is torch's (half-pixel centers, ``nearest`` too, as
    Pillow has it), with an antialias filter when it shrinks. Raises DataError for another shape,
    values out of range or NaN.
    """
    low, high = inputs.value_range
    raw = torch.as_tensor(raw)
    if not raw.is_floating_point() and (low, high) == (0.0, 1.0):
        raw = raw / 255
    slack = TOLERANCE * (high - low)
    if raw.numel() and not bool(((raw >= low - slack) & (raw <= high + slack)).all()):
        if lost := int(raw.isnan().sum()):
            raise DataError(f"{lost:,} of {raw.numel():,} values are NaN", where="the data")
        found = f"{raw.min().item():g} to {raw.max().item():g}"
        raise DataError(
            f"values reach from {found}, the teacher expects {low:g} to {high:g}",
            where="inputs.value_range",
            hint="scale the data as they were for the teacher's training",
        )
    x = _layout(raw.to(torch.float32), inputs)
    if is_image(inputs):
        x = _fit(x, inputs).clamp(low, high)  # bicubic overshoots
    if inputs.color_order == "bgr":
        x = x.flip(1)  # raw color is RGB
    mean, std = _statistics(inputs, x)
    return (x - mean) / std


def denormalize(images: Tensor, inputs: InputSpec) -> Tensor:
    """Model inputs `n ...` back to raw values (RGB), clamped to ``inputs.value_range``."""
    mean, std = _statistics(inputs, images)
    raw = (images * std + mean).clamp(*inputs.value_range)
    return raw.flip(1) if inputs.color_order == "bgr" else raw


def valid_bounds(inputs: InputSpec) -> tuple[Tensor, Tensor]:
    """The lowest and highest model input of each channel, float32, to broadcast over one sample.

    Shapes are `c 1 1` for images and `1` or `f` for plain features.
    """
    mean, std = _statistics(inputs, torch.zeros(0))
    low, high = inputs.value_range
    return (low - mean) / std, (high - mean) / std


def _statistics(inputs: InputSpec, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std of ``inputs`` on the device of ``like``, shaped to broadcast over a sample."""
    axis = channel_axis(inputs)
    shape = [-1] + [1] * (len(inputs.shape) - 1 - axis)
    size = inputs.shape[axis]
    for name, values in (("mean", inputs.mean), ("std", inputs.std)):
        if len(values) not in (1, size):
            raise DataError(
                f"{len(values)} values for {size} channels",
                where=f"inputs.{name}",
                hint=f"inputs have the axes {' '.join(inputs.axes)}: give one value for each "
                f"{inputs.axes[axis]}, one for all, or other inputs.axes",
            )
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=like.device).view(shape)
        for values in (inputs.mean, inputs.std)
    )
    return mean, std


def _layout(raw: Tensor, inputs: InputSpec) -> Tensor:
    """Bring raw samples to the axes of the specification where there is one way to do it."""
    wanted = list(inputs.shape)
    given = list(raw.shape[1:])
    if given == wanted:
        return raw
    if is_image(inputs) and len(given) == 3 and given[0] == wanted[0]:
        return raw
    if given == [1, *wanted]:  # an array of two axes per sample is read as gray images
        return raw.squeeze(1)
    flat = 1 in (len(wanted), len(given)) and math.prod(given) == math.prod(wanted)
    gray = [1] in (given[:1], wanted[:1])
    if flat and gray and {len(wanted), len(given)} == {1, 3}:
        return raw.reshape(len(raw), *wanted)
    hint = None
    if len(wanted) == len(given) == 3:
        hint = f"the data have {given[0]} channels, the teacher takes {wanted[0]}: convert them"
        if given[2] == wanted[0]:
            hint = "store them with the channels first, n c h w"
    raise DataError(
        f"samples have shape {given}, the teacher takes {wanted} ({' '.join(inputs.axes)})",
        where="inputs.shape",
        hint=hint,
    )


def _fit(x: Tensor, inputs: InputSpec) -> Tensor:
    """Resize and crop images `n c h w` to the size of the specification."""
    height, width = inputs.shape[1:]
    mode, crop = inputs.crop_mode or "center", inputs.crop_pct
    if crop is None:
        return _resize(x, height, width, inputs)
    if mode == "border":
        raise DataError("crop_mode 'border' is not supported", where="inputs.crop_mode")
    tall, wide = math.floor(height / crop), math.floor(width / crop)
    if mode == "center":
        factor = max(tall / x.shape[2], wide / x.shape[3])
        tall, wide = round(x.shape[2] * factor), round(x.shape[3] * factor)
    x = _resize(x, max(tall, height), max(wide, width), inputs)
    top, left = round((x.shape[2] - height) / 2), round((x.shape[3] - width) / 2)
    return x[:, :, top : top + height, left : left + width]


def _resize(x: Tensor, height: int, width: int, inputs: InputSpec) -> Tensor:
    given = (x.shape[2], x.shape[3])
    if given == (height, width):
        return x
    if inputs.interpolation is None:
        raise DataError(
            f"images are {given[0]}x{given[1]}, the teacher takes {height}x{width} and does not "
            "say how to resize",
            where="inputs.interpolation",
            hint="state nearest, bilinear or bicubic, or resize the data",
        )
    if inputs.interpolation == "nearest":
        return F.interpolate(x, (height, width), mode="nearest-exact")  # "nearest" is off-center
    shrinks = height < given[0] or width < given[1]
    return F.interpolate(
        x, (height, width), mode=inputs.interpolation, align_corners=False, antialias=shrinks
    )
