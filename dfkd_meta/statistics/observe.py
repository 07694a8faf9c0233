"""How many features a pass counts, and everything that it refuses to count."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dfkd_meta.errors import StatisticsError
from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.teachers import Teacher, channel_axis


def feature_count(taps: Sequence[Tap], reduction: str | None) -> int:
    """Features after the reduction, summed over the taps."""
    if reduction == "unit":
        return sum(math.prod(tap.shape) for tap in taps)
    return sum(tap.shape[channel_axis(tap)] for tap in taps)


def checked_activation(activation: Tensor, tap: Tap, samples: int, batch: int) -> Tensor:
    """The activation in float64 (on the CPU where the device has none), shape and values checked.

    Raises StatisticsError that names the tap and the batch.
    """
    if list(activation.shape) != [samples, *tap.shape]:
        raise StatisticsError(
            f"batch {batch} gives a tensor of shape {list(activation.shape)}, "
            f"expected {[samples, *tap.shape]}",
            where=f"tap {tap.id}",
        )
    wide = (activation.cpu() if activation.device.type == "mps" else activation).double()
    # float32 values cannot overflow a float64 sum, so the sum is finite if and only if they all are
    if not math.isfinite(float(wide.sum())):
        raise StatisticsError(
            f"batch {batch} gives NaN or infinite activations",
            where=f"tap {tap.id}",
            hint="look for NaN in that batch of the data, then in the weights before this tap",
        )
    return wide


def check_images(teacher: Teacher, images: Tensor, batch: int) -> None:
    """Raises StatisticsError when a batch is not `n ...` of the teacher's input shape."""
    if list(images.shape[1:]) != list(teacher.inputs.shape):
        raise StatisticsError(
            f"batch {batch} has samples of shape {list(images.shape[1:])}, "
            f"the teacher's input specification says {list(teacher.inputs.shape)}",
            where="inputs.shape",
        )


def fingerprint(module: nn.Module) -> dict[str, str]:
    """A digest of every parameter and buffer by name, to prove that a pass changed none."""
    return {
        name: hashlib.blake2b(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        ).hexdigest()
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
    }
