"""Axis words of taps and inputs: which axis holds the channels."""

from __future__ import annotations

from dfkd_meta import sidecar
from dfkd_meta.sidecar.manifest import InputSpec, Tap


def channel_axis(place: Tap | InputSpec) -> int:
    """Which axis of ``place.shape`` holds the channels: ``c``, else ``f``, else the last one."""
    axis = sidecar.channel_axis(place.axes)
    return len(place.axes) - 1 if axis is None else axis


def is_image(inputs: InputSpec) -> bool:
    """Whether samples are images in the layout `c h w`."""
    return len(inputs.shape) == 3 and channel_axis(inputs) == 0
