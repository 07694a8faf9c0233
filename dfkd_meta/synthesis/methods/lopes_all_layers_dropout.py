"""Lopes, Fenu & Starner 2017, all-layers activation records under fixed dropout."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import cast

import torch

from dfkd_meta.synthesis.dropout import fixed_dropout
from dfkd_meta.synthesis.methods.lopes_all_layers import NEEDS, lopes_all_layers
from dfkd_meta.synthesis.methods.lopes_top_layer import LopesConfig
from dfkd_meta.synthesis.recipe import MethodContext, Query, Recipe, method


@method(
    "lopes_all_layers_dropout",
    source="Lopes, Fenu & Starner 2017, 'all layers activation records' with fixed dropout filters",
    config=LopesConfig,
    needs=(*NEEDS, (Query("dropout"),)),
)
def lopes_all_layers_dropout(context: MethodContext, config: LopesConfig) -> Recipe:
    """``lopes_all_layers`` through a thinned teacher: one dropout mask per input and layer.

    The masks have the recorded keep probabilities, are drawn once per batch and stay fixed for all
    its steps. Kept units are scaled as torch scales them in training; the published code scales
    them again, so that its activations are not those that were recorded.
    """
    record = context.sidecar.find("dropout")[0]
    sites = cast(list[str], record.params["sites"])  # the standard says so, and it was validated
    probabilities = context.sidecar.array(record, "keep_probability").tolist()
    keep = dict(zip(sites, probabilities, strict=True))

    def thinned(size: int, generator: torch.Generator) -> AbstractContextManager[None]:
        return fixed_dropout(context.teacher.module, keep, generator)

    return replace(lopes_all_layers(context, config), perturb=thinned)
