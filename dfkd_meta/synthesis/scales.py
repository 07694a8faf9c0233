"""Inputs in units of the recorded spread of their features, where no spectrum is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_meta.sidecar import StatisticRecord, Tap
from dfkd_meta.synthesis.gaussians import read_tensor
from dfkd_meta.synthesis.recipe import MethodContext
from dfkd_meta.synthesis.sources.pixels import Rendering
from dfkd_meta.teachers import ActivationTap, channel_axis

ROLES = {"moments": ("mean", "variance"), "batchnorm": ("running_mean", "running_var")}


@dataclass(frozen=True)
class ScaledInputs:
    """Renders coordinates as inputs: ``mean + std z``, cut to the bounds (low, high).

    All four broadcast over one input. Gradients pass through the cut as if it were not there.
    """

    mean: Tensor
    std: Tensor
    bounds: tuple[Tensor, Tensor]

    def __call__(self, white: Tensor) -> Tensor:
        """Coordinates `n ...` to inputs of the same shape."""
        plain = self.mean + self.std * white
        return plain.detach().clamp(*self.bounds) + (plain - plain.detach())


def scaled_inputs(context: MethodContext) -> Rendering | None:
    """How a sidecar lets white noise be scaled; None where it says nothing of the input's features.

    Tables have features of scales that differ by orders of magnitude. What a BatchNorm keeps of
    them, if it is the first layer, or moments over all classes say by how much each varies.
    """
    for record in _of_input(context):
        mean, variance = (
            read_tensor(context.sidecar, record, role, context.device)
            for role in ROLES[record.kind]
        )
        shape = _shape(context, record)
        inputs = ScaledInputs(mean.view(shape), variance.sqrt().view(shape), context.bounds)
        return lambda targets, generator: inputs
    return None


def _of_input(context: MethodContext) -> Iterator[StatisticRecord]:
    """Records over all classes of what the teacher is given, as it is."""
    sidecar = context.sidecar
    found = [record for kind in ROLES for record in sidecar.find(kind, scope="global")]
    plain = [record for record in found if record.reduction != "pooled"]
    shape = context.teacher.inputs.shape
    places = {record.taps[0]: sidecar.tap(record.taps[0]) for record in plain}
    near = [tap for tap in places.values() if tap.linear_in_input and tap.shape == shape]
    untouched = _untouched(context, near)
    return (record for record in plain if record.taps[0] in untouched)


def _untouched(context: MethodContext, taps: list[Tap]) -> set[str]:
    """Those of the taps at which the input itself arrives."""
    if not taps:
        return set()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, *context.shape, generator=generator).to(context.device)
    with torch.no_grad(), ActivationTap(context.teacher.module, taps) as tap:
        context.teacher(inputs)
        return {place.id for place in taps if torch.equal(tap.activations[place.id], inputs)}


def _shape(context: MethodContext, record: StatisticRecord) -> list[int]:
    """What a record's features are viewed as to broadcast over one input."""
    whole = context.teacher.inputs.shape
    if record.reduction == "unit":
        return list(whole)
    axis = channel_axis(context.sidecar.tap(record.taps[0]))
    return [-1] + [1] * (len(whole) - 1 - axis)
