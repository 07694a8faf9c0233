"""Axis words of taps and inputs: which axis holds the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from dfkd_meta import sidecar
from dfkd_meta.sidecar.manifest import InputSpec

# How the channels of an image are read where its file does not say: by their number.
COLOR_ORDERS: dict[int, Literal["gray", "rgb"]] = {1: "gray", 3: "rgb"}


class WithAxes(Protocol):
    """What says how its axes are called: an input block, a tap, a place."""

    @property
    def axes(self) -> Sequence[str]: ...


def channel_axis(place: WithAxes) -> int:
    """Which axis of ``place.shape`` holds the channels: ``c``, else ``f``, else the last one."""
    axis = sidecar.channel_axis(place.axes)
    return len(place.axes) - 1 if axis is None else axis


def is_image(inputs: InputSpec) -> bool:
    """Whether samples are images in the layout `c h w`."""
    return len(inputs.shape) == 3 and channel_axis(inputs) == 0


def for_all_channels(inputs: InputSpec) -> InputSpec:
    """The same with a single mean or std repeated for every channel there is."""
    if len(inputs.shape) == 1 or len(inputs.axes) != len(inputs.shape):
        return inputs
    channels = inputs.shape[channel_axis(inputs)]
    given = {key: getattr(inputs, key) for key in ("mean", "std")}
    return inputs.model_copy(
        update={key: one * channels for key, one in given.items() if len(one) == 1}
    )
