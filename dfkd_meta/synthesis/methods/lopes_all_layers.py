"""Lopes, Fenu & Starner 2017, all-layers activation records."""

from __future__ import annotations

from dfkd_meta.sidecar import StatisticRecord
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


@method(
    "lopes_all_layers",
    source="Lopes, Fenu & Starner 2017, 'all layers activation records'",
    config=LopesConfig,
    needs=NEEDS,
)
def lopes_all_layers(context: MethodContext, config: LopesConfig) -> Recipe:
    """Match every layer's pre-activation, rectified, with independent draws per layer.

    ``sum_l mean_f (relu(a_l) - relu(s_l))^2``: the paper divides each layer's sum of squares by its
    number of units, once (the code divides twice). The top layer is compared as logits / T.
    """
    sidecar = context.sidecar
    top = top_record(context)
    layers = layer_records(context)
    gaussians = {
        tap: read_gaussians(sidecar, record, context.device)
        for tap, record in {**layers, top.taps[0]: top}.items()
    }
    hidden = tuple(FeatureTarget(sidecar.tap(tap), rectify=True) for tap in layers)
    return Recipe(
        targets=TargetSampler(context.teacher.outputs.num_classes, context.device, gaussians),
        source=lopes_source(context, config),
        images=config.images,
        batch_size=config.batch_size,
        terms={
            "layers": Weighted(FeatureTargets(hidden), 1.0),
            "top": Weighted(top_target(context, top), 1.0),
        },
        steps=config.steps,
    )
