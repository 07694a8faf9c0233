"""Lopes, Fenu & Starner 2017, all-layers activation records."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from dfkd_meta.sidecar import StatisticRecord, Tap
from dfkd_meta.synthesis.gaussians import read_gaussians
from dfkd_meta.synthesis.methods.lopes_top_layer import (
    TOP,
    LopesConfig,
    lopes_source,
    top_record,
    top_target,
)
from dfkd_meta.synthesis.recipe import MethodContext, Query, Recipe, Weighted, method
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.features import FeatureTarget, FeatureTargets
from dfkd_meta.teachers import ActivationTap, Teacher, default_taps

NEEDS = (
    (
        Query("covariance", scope="per_class", reduction="unit"),
        Query("moments", scope="per_class", reduction="unit"),
    ),
    (TOP,),
)


def layer_records(context: MethodContext) -> dict[str, StatisticRecord]:
    """For each layer's output, its per-class record: a unit-wise covariance, else moments."""
    found: dict[str, StatisticRecord] = {}
    for kind in ("covariance", "moments"):
        for record in context.sidecar.find(kind, scope="per_class", reduction="unit"):
            tap = context.sidecar.tap(record.taps[0])
            if tap.module and tap.side == "output":
                found.setdefault(tap.id, record)
    return found


def before_batchnorm(teacher: Teacher, taps: Sequence[Tap]) -> set[str]:
    """Ids of the taps whose very tensor a BatchNorm takes: a ReLU cuts what that makes of it."""
    module = teacher.module
    inputs = [
        tap
        for tap in default_taps(teacher)
        if tap.side == "input" and isinstance(module.get_submodule(tap.module), _BatchNorm)
    ]
    zeros = torch.zeros(1, *teacher.inputs.shape, device=teacher.device)
    with torch.no_grad(), ActivationTap(module, [*taps, *inputs]) as seen:
        teacher(zeros)
        taken = {seen.activations[tap.id].data_ptr() for tap in inputs}
        return {tap.id for tap in taps if seen.activations[tap.id].data_ptr() in taken}


@method(
    "lopes_all_layers",
    source="Lopes, Fenu & Starner 2017, 'all layers activation records'",
    config=LopesConfig,
    needs=NEEDS,
)
def lopes_all_layers(context: MethodContext, config: LopesConfig) -> Recipe:
    """Match the output of every layer that the sidecar records, with independent draws per layer.

    ``sum_l mean_f (relu(a_l) - relu(s_l))^2``: the paper divides each layer's sum of squares by its
    number of units, once (the code divides twice). Where a BatchNorm stands between layer and ReLU
    (the paper's networks have none) nothing is rectified: the sign that the ReLU asks for is not
    that of the layer's output. The top layer is compared as logits / T. The notes of a run say
    which layers there are.
    """
    sidecar = context.sidecar
    top = top_record(context)
    layers = layer_records(context)
    gaussians = {
        tap: read_gaussians(sidecar, record, context.device)
        for tap, record in {**layers, top.taps[0]: top}.items()
    }
    taps = [sidecar.tap(tap) for tap in layers]
    linear = before_batchnorm(context.teacher, taps)
    hidden = tuple(FeatureTarget(tap, rectify=tap.id not in linear) for tap in taps)
    listed = ", ".join(f"{tap} ({record.kind})" for tap, record in layers.items())
    return Recipe(
        targets=TargetSampler(context.classes, context.device, gaussians),
        source=lopes_source(context, config),
        images=config.images,
        batch_size=config.batch_size,
        terms={
            "layers": Weighted(FeatureTargets(hidden), 1.0),
            "top": Weighted(top_target(context, top), 1.0),
        },
        steps=config.steps,
        notes=(f"layers matched besides the logits: {listed or 'none'}",),
    )
