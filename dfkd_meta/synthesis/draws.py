"""Inputs drawn from what a sidecar records of the input itself: nothing is optimized."""

from __future__ import annotations

import torch
from torch import Tensor

from dfkd_meta.sidecar import Sidecar, Tap
from dfkd_meta.synthesis.gaussians import (
    ClassGaussians,
    ClassMixtures,
    of_input,
    read_gaussians,
    read_mixtures,
)
from dfkd_meta.synthesis.marginals import ValueMap, read_marginals
from dfkd_meta.synthesis.recipe import MethodContext
from dfkd_meta.synthesis.sources.pixels import Start
from dfkd_meta.synthesis.targets import Targets, every_class

Draws = ClassMixtures | ClassGaussians
SAMPLE = 4_000  # draws that tell which values draws have (fewer of large inputs)


def read_draws(sidecar: Sidecar, device: torch.device) -> Draws | None:
    """The richest per-class distribution of the input that the publisher shipped, if any."""
    for record in of_input(sidecar, "mixture", scope="per_class", reduction="unit"):
        return read_mixtures(sidecar, record, device)
    for record in of_input(sidecar, "covariance", scope="per_class", reduction="unit"):
        return read_gaussians(sidecar, record, device, residual=False)
    return None


def plain_draws(context: MethodContext, draws: Draws) -> Start:
    """Draws within the range of inputs."""
    low, high = context.bounds

    def start(targets: Targets, generator: torch.Generator) -> Tensor:
        drawn = draws.sample(targets.labels, generator).reshape(-1, *context.shape)
        return drawn.clamp(low, high)

    return start


def drawn_along(context: MethodContext, tap: Tap) -> Start:
    """The part of a joint draw that is the input, within the range of inputs."""
    low, high = context.bounds

    def start(targets: Targets, generator: torch.Generator) -> Tensor:
        return targets.features[tap.id].reshape(-1, *context.shape).clamp(low, high)

    return start


def drawn_start(context: MethodContext, draws: Draws) -> Start:
    """Draws within the range of inputs, with the recorded marginals where there are any.

    A draw of a Gaussian is blurred: where real digits are black or white it is gray. Giving each
    channel the values it has in the data (over all classes and places) undoes much of that.
    """
    plain = plain_draws(context, draws)
    wanted = read_marginals(context.sidecar, context.device)
    if wanted is None:
        return plain
    targets = every_class(context.fitting(SAMPLE), context.classes, context.device)
    sample = plain(targets, torch.Generator().manual_seed(0))
    turn = ValueMap.for_inputs_like(sample, wanted)
    return lambda targets, generator: turn(plain(targets, generator))
