"""Axis words of taps and inputs: which axis holds the channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfkd_meta import sidecar
from dfkd_meta.sidecar.manifest import InputSpec, Tap


def channel_axis(place: Tap | InputSpec) -> int:
    """Which axis of ``place.shape`` holds the channels: ``c``, else ``f``, else the last one."""
    axis = sidecar.channel_axis(place.axes)
    return len(place.axes) - 1 if axis is None else axis


def is_image(inputs: InputSpec) -> bool:
    """Whether samples are images in the layout `c h w`."""
    return len(inputs.shape) == 3 and channel_axis(inputs) == 0


def cosine_transform(size: int, device: torch.device) -> Tensor:
    """The orthonormal DCT-II as a matrix, float64 `k x`; its transpose is its inverse."""
    frequency = torch.arange(size, dtype=torch.float64)[:, None]
    place = torch.arange(size, dtype=torch.float64)
    matrix = math.sqrt(2 / size) * torch.cos(math.pi * frequency * (2 * place + 1) / (2 * size))
    matrix[0] /= math.sqrt(2)
    return matrix.to(device)
