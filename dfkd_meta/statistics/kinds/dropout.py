"""``dropout``: where the teacher dropped units in training, and how many it kept."""

from __future__ import annotations

import numpy as np
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dfkd_meta.errors import StatisticsError
from dfkd_meta.statistics.base import Accumulator, Context, RecordRequest, Result, statistics


def dropout_sites(module: nn.Module) -> list[str]:
    """Module paths of the dropout layers, in definition order."""
    return [path for path, child in module.named_modules() if isinstance(child, _DropoutNd)]


@statistics.register("dropout")
class Dropout(Accumulator):
    """Keep probability 1 - p of each dropout layer; read from the module.

    ``keep_probability`` `s`, in [0, 1]; the parameter ``sites`` lists the module paths in the same
    order (default: all). Raises StatisticsError when a site is no dropout layer, or there is none.
    """

    kind = "dropout"
    parameters = ("sites",)

    def result(self) -> Result:
        known = dropout_sites(self.context.module)
        sites = list(self.request.params.get("sites") or known)
        if not sites or not set(sites) <= set(known):
            raise StatisticsError(
                f"no dropout layer at {', '.join(sorted(set(sites) - set(known))) or 'any place'}",
                where=self.request.id,
                hint="dropout layers: " + (", ".join(known) or "none"),
            )
        layers = dict(self.context.module.named_modules())
        keep = [1.0 - layer.p for path in sites if isinstance(layer := layers[path], _DropoutNd)]
        return Result({"keep_probability": np.array(keep)}, params={"sites": sites})

    @classmethod
    def reference(
        cls, features: np.ndarray, groups: np.ndarray, request: RecordRequest, context: Context
    ) -> dict[str, np.ndarray]:
        named = {path: vars(child) for path, child in context.module.named_modules()}
        sites = request.params.get("sites") or [path for path, own in named.items() if "p" in own]
        return {"keep_probability": np.array([1 - named[path]["p"] for path in sites])}
