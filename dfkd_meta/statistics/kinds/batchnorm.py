"""``batchnorm``: the running statistics that a BatchNorm layer keeps of its own input."""

from __future__ import annotations

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfkd_meta.errors import StatisticsError
from dfkd_meta.statistics.base import Accumulator, Context, RecordRequest, Result, statistics


def batchnorm_paths(module: nn.Module) -> list[str]:
    """Module paths of the BatchNorm layers that keep running statistics, in order."""
    return [
        path
        for path, child in module.named_modules()
        if isinstance(child, _BatchNorm) and child.running_mean is not None
    ]


@statistics.register("batchnorm")
class BatchNorm(Accumulator):
    """Running mean and variance of the BatchNorm whose input the tap is; read from the weights.

    Roles: ``running_mean`` `f`, ``running_var`` `f` (torch keeps it with divisor n - 1);
    parameter ``eps``. ``Result.stored`` names the keys in the teacher's state, so that the sidecar
    can point there. Raises StatisticsError when the tap's module is no such layer.
    """

    kind = "batchnorm"

    def result(self) -> Result:
        path = self.context.taps[0].module
        layer = self.context.module.get_submodule(path)
        if path not in batchnorm_paths(self.context.module) or not isinstance(layer, _BatchNorm):
            raise StatisticsError(
                "the tap is not the input of a BatchNorm layer with running statistics",
                where=self.request.id,
                hint="batchnorm taps: "
                + (", ".join(f"{p}:input" for p in batchnorm_paths(self.context.module)) or "none"),
            )
        stored = {role: f"{path}.{role}" for role in ("running_mean", "running_var")}
        buffers = dict(self.context.module.named_buffers())
        return Result(
            {role: buffers[key].double().cpu().numpy() for role, key in stored.items()},
            params={"eps": float(layer.eps)},
            stored=stored,
        )

    @classmethod
    def reference(
        cls, features: np.ndarray, groups: np.ndarray, request: RecordRequest, context: Context
    ) -> dict[str, np.ndarray]:
        state = context.module.state_dict()
        path = context.taps[0].module
        return {
            role: np.asarray(state[f"{path}.{role}"].tolist())
            for role in ("running_mean", "running_var")
        }
